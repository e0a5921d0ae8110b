#include <torch/csrc/utils/pybind.h>

#include "bindings/bindings.h"
#include "bindings/tensor_views.h"
#include "pyquant/quantize_weight.h"

namespace py = pybind11;

namespace pyquant::python {
namespace {

std::span<float> floats_of(const at::Tensor& tensor) {
  if (view_of(tensor).dtype != DType::kFloat32) {
    throw InvalidInputError("a tensor is not float32");
  }
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

template <typename Value>
at::Tensor copy_of(const std::vector<Value>& values, DType dtype, const Shape& shape) {
  const at::Tensor tensor = make_tensor(dtype, shape);
  std::copy(values.begin(), values.end(), tensor.data_ptr<Value>());
  return tensor;
}

}  // namespace

void bind_weights(py::module_& module) {
  module.def(
      "fold_batch_norm",
      [](const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean,
         const at::Tensor& variance, const at::Tensor& gamma, const at::Tensor& beta,
         float epsilon) {
        const at::Tensor folded_weight = weight.clone();
        const at::Tensor folded_bias = bias.clone();
        fold_batch_norm(
            {floats_of(mean), floats_of(variance), floats_of(gamma), floats_of(beta), epsilon},
            floats_of(folded_weight), floats_of(folded_bias));
        return py::make_tuple(folded_weight, folded_bias);
      },
      py::arg("weight"), py::arg("bias"), py::arg("mean"), py::arg("variance"), py::arg("gamma"),
      py::arg("beta"), py::arg("epsilon"),
      "Folds a BatchNorm into weight [O, ...] and bias [O], float32; returns new tensors.");
  module.def(
      "least_squares_scales",
      [](const at::Tensor& weight) {
        const auto channels = static_cast<std::size_t>(weight.dim() == 0 ? 0 : weight.size(0));
        const std::span<const float> values = floats_of(weight);
        std::vector<float> scales;
        {
          const py::gil_scoped_release release;
          scales = least_squares_scales(values, channels);
        }
        return copy_of(scales, DType::kFloat32, {static_cast<std::int64_t>(channels)});
      },
      py::arg("weight"),
      "The symmetric int8 scale of least squared error per output channel of a float32 weight.");
  module.def(
      "quantize_weight",
      [](const at::Tensor& weight, const at::Tensor& bias, float input_scale) {
        const QuantizedWeight result =
            quantize_weight(floats_of(weight), floats_of(bias), input_scale);
        const Shape channels = shape_of(bias);
        return py::make_tuple(copy_of(result.values, DType::kInt8, shape_of(weight)),
                              copy_of(result.scales, DType::kFloat32, channels),
                              copy_of(result.bias, DType::kInt32, channels));
      },
      py::arg("weight"), py::arg("bias"), py::arg("input_scale"),
      "Quantizes weight [O, ...] per output channel and bias [O] at scale input_scale * scale.\n"
      "Returns (int8 weight, float32 scales [O], int32 bias [O]).");
}

}  // namespace pyquant::python
