// torch tensors as views. Tensors are dense and row-major in the view's layout: the Python layer
// sees to that, and it is checked here.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "pyquant/error.h"
#include "pyquant/tensor.h"

namespace pyquant::python {

inline DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kByte:
      return DType::kUInt8;
    case at::kChar:
      return DType::kInt8;
    case at::kInt:
      return DType::kInt32;
    case at::kFloat:
      return DType::kFloat32;
    default:
      throw InvalidInputError(std::string("a tensor is ") + c10::toString(tensor.scalar_type()) +
                              "; it must be float32, uint8, int8 or int32");
  }
}

inline at::ScalarType scalar_type_of(DType dtype) {
  constexpr at::ScalarType kTypes[] = {at::kByte, at::kChar, at::kInt, at::kFloat};
  return kTypes[static_cast<std::size_t>(dtype)];
}

inline Shape shape_of(const at::Tensor& tensor) {
  Shape shape;
  for (const std::int64_t dim : tensor.sizes()) {
    shape.push_back(dim);
  }
  return shape;
}

// Throws InvalidInputError for tensors that are not dense, row-major and in CPU memory.
inline ConstTensorView view_of(const at::Tensor& tensor) {
  if (!tensor.device().is_cpu() || tensor.layout() != at::kStrided || !tensor.is_contiguous()) {
    throw InvalidInputError("a tensor is not a contiguous CPU tensor");
  }
  return {dtype_of(tensor), shape_of(tensor), tensor.const_data_ptr()};
}

inline at::Tensor make_tensor(DType dtype, const Shape& shape) {
  return at::empty(std::vector<std::int64_t>(shape.begin(), shape.end()),
                   at::TensorOptions().dtype(scalar_type_of(dtype)));
}

}  // namespace pyquant::python
