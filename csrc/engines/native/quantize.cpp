#include "engines/native/native_engine.h"
#include "kernels/kernel_table.h"
#include "quant/requantize.h"
#include "runtime/thread_pool.h"

namespace pyquant::native {
namespace {

// Pixels that one thread takes at a time: their uint8 form stays in the first-level cache while
// the channels are interleaved.
constexpr std::int64_t kBlock = 2048;

struct Planes {
  std::int64_t batch, channels, pixels;

  explicit Planes(const Shape& nchw)
      : batch(nchw.rank() == 4 ? nchw[0] : 1),
        channels(nchw.rank() == 4 ? nchw[1] : 1),
        pixels(nchw.elements() / (batch * channels)) {}

  // Calls visit(image, first pixel, pixel count) for the blocks that fall to each thread.
  template <typename Visit>
  void for_each_block(ThreadPool& pool, Visit visit) const {
    const std::int64_t blocks = (pixels + kBlock - 1) / kBlock;
    pool.run([&](int thread) {
      const Range slice = slice_of(batch * blocks, thread, pool.size());
      for (std::int64_t i = slice.begin; i < slice.end; ++i) {
        const std::int64_t first = i % blocks * kBlock;
        visit(i / blocks, first, std::min(kBlock, pixels - first));
      }
    });
  }
};

class BoundQuantize final : public BoundKernel {
 public:
  BoundQuantize(const Operator& op, std::span<const StridedShape> inputs,
                const StridedShape& /*output*/, int /*threads*/)
      : planes_(inputs[0]),
        inverse_scale_(inverse_of(op.output.qparams.scale)),
        range_{op.output.qparams.zero_point, 0, 255} {}

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const float*>(args.inputs[0]);
    auto* y = static_cast<std::uint8_t*>(args.output);
    planes_.for_each_block(
        *args.pool, [&](std::int64_t image, std::int64_t first, std::int64_t count) {
          const std::int64_t offset = image * planes_.channels * planes_.pixels;
          kernels_.quantize_planes(x + offset + first, planes_.pixels,
                                   static_cast<std::size_t>(planes_.channels),
                                   static_cast<std::size_t>(count), inverse_scale_, range_,
                                   y + offset + first * planes_.channels);
        });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  Planes planes_;
  float inverse_scale_;
  OutputRange range_;
};

class BoundDequantize final : public BoundKernel {
 public:
  BoundDequantize(const Operator& op, std::span<const StridedShape> /*inputs*/,
                  const StridedShape& output, int /*threads*/)
      : planes_(output), qparams_(op.inputs[0].qparams) {
    // Channels of single pixels lie as planes of a single channel do.
    if (planes_.pixels == 1) {
      planes_.pixels = planes_.batch * planes_.channels;
      planes_.batch = planes_.channels = 1;
    }
  }

  void run(const RunArgs& args) override {
    const auto* x = static_cast<const std::uint8_t*>(args.inputs[0]);
    auto* y = static_cast<float*>(args.output);
    planes_.for_each_block(
        *args.pool, [&](std::int64_t image, std::int64_t first, std::int64_t count) {
          const std::int64_t offset = image * planes_.channels * planes_.pixels;
          kernels_.dequantize_planes(x + offset + first * planes_.channels,
                                     static_cast<std::size_t>(planes_.channels),
                                     static_cast<std::size_t>(count), qparams_.scale,
                                     qparams_.zero_point, planes_.pixels, y + offset + first);
        });
  }

 private:
  const KernelTable& kernels_ = kernel_table();
  Planes planes_;
  QParams qparams_;
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_quantize(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundQuantize>>(op);
}

std::unique_ptr<PreparedKernel> prepare_dequantize(const Operator& op) {
  return std::make_unique<WeightlessKernel<BoundDequantize>>(op);
}

}  // namespace pyquant::native
