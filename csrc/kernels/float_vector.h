// Vectors of float32 and int32 in GCC's and clang's vector extensions: one source, compiled for
// each instruction set with vectors of its own length. Nothing here rounds other than once per
// operation, so all give the same bits. Internal linkage throughout: these files are compiled with
// different flags, and the linker must not share their copies.
#pragma once

#include <cstddef>
#include <cstdint>

#define PYQUANT_VECTOR_INLINE inline __attribute__((always_inline))

namespace pyquant {
namespace {

// Spelled out because GCC 12 does not take vector types whose size depends on a parameter.
template <std::size_t kBytes>
struct VectorTypes;
#define PYQUANT_VECTOR_TYPES(bytes)                                         \
  template <>                                                               \
  struct VectorTypes<bytes> {                                               \
    typedef float Float __attribute__((vector_size(bytes)));                \
    typedef std::int32_t Int __attribute__((vector_size(bytes)));           \
    typedef std::uint8_t UInt8 __attribute__((vector_size((bytes) / 4)));   \
    typedef std::uint16_t UInt16 __attribute__((vector_size((bytes) / 2))); \
    static UInt8 inputs_of(std::uint8_t);                                   \
    static UInt16 inputs_of(std::uint16_t);                                 \
  };
PYQUANT_VECTOR_TYPES(16)
PYQUANT_VECTOR_TYPES(32)
PYQUANT_VECTOR_TYPES(64)
#undef PYQUANT_VECTOR_TYPES

// How much of a vector an operation takes: types, so that whole vectors stay in registers.
struct Whole {};
struct Part {
  std::size_t lanes;
};

template <std::size_t kBytes>
struct Vector {
  using Float = typename VectorTypes<kBytes>::Float;
  using Int = typename VectorTypes<kBytes>::Int;
  // Of as many numbers of type Input: uint8_t or uint16_t.
  template <typename Input>
  using Inputs = decltype(VectorTypes<kBytes>::inputs_of(Input{}));
  static constexpr std::size_t kLanes = kBytes / sizeof(float);

  static PYQUANT_VECTOR_INLINE Float all(float value) { return value - Float{}; }
  static PYQUANT_VECTOR_INLINE Int all(std::int32_t value) { return value - Int{}; }

  static PYQUANT_VECTOR_INLINE Float load(const float* x) {
    Float value;
    __builtin_memcpy(&value, x, sizeof(value));
    return value;
  }
  static PYQUANT_VECTOR_INLINE Int load(const std::int32_t* x) {
    Int value;
    __builtin_memcpy(&value, x, sizeof(value));
    return value;
  }
  // Zeros in the lanes beyond a part.
  static PYQUANT_VECTOR_INLINE Float load(const float* x, Whole) { return load(x); }
  static PYQUANT_VECTOR_INLINE Float load(const float* x, Part part) {
    float lanes[kLanes] = {};
    for (std::size_t i = 0; i < part.lanes; ++i) {
      lanes[i] = x[i];
    }
    return load(lanes);
  }
  static PYQUANT_VECTOR_INLINE void store(float* y, Float value, Whole) {
    __builtin_memcpy(y, &value, sizeof(value));
  }
  static PYQUANT_VECTOR_INLINE void store(float* y, Float value, Part part) {
    for (std::size_t i = 0; i < part.lanes; ++i) {
      y[i] = value[i];
    }
  }

  // NaN in `a` gives b, and NaN in `b` gives b.
  static PYQUANT_VECTOR_INLINE Float min(Float a, Float b) { return a < b ? a : b; }
  static PYQUANT_VECTOR_INLINE Float max(Float a, Float b) { return a > b ? a : b; }
  static PYQUANT_VECTOR_INLINE Int clamp(Int value, std::int32_t low, std::int32_t high) {
    const Int lowest = all(low);
    const Int highest = all(high);
    const Int above = value > lowest ? value : lowest;
    return above < highest ? above : highest;
  }

  // Adding 1.5 * 2^23 leaves no bits for a fraction: the sum is rounded half to even, and its low
  // bits are the integer. For |value| < 2^22; NaN gives any integer.
  static constexpr float kRound = 12582912.0F;
  static PYQUANT_VECTOR_INLINE Int round(Float value) { return (Int)(value + kRound) - 0x4B400000; }
  static PYQUANT_VECTOR_INLINE Float to_float(Int value) {
    return __builtin_convertvector(value, Float);
  }

  // exp(x) with a relative error below 2^-22, for x clamped to -87..87; NaN stays NaN. The method
  // is that of Cephes' expf (Moshier, "Methods and Programs for Mathematical Functions", 1989): x =
  // n ln 2 + r with the polynomial of degree 7 on |r| <= ln 2 / 2.
  static PYQUANT_VECTOR_INLINE Float exp(Float x) {
    const Float low = all(-87.0F);
    const Float high = all(87.0F);
    // In this order of operands NaN stays.
    x = low > x ? low : x;
    x = high < x ? high : x;
    const Float shifted = x * 1.44269504088896341F + kRound;
    const Float n = shifted - kRound;
    const Float r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
    Float p = r * 1.9875691500e-4F + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * (r * r) + r + 1.0F;
    const Int exponent = ((Int)shifted - 0x4B400000 + 127) << 23;
    return p * (Float)exponent;
  }

  // Absolute errors below 2^-21: a thousandth of half a step of an 8-bit number in -1..1.
  static PYQUANT_VECTOR_INLINE Float sigmoid(Float x) { return 1.0F / (1.0F + exp(-x)); }
  static PYQUANT_VECTOR_INLINE Float tanh(Float x) { return 2.0F / (1.0F + exp(-2.0F * x)) - 1.0F; }
};

// Calls visit(i, Whole) for each vector of `count` elements, and visit(i, Part) for what is left.
template <std::size_t kBytes, typename Visit>
PYQUANT_VECTOR_INLINE void for_each_vector(std::size_t count, Visit visit) {
  constexpr std::size_t kLanes = Vector<kBytes>::kLanes;
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    visit(i, Whole{});
  }
  if (i != count) {
    visit(i, Part{count - i});
  }
}

}  // namespace
}  // namespace pyquant
