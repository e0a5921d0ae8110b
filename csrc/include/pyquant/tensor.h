// Shapes, element types and non-owning views of dense, row-major tensors. Plain values: a view does
// not keep its data alive.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "pyquant/error.h"

namespace pyquant {

enum class DType : std::uint8_t { kUInt8 = 0, kInt8 = 1, kInt32 = 2, kFloat32 = 3 };

// Bytes of one element.
constexpr std::size_t size_of(DType dtype) {
  return dtype == DType::kUInt8 || dtype == DType::kInt8 ? 1 : 4;
}

constexpr const char* to_string(DType dtype) {
  constexpr const char* kNames[] = {"uint8", "int8", "int32", "float32"};
  return kNames[static_cast<std::size_t>(dtype)];
}

// Up to six dimensions, outermost first. Rank-4 activations are NHWC inside a Program and NCHW at
// its float inputs and outputs.
class Shape {
 public:
  static constexpr std::size_t kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) {
    for (const std::int64_t dim : dims) {
      push_back(dim);
    }
  }

  std::size_t rank() const { return rank_; }
  std::int64_t operator[](std::size_t axis) const { return dims_[axis]; }
  std::int64_t& operator[](std::size_t axis) { return dims_[axis]; }
  const std::int64_t* begin() const { return dims_.data(); }
  const std::int64_t* end() const { return dims_.data() + rank_; }

  // Appends an innermost dimension. Throws InvalidInputError beyond kMaxRank.
  void push_back(std::int64_t dim) {
    if (rank_ == kMaxRank) {
      throw InvalidInputError("a tensor has more than 6 dimensions");
    }
    dims_[rank_++] = dim;
  }

  // Number of elements, which must fit int64.
  std::int64_t elements() const {
    std::int64_t count = 1;
    for (const std::int64_t dim : *this) {
      count *= dim;
    }
    return count;
  }

  std::string to_string() const {
    std::string text = "[";
    for (std::size_t axis = 0; axis < rank_; ++axis) {
      text += (axis == 0 ? "" : ", ") + std::to_string(dims_[axis]);
    }
    return text + "]";
  }

  friend bool operator==(const Shape& a, const Shape& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }
  friend bool operator<(const Shape& a, const Shape& b) {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
  }

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  std::size_t rank_ = 0;
};

// A dense, row-major tensor that somebody else owns.
struct TensorView {
  DType dtype = DType::kUInt8;
  Shape shape;
  void* data = nullptr;

  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements()) * size_of(dtype); }
};

struct ConstTensorView {
  DType dtype = DType::kUInt8;
  Shape shape;
  const void* data = nullptr;

  ConstTensorView() = default;
  ConstTensorView(DType type, const Shape& dims, const void* bytes)
      : dtype(type), shape(dims), data(bytes) {}
  ConstTensorView(const TensorView& view)  // NOLINT(google-explicit-constructor)
      : dtype(view.dtype), shape(view.shape), data(view.data) {}

  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements()) * size_of(dtype); }
};

}  // namespace pyquant
