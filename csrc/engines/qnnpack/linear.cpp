// Linear, and pointwise convolutions, which are linear layers over pixels.
#include "engines/qnnpack/linear.h"

#include <optional>

#include "engines/qnnpack/bound_operator.h"
#include "engines/qnnpack/kernels.h"
#include "engines/qnnpack/weights.h"
#include "runtime/thread_pool.h"

namespace pyquant::qnnpack_engine {
namespace {

class PreparedLinear final : public PreparedKernel {
 public:
  PreparedLinear(const Operator& op, std::uint8_t low, std::uint8_t high)
      : in_channels_(op.inputs[1].constant.shape.elements() / op.inputs[1].constant.shape[0]),
        out_channels_(op.inputs[1].constant.shape[0]),
        input_zero_point_(static_cast<std::uint8_t>(op.inputs[0].qparams.zero_point)),
        output_zero_point_(static_cast<std::uint8_t>(op.output.qparams.zero_point)),
        low_(low),
        high_(high),
        weights_(op),
        packed_(static_cast<std::size_t>(in_channels_), static_cast<std::size_t>(out_channels_),
                weights_.zero_points.data(), weights_.requantization_scales.data(),
                weights_.kernel.data(), weights_.bias.data()) {
    weights_.kernel = {};
    weights_.bias = {};
  }

  std::unique_ptr<BoundKernel> bind(std::span<const StridedShape> inputs,
                                    const StridedShape& output, int threads) const override;

  std::int64_t in_channels() const { return in_channels_; }

  void run(const std::uint8_t* input, Range rows, std::uint8_t* output) const {
    const auto in = static_cast<std::size_t>(in_channels_);
    const auto out = static_cast<std::size_t>(out_channels_);
    // It neither allocates nor checks, and always returns success.
    qnnpack::qnnpackLinear(static_cast<std::size_t>(rows.end - rows.begin), in, out,
                           input_zero_point_, weights_.zero_points.data(),
                           weights_.requantization_scales.data(), output_zero_point_, low_, high_,
                           input + rows.begin * in_channels_, in, packed_.getPackedWeights(),
                           output + rows.begin * out_channels_, out, /*threadpool=*/nullptr);
  }

 private:
  std::int64_t in_channels_, out_channels_;
  std::uint8_t input_zero_point_, output_zero_point_, low_, high_;
  Weights weights_;
  qnnpack::PackBMatrix packed_;
};

class BoundLinear final : public BoundKernel {
 public:
  BoundLinear(const PreparedLinear& linear, std::int64_t rows) : linear_(linear), rows_(rows) {
    if (linear.in_channels() < static_cast<std::int64_t>(kReadAtOnce)) {
      staged_.emplace(Shape{1, 1, rows, linear.in_channels()}, Border{}, std::uint8_t{0});
    }
  }

  std::size_t scratch_bytes() const override { return staged_ ? staged_->scratch_bytes() : 0; }

  void run(const RunArgs& args) override {
    const auto* input = staged_ ? staged_->copy(args.inputs[0], args.scratch)
                                : static_cast<const std::uint8_t*>(args.inputs[0]);
    const int threads = args.pool->size();
    args.pool->run([&](int thread) {
      const Range rows = slice_of(rows_, thread, threads);
      if (rows.begin < rows.end) {
        linear_.run(input, rows, static_cast<std::uint8_t*>(args.output));
      }
    });
  }

 private:
  const PreparedLinear& linear_;
  std::int64_t rows_;
  std::optional<StagedInput> staged_;
};

std::unique_ptr<BoundKernel> PreparedLinear::bind(std::span<const StridedShape> inputs,
                                                  const StridedShape& /*output*/,
                                                  int /*threads*/) const {
  return std::make_unique<BoundLinear>(*this, inputs[0].elements() / in_channels_);
}

}  // namespace

std::unique_ptr<PreparedKernel> prepare_linear(const Operator& op, std::uint8_t output_min,
                                               std::uint8_t output_max) {
  return std::make_unique<PreparedLinear>(op, output_min, output_max);
}

std::string why_unsupported(const Operator& op, const Linear& /*linear*/) {
  return why_not_requantizable(op);
}

std::unique_ptr<PreparedKernel> prepare(const Operator& op, const Linear& linear) {
  return prepare_linear(op, linear.output_min, linear.output_max);
}

}  // namespace pyquant::qnnpack_engine
