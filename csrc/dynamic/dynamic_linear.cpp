#include "pyquant/dynamic_linear.h"

#include <algorithm>

#include "dynamic/matrix.h"
#include "dynamic/workspace_impl.h"

namespace pyquant {
namespace {

// Quantized rows that are read again for every block of channels.
constexpr std::size_t kBandBytes = 512 * 1024;
// Of less, waking other threads takes longer than doing it.
constexpr std::int64_t kLeastShared = 256 * 1024;  // multiplications

}  // namespace

class DynamicLinear::Impl {
 public:
  explicit Impl(const Int8Weights& weights) : matrix_(weights, "a linear layer") {}

  const DynamicMatrix& matrix() const { return matrix_; }

  void run(const float* x, std::size_t rows, float* y, Workspace::Impl& workspace) const {
    const std::size_t inputs = matrix_.inputs();
    const std::size_t outputs = matrix_.outputs();
    const std::size_t band = std::clamp<std::size_t>(kBandBytes / matrix_.row_bytes(), 1, rows);
    const auto carve = [&](std::byte* base, QuantizedRows& to) {
      Carver carver(base);
      to.inputs = carver.take<std::uint8_t>(band * matrix_.row_bytes());
      to.qparams = carver.take<RowQParams>(band);
      return carver.used();
    };
    QuantizedRows quantized;
    carve(workspace.shared(carve(nullptr, quantized)), quantized);
    ThreadPool& pool = workspace.pool;
    pool.set_alone(static_cast<std::int64_t>(rows * inputs * outputs) < kLeastShared);
    for (std::size_t begin = 0; begin < rows; begin += band) {
      const std::size_t count = std::min(band, rows - begin);
      pool.run([&](int thread) {
        const Range mine = slice_of(static_cast<std::int64_t>(count), thread, pool.size());
        const auto first = static_cast<std::size_t>(mine.begin);
        matrix_.quantize(x + (begin + first) * inputs, inputs,
                         static_cast<std::size_t>(mine.end - mine.begin), quantized, first);
      });
      pool.run([&](int thread) {
        auto* sums = reinterpret_cast<std::int32_t*>(
            workspace.own(thread, matrix_.sums() * sizeof(std::int32_t)));
        matrix_.multiply(quantized, count, slice_of(matrix_.blocks(), thread, pool.size()), sums,
                         y + begin * outputs, outputs);
      });
    }
  }

 private:
  DynamicMatrix matrix_;
};

DynamicLinear::DynamicLinear(const Int8Weights& weights) : impl_(std::make_unique<Impl>(weights)) {}
DynamicLinear::~DynamicLinear() = default;
DynamicLinear::DynamicLinear(DynamicLinear&&) noexcept = default;
DynamicLinear& DynamicLinear::operator=(DynamicLinear&&) noexcept = default;

std::int64_t DynamicLinear::inputs() const {
  return static_cast<std::int64_t>(impl_->matrix().inputs());
}
std::int64_t DynamicLinear::outputs() const {
  return static_cast<std::int64_t>(impl_->matrix().outputs());
}

void DynamicLinear::run(const float* x, std::int64_t rows, float* y, Workspace& workspace) const {
  if (rows > 0) {
    impl_->run(x, static_cast<std::size_t>(rows), y, workspace.impl());
  }
}

}  // namespace pyquant
