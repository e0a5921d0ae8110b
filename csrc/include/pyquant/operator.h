// The operators of a Program: what each computes, exactly.
//
// Activations are uint8 affine per tensor, x = (q - zero_point) * scale; rank-4 ones are NHWC.
// Weights are int8 symmetric per output channel (-127..127), biases int32 at scale
// s_x * s_w[channel]. Accumulation is exact in int32. Where a result is quantized, the real-valued
// result is computed in float32 in the order written below (no fused multiply-add), rounded half
// to even, shifted by the output's zero point and clamped to [output_min, output_max]. All engines
// compute the same bits; exceptions are documented at the engine.
//
// These are plain values. The functions below read their arguments only: any number of threads may
// call them.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <array>

#include "pyquant/export.h"
#include "pyquant/qparams.h"
#include "pyquant/tensor.h"

namespace pyquant {

// A sliding window over height and width; pixels outside the image have the value zero (the
// input's zero_point) in convolutions and never win in max pooling.
struct Window {
  std::int32_t kernel_h = 1, kernel_w = 1;
  std::int32_t stride_h = 1, stride_w = 1;
  std::int32_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  std::int32_t dilation_h = 1, dilation_w = 1;

  friend bool operator==(const Window&, const Window&) = default;
};

// float32 (NCHW if rank 4) -> uint8 (NHWC if rank 4).
// q = clamp(rne(x * (1 / scale)) + zero_point, 0, 255); NaN becomes 0.
struct Quantize {};

// uint8 (NHWC if rank 4) -> float32 (NCHW if rank 4): x = (q - zero_point) * scale.
// A float32 input only changes its layout.
struct Dequantize {};

// Inputs: x uint8 [N, H, W, C], weight int8 [O, kernel_h, kernel_w, C / groups], bias int32 [O].
// Output: uint8 or float32 [N, H', W', O].
//   acc = sum((x - zero_point_x) * weight) + bias
//   uint8:   clamp(rne(float(acc) * m[o]) + zero_point_y), m[o] = (s_x * s_w[o]) / s_y in float32
//   float32: float(acc) * (s_x * s_w[o]); the clamp bounds are not used
struct Conv2d {
  Window window;
  std::int32_t groups = 1;
  std::uint8_t output_min = 0, output_max = 255;
};

// Inputs: x uint8 [..., K], weight int8 [O, K], bias int32 [O]. Output: uint8 or float32 [..., O].
// Arithmetic as in Conv2d.
struct Linear {
  std::uint8_t output_min = 0, output_max = 255;
};

// Inputs: a and b of one shape, each uint8 or float32. Output: uint8.
//   clamp(rne(ta + tb) + zero_point_y), where t = float(q - zero_point) * (s / s_y) for a uint8
//   operand and t = x * (1 / s_y) for a float32 one.
// With `broadcast` the inputs are uint8, of one rank, and where a dimension of one of them is 1, it
// is repeated along the other's; the output has the larger of each dimension.
struct Add {
  std::uint8_t output_min = 0, output_max = 255;
  bool broadcast = false;
};

// uint8 [N, H, W, C] -> uint8 [N, H', W', C] with the input's qparams.
struct MaxPool2d {
  Window window;
  bool ceil_mode = false;
};

// uint8 [N, H, W, C] -> uint8 [N, H', W', C].
//   clamp(rne(float(sum(q - zero_point_x)) * (s_x / (s_y * float(count)))) + zero_point_y)
// count is divisor_override if positive; else the window's area inside the padded image
// (count_include_pad) or inside the image. dilation is 1.
struct AvgPool2d {
  Window window;
  bool ceil_mode = false;
  bool count_include_pad = true;
  std::int32_t divisor_override = 0;
};

// Average pooling to a fixed output size; the window of output row i is
// [floor(i * H / output_h), ceil((i + 1) * H / output_h)). Arithmetic as in AvgPool2d.
struct AdaptiveAvgPool2d {
  std::int32_t output_h = 1, output_w = 1;
};

// [N, H, W, C] -> [N, C * H * W] with the elements in NCHW order; other ranks: [N, ...] -> [N, K].
// uint8 with the input's qparams.
struct Flatten {};

// Border of the value zero (the zero_point), uint8 [N, H, W, C], with the input's qparams.
// A negative amount crops.
struct Pad {
  std::int32_t top = 0, left = 0, bottom = 0, right = 0;
};

// y = values[x], elementwise on uint8: any unary activation, clamp or change of qparams.
struct LookupTable {
  std::array<std::uint8_t, 256> values{};
};

// Inputs: a and b, uint8, of one rank; where a dimension of one of them is 1, it is repeated along
// the other's. Output: uint8, the larger of each dimension.
//   clamp(rne(float((a - zero_point_a) * (b - zero_point_b)) * m) + zero_point_y),
//   m = (s_a * s_b) / s_y in float32
struct Mul {
  std::uint8_t output_min = 0, output_max = 255;
};

// Inputs: 2 to 64 of one shape but for `axis` (an axis of the shapes inside the Program: 3 is the
// channels of [N, H, W, C]), uint8. Output: their elements one after the other along `axis`, or,
// if interleaved, element c of input i as number c * inputs + i: then `axis` is the innermost and
// all inputs have one shape. All inputs and the output have the same qparams.
struct Concat {
  std::int32_t axis = 3;
  bool interleaved = false;
};

// uint8 -> the elements begin <= i < end along `axis` (as in Concat), with the input's qparams.
// A bound that is not a plain index counts from the end of the axis, whatever its size in this run:
// begin < 0, and end <= 0, where 0 is the end itself. Bounds outside of the axis are not clamped
// but refused, as is an empty range.
struct Slice {
  std::int32_t axis = 3;
  std::int32_t begin = 0, end = 1;

