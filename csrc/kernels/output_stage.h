// How accumulators become outputs: what the epilogues of the kernels that multiply do.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyquant {

// How a float becomes uint8: clamp(rne(value) + zero_point, low, high).
struct OutputRange {
  std::int32_t zero_point;
  std::int32_t low, high;
};

// One uint8 operand of an addition: float(q - zero_point) * multiplier.
struct AddOperand {
  float multiplier;
  std::int32_t zero_point;
};

// y = clamp(rne(own + other) + zero_point) with the layer's own uint8 result and another tensor of
// the output's shape. |own + other| fits int32.
struct ResidualAdd {
  AddOperand own, other;
  OutputRange range;
  std::ptrdiff_t distance;  // from the address of an output to that of its other operand
};

// 2^23 as a float's bits.
inline constexpr std::int32_t kFloatSum = 0x4B000000;

// From accumulators to outputs.
struct OutputStage {
  enum class Kind : std::uint8_t {
    kUInt8,         // every accumulator * multiplier is known to fit int32
    kUInt8Clamped,  // not known: clamped as floats
    kFloat,         // float(accumulator) * multiplier; no range
    kInt32,  // the accumulator: all lanes of the block's vectors, in lane order. Not depthwise
  };
  // What happens to the uint8 result before it is stored.
  enum class PostOp : std::uint8_t { kNone, kTable, kAdd };

  Kind kind;
  OutputRange range;
  PostOp post_op = PostOp::kNone;       // only with uint8
  const std::uint8_t* table = nullptr;  // kTable: y = table[y], 256 entries
  ResidualAdd add{};                    // kAdd

  // The accumulators of a kUInt8 layer are the bits of floats, 2^23 + sum: one fused multiply-add
  // with a channel's multiplier and -2^23 * multiplier scales them, and rounds once, as the
  // conversion and the multiplication do. What is negative becomes another negative number; such
  // layers clamp it to the zero point. The offsets contain kFloatSum.
  bool float_sums = false;

  constexpr std::size_t output_bytes() const {
    return kind == Kind::kFloat || kind == Kind::kInt32 ? 4 : 1;
  }
};

}  // namespace pyquant
