// What an instruction set provides: a table of functions over rows of contiguous data. Each ISA
// folder holds files of the same names and fills one table; dispatch.cpp picks one, once.
//
// Pointers need no alignment and no function reads or writes outside the ranges named. All are
// thread-safe. Arithmetic is that of operator.h, bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/convolution.h"

namespace pyquant {

// One uint8 operand of an addition: float(q - zero_point) * multiplier.
struct AddOperand {
  float multiplier;
  std::int32_t zero_point;
};

struct KernelTable {
  const char* isa;

  // x: `channels` planes of float32, `plane` elements apart; y: `pixels` groups of `channels`
  // uint8. y = clamp(rne(x * inverse_scale) + zero_point).
  void (*quantize_planes)(const float* x, std::ptrdiff_t plane, std::size_t channels,
                          std::size_t pixels, float inverse_scale, OutputRange range,
                          std::uint8_t* y);

  // x: `pixels` groups of `channels` uint8; y: planes as above. y = (x - zero_point) * scale.
  void (*dequantize_planes)(const std::uint8_t* x, std::size_t channels, std::size_t pixels,
                            float scale, std::int32_t zero_point, std::ptrdiff_t plane, float* y);

  // y = clamp(rne(a + b) + zero_point), count elements.
  void (*add)(const std::uint8_t* a, AddOperand a_operand, const std::uint8_t* b,
              AddOperand b_operand, std::size_t count, OutputRange range, std::uint8_t* y);

  // The same with a float32 first operand, multiplied by a_multiplier.
  void (*add_float)(const float* a, float a_multiplier, const std::uint8_t* b, AddOperand b_operand,
                    std::size_t count, OutputRange range, std::uint8_t* y);

  // y = max over `rows` rows of `count` elements each. rows >= 1; y is none of the rows.
  void (*max_rows)(const std::uint8_t* const* rows, std::size_t row_count, std::size_t count,
                   std::uint8_t* y);

  // sums[i] += row[i], count elements.
  void (*accumulate)(const std::uint8_t* row, std::size_t count, std::int32_t* sums);

  // y = clamp(rne(float(sums - offset) * multiplier) + zero_point), count elements.
  void (*requantize)(const std::int32_t* sums, std::int32_t offset, float multiplier,
                     std::size_t count, OutputRange range, std::uint8_t* y);

  // y = values[x], count elements; values has 256 entries.
  void (*lookup)(const std::uint8_t* x, const std::uint8_t* values, std::size_t count,
                 std::uint8_t* y);

  // The kernels below are null where the instruction set has none; either all are or none is.

  // `rows` rows of `pixels` outputs, from the input of the first pixel. y: the block's first
  // channel of the first pixel, uint8 or float32; a row begins where the one before it ends.
  void (*convolve)(const ConvLayout& layout, ConvBlock& block, const std::uint8_t* x,
                   std::size_t rows, std::size_t pixels, void* y) = nullptr;

  // Makes `count` columns (see DepthwiseBlock) from 4 * groups rows of pixels, pixel_stride apart,
  // of which the first `channels` bytes are read. The strips begin strip_stride bytes apart.
  void (*interleave)(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                     std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                     std::size_t count, std::uint8_t* columns) = nullptr;

  // `pixels` outputs of each of the first `row_count` of the block's rows. y: the block's first
  // channel of the first pixel of the first row, uint8 or float32.
  void (*convolve_depthwise)(const DepthwiseBlock& block, const std::uint8_t* columns,
                             std::size_t pixels, std::size_t row_count, void* y) = nullptr;

  // Does nothing but the instruction set's fastest multiply-adds of 8-bit numbers, `loops` times as
  // many as fill the pipeline, and returns how many they were. Null where there is no such
  // instruction.
  std::size_t (*multiply_adds)(std::size_t loops) = nullptr;
};

// The table for this CPU, chosen at the first call. The environment variable PYQUANT_ISA names one
// instead; throws UnsupportedError where that is unknown or the CPU lacks it.
const KernelTable& kernel_table();

}  // namespace pyquant
