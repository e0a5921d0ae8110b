// The elements of one input tensor of a request, from JSON, binary data or pictures.
#pragma once

#include <pyquant/tensor.h>

#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "model.h"

namespace server {

// A tensor, and its memory if that is not the request's.
struct TensorData {
  pyquant::ConstTensorView view;
  std::unique_ptr<std::byte[]> storage;
};

// From numbers, nested as the shape says or flat. Throws RequestError.
TensorData from_json(pyquant::DType dtype, const pyquant::Shape& shape,
                     const nlohmann::json& numbers);

// From little-endian bytes, which must be as many as the shape takes: refers to them if they are
// aligned. Throws RequestError.
TensorData from_binary(pyquant::DType dtype, const pyquant::Shape& shape, std::string_view bytes);

// From encoded pictures, one for each image of the batch. Throws RequestError.
TensorData from_pictures(const ImageTransform& transform, const pyquant::Shape& shape,
                         const std::vector<std::string_view>& pictures, std::size_t max_pixels);

// The elements of a BYTES tensor in binary: each has its length before it, in four bytes. Throws
// RequestError.
std::vector<std::string_view> split_bytes_tensor(std::string_view bytes);

}  // namespace server
