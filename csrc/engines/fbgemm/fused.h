// What FBGEMM's convolution functions that requantize by themselves have in common.
#pragma once

#include <fbgemm/Fbgemm.h>

#include "engines/engine.h"
#include "engines/fbgemm/layer.h"
#include "engines/fbgemm/output_stage.h"
#include "runtime/thread_pool.h"

namespace pyquant::fbgemm_engine {

// `groups` is the layer's number, or less if some were merged.
inline fbgemm::conv_param_t<2> conv_param(const Layer& layer, const Images& images,
                                          std::int32_t groups) {
  const Window& window = layer.window;
  return {images.batch,
          layer.in_channels,
          layer.out_channels,
          {images.in_h, images.in_w},
          groups,
          {window.kernel_h, window.kernel_w},
          {window.stride_h, window.stride_w},
          {window.pad_top, window.pad_left, window.pad_bottom, window.pad_right},
          {window.dilation_h, window.dilation_w}};
}

template <bool kRelu>
using Requantize = fbgemm::ReQuantizeOutput<kRelu, fbgemm::QuantizationGranularity::OUT_CHANNEL>;

// Calls function(requantize, thread, threads) on every thread of the pool, and then sees to the
// clamp bounds that FBGEMM lacks. Only for a stage that scaled_fits_int32().
template <typename Function>
void run_fused(const RunArgs& args, const OutputStage& stage, std::int32_t groups,
               std::int64_t rows, const Function& function) {
  const int threads = args.pool->size();
  const auto run = [&]<bool kRelu> {
    args.pool->run([&](int thread) {
      fbgemm::DoNothing<> nothing;
      // The input's zero point is in the offsets already, the weights have none.
      const Requantize<kRelu> requantize(
          nothing, stage.multipliers(), stage.zero_point(), /*Aq_zero_point=*/0,
          /*Bq_zero_point=*/nullptr, /*row_offsets=*/nullptr, /*col_offsets=*/nullptr,
          stage.offsets(), static_cast<std::uint32_t>(stage.channels()), groups);
      function(requantize, thread, threads);
    });
  };
  if (stage.is_relu()) {
    run.template operator()<true>();
  } else {
    run.template operator()<false>();
  }
  if (stage.needs_clamp()) {
    args.pool->run([&](int thread) {
      const Range slice = slice_of(rows * stage.channels(), thread, threads);
      stage.clamp(static_cast<std::uint8_t*>(args.output) + slice.begin, slice.end - slice.begin);
    });
  }
}

}  // namespace pyquant::fbgemm_engine