  // The bounds as plain indices into an axis of `size` elements.
  std::int64_t begin_in(std::int64_t size) const { return begin < 0 ? size + begin : begin; }
  std::int64_t end_in(std::int64_t size) const { return end <= 0 ? size + end : end; }
};

// uint8 [N, H, W, C] -> the same shape with the input's qparams. Channel g * (C / groups) + i of
// the input is channel i * groups + g of the output.
struct ChannelShuffle {
  std::int32_t groups = 2;
};

// uint8 [N, H, W, C] -> uint8 [N, H', W', C] with the input's qparams. Per axis, with `size` for
// height or width: the output has output_size pixels or, if that is 0, floor(size * scale), in
// double. Output pixel i is the input's pixel min(floor(float(i) * ratio), size - 1), where ratio
// is 1 if the size stays, else float(1 / scale) if scale is not 0, else
// float(size) / float(output size): what torch computes, in float32.
struct ResizeNearest {
  std::int32_t output_h = 0, output_w = 0;
  double scale_h = 0, scale_w = 0;
};

// uint8 [N, H, W, C] -> uint8 [N, H', W', C]. Sizes and ratio are those of ResizeNearest, but
// with align_corners the ratio is float(size - 1) / float(output size - 1), or 0 for one pixel.
// Per axis output pixel i lies at p = ratio * i (align_corners) or at
// p = max(ratio * (float(i) + 0.5) - 0.5, 0), between the pixels i0 = min(floor(p), size - 1),
// which weighs 1 - w1, and min(i0 + 1, size - 1), which weighs w1 = min(p - float(i0), 1).
//   t = h0 * (w0 * a + w1 * b) + h1 * (w0 * c + w1 * d)
//   clamp(rne(t * (s_x / s_y)) + zero_point_y)
// where a and b are the upper two pixels, c and d the lower two, each as float(q - zero_point_x).
struct ResizeBilinear {
  std::int32_t output_h = 0, output_w = 0;
  double scale_h = 0, scale_w = 0;
  bool align_corners = false;
};

// Inputs: x uint8 [N, H, W, C], weight int8 [O, kernel_h, kernel_w, C / groups], bias int32 [O].
// Output: uint8 or float32 [N, H', W', O], where
//   H' = (H - 1) * stride_h - pad_top - pad_bottom + dilation_h * (kernel_h - 1) + output_pad_h
//   + 1.
// Input pixel i and kernel row k meet in output row i * stride_h - pad_top + k * dilation_h; so for
// columns. Output channel o belongs to group o / (O / groups), as in Conv2d. Arithmetic as in
// Conv2d.
struct ConvTranspose2d {
  Window window;
  std::int32_t groups = 1;
  std::int32_t output_pad_h = 0, output_pad_w = 0;
  std::uint8_t output_min = 0, output_max = 255;
};

// [N, ...] -> [N, sizes...] with the elements in the order of the model, in which rank-4 tensors
// are NCHW: three sizes are C, H, W and give [N, H, W, C]. One size may be -1: what the others
// leave. uint8 with the input's qparams.
struct Reshape {
  std::vector<std::int32_t> sizes;
};

// The largest of each window, with the input's qparams; the windows are those of AdaptiveAvgPool2d.
struct AdaptiveMaxPool2d {
  std::int32_t output_h = 1, output_w = 1;
};

// The order is the order of the OpAttributes union in program.fbs.
using OpAttributes =
    std::variant<Quantize, Dequantize, Conv2d, Linear, Add, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d,
                 Flatten, Pad, LookupTable, Mul, Concat, Slice, ChannelShuffle, ResizeNearest,
                 ResizeBilinear, ConvTranspose2d, Reshape, AdaptiveMaxPool2d>;

// One operand of an operator: its type, qparams and, for a constant, its bytes.
struct Operand {
  DType dtype = DType::kUInt8;
  QParams qparams;                        // activations: uint8
  const float* channel_scales = nullptr;  // weights: one scale per output channel, else null
  ConstTensorView constant;               // data is null for an activation
};

// An operator with everything that is known before the first run. Constants are borrowed: they
// must live as long as the operator is being prepared; engines copy what they keep.
struct Operator {
  std::string name;  // the layer's name, for messages
  OpAttributes attributes;
  std::vector<Operand> inputs;
  Operand output;
};

// The kind's name, as in the Python IR: "Conv2d", "Linear", …
PYQUANT_API const char* kind_name(const OpAttributes& attributes);

// The output shape for the given input shapes (one per input, constants included).
// Throws InvalidInputError that names the operator where they do not fit.
PYQUANT_API Shape infer_output_shape(const Operator& op, const std::vector<Shape>& inputs);

// Checks everything that does not depend on activation shapes: operand count, dtypes, qparams,
// attribute ranges, weight shapes, that no accumulator can overflow int32. Throws
// InvalidProgramError that names the operator.
PYQUANT_API void check_operator(const Operator& op);

}  // namespace pyquant
