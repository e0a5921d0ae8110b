#include "tensor_data.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>

#include "request_error.h"

namespace server {
namespace {

using nlohmann::json;
using pyquant::DType;
using pyquant::Shape;

TensorData allocate(DType dtype, const Shape& shape) {
  TensorData result;
  const auto bytes = static_cast<std::size_t>(shape.elements()) * size_of(dtype);
  result.storage = std::make_unique_for_overwrite<std::byte[]>(bytes);
  result.view = {dtype, shape, result.storage.get()};
  return result;
}

template <typename T>
T to_number(const json& value) {
  if constexpr (std::is_floating_point_v<T>) {
    const double number = value.is_number() ? value.get<double>() : std::nan("");
    if (std::abs(number) <= std::numeric_limits<T>::max()) {
      return static_cast<T>(number);
    }
  } else if (value.is_number_integer()) {
    const auto number = value.is_number_unsigned() && value.get<std::uint64_t>() > INT32_MAX
                            ? std::numeric_limits<std::int64_t>::max()
                            : value.get<std::int64_t>();
    if (number >= std::numeric_limits<T>::min() && number <= std::numeric_limits<T>::max()) {
      return static_cast<T>(number);
    }
  }
  throw RequestError("an input's data have a value that is not of its datatype: " +
                     value.dump().substr(0, 40));
}

// Appends the numbers below `value`, which stands `depth` lists deep.
template <typename T>
void flatten(const json& value, std::size_t depth, std::size_t max_depth, T*& next, T* end) {
  if (!value.is_array()) {
    if (next == end) {
      throw RequestError("an input has more data than its shape says");
    }
    *next++ = to_number<T>(value);
    return;
  }
  if (depth == max_depth) {
    throw RequestError("an input's data are nested deeper than its shape");
  }
  for (const json& element : value) {
    flatten(element, depth + 1, max_depth, next, end);
  }
}

template <typename T>
void fill(const json& numbers, const Shape& shape, std::byte* bytes) {
  T* next = reinterpret_cast<T*>(bytes);
  T* const end = next + shape.elements();
  flatten(numbers, 0, shape.rank(), next, end);
  if (next != end) {
    throw RequestError("an input has less data than its shape says");
  }
}

// By DType.
constexpr void (*kFill[])(const json&, const Shape&, std::byte*) = {
    fill<std::uint8_t>, fill<std::int8_t>, fill<std::int32_t>, fill<float>};

}  // namespace

TensorData from_json(DType dtype, const Shape& shape, const json& numbers) {
  if (!numbers.is_array()) {
    throw RequestError("an input's data must be a list");
  }
  TensorData result = allocate(dtype, shape);
  kFill[static_cast<std::size_t>(dtype)](numbers, shape, result.storage.get());
  return result;
}

TensorData from_binary(DType dtype, const Shape& shape, std::string_view bytes) {
  const auto expected = static_cast<std::size_t>(shape.elements()) * size_of(dtype);
  if (bytes.size() != expected) {
    throw RequestError("an input of shape " + shape.to_string() + " has " +
                       std::to_string(bytes.size()) + " bytes of data instead of " +
                       std::to_string(expected));
  }
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % size_of(dtype) == 0) {
    return {{dtype, shape, bytes.data()}, nullptr};
  }
  TensorData result = allocate(dtype, shape);
  std::memcpy(result.storage.get(), bytes.data(), bytes.size());
  return result;
}

TensorData from_pictures(const ImageTransform& transform, const Shape& shape,
                         const std::vector<std::string_view>& pictures, std::size_t max_pixels) {
  TensorData result = allocate(DType::kFloat32, shape);
  const auto image_size = static_cast<std::size_t>(shape.elements()) / pictures.size();
  float* next = reinterpret_cast<float*>(result.storage.get());
  for (const std::string_view picture : pictures) {
    const Image image = decode_image(std::as_bytes(std::span(picture)), max_pixels);
    transform.apply(image, {next, image_size});
    next += image_size;
  }
  return result;
}

std::vector<std::string_view> split_bytes_tensor(std::string_view bytes) {
  std::vector<std::string_view> elements;
  while (!bytes.empty()) {
    std::uint32_t length = 0;
    if (bytes.size() < sizeof length) {
      throw RequestError("the data of a BYTES input end within an element's length");
    }
    std::memcpy(&length, bytes.data(), sizeof length);
    bytes.remove_prefix(sizeof length);
    if (bytes.size() < length) {
      throw RequestError("the data of a BYTES input end within an element");
    }
    elements.push_back(bytes.substr(0, length));
    bytes.remove_prefix(length);
  }
  return elements;
}

}  // namespace server
