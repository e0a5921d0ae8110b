#include "engines/reference/reference_engine.h"
#include "quant/requantize.h"
#include "quant/resample.h"

namespace pyquant::reference {

void run_resize_nearest(const Operator& op, std::span<const ConstTensorView> inputs,
                        const TensorView& output) {
  const auto& resize = std::get<ResizeNearest>(op.attributes);
  const Shape& from = inputs[0].shape;
  const Shape& to = output.shape;
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  auto* y = static_cast<std::uint8_t*>(output.data);
  const float ratio_h = resize_ratio(from[1], to[1], resize.scale_h);
  const float ratio_w = resize_ratio(from[2], to[2], resize.scale_w);
  for (std::int64_t n = 0; n < to[0]; ++n) {
    for (std::int64_t oh = 0; oh < to[1]; ++oh) {
      const std::int64_t ih = nearest_pixel(oh, ratio_h, from[1]);
      for (std::int64_t ow = 0; ow < to[2]; ++ow) {
        const std::int64_t iw = nearest_pixel(ow, ratio_w, from[2]);
        for (std::int64_t c = 0; c < to[3]; ++c) {
          *y++ = x[((n * from[1] + ih) * from[2] + iw) * from[3] + c];
        }
      }
    }
  }
}

void run_resize_bilinear(const Operator& op, std::span<const ConstTensorView> inputs,
                         const TensorView& output) {
  const auto& resize = std::get<ResizeBilinear>(op.attributes);
  const Shape& from = inputs[0].shape;
  const Shape& to = output.shape;
  const auto* x = static_cast<const std::uint8_t*>(inputs[0].data);
  auto* y = static_cast<std::uint8_t*>(output.data);
  const QParams& in = op.inputs[0].qparams;
  const QParams& out = op.output.qparams;
  const float multiplier = in.scale / out.scale;
  for (std::int64_t n = 0; n < to[0]; ++n) {
    for (std::int64_t oh = 0; oh < to[1]; ++oh) {
      const LinearTaps h = linear_taps(oh, from[1], to[1], resize.scale_h, resize.align_corners);
      for (std::int64_t ow = 0; ow < to[2]; ++ow) {
        const LinearTaps w = linear_taps(ow, from[2], to[2], resize.scale_w, resize.align_corners);
        for (std::int64_t c = 0; c < to[3]; ++c) {
          const auto value = [&](std::int64_t ih, std::int64_t iw) {
            const std::int32_t q = x[((n * from[1] + ih) * from[2] + iw) * from[3] + c];
            return static_cast<float>(q - in.zero_point);
          };
          const float upper =
              w.first_weight * value(h.first, w.first) + w.second_weight * value(h.first, w.second);
          const float lower = w.first_weight * value(h.second, w.first) +
                              w.second_weight * value(h.second, w.second);
          const float blended = h.first_weight * upper + h.second_weight * lower;
          *y++ = round_to_uint8(blended * multiplier, out.zero_point, 0, 255);
        }
      }
    }
  }
}

}  // namespace pyquant::reference
