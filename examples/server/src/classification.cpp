#include "classification.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <span>

namespace server {
namespace {

template <typename T>
std::vector<double> to_double(const pyquant::ConstTensorView& tensor) {
  const std::span values(static_cast<const T*>(tensor.data),
                         static_cast<std::size_t>(tensor.shape.elements()));
  std::vector<double> result(values.begin(), values.end());
  if constexpr (std::is_floating_point_v<T>) {
    // What is no number has no place in an order.
    std::ranges::replace_if(
        result, [](double value) { return std::isnan(value); },
        -std::numeric_limits<double>::infinity());
  }
  return result;
}

// By DType.
constexpr std::vector<double> (*kToDouble[])(const pyquant::ConstTensorView&) = {
    to_double<std::uint8_t>, to_double<std::int8_t>, to_double<std::int32_t>, to_double<float>};

}  // namespace

std::vector<std::string> best_classes(const pyquant::ConstTensorView& scores, std::size_t count,
                                      const std::vector<std::string>& labels) {
  const std::vector<double> values = kToDouble[static_cast<std::size_t>(scores.dtype)](scores);
  const auto batch = static_cast<std::size_t>(scores.shape.rank() == 0 ? 1 : scores.shape[0]);
  const std::size_t classes = values.size() / batch;
  count = std::min(count, classes);

  std::vector<std::string> result;
  std::vector<std::size_t> order(classes);
  for (std::size_t image = 0; image < batch; ++image) {
    const std::span own = std::span(values).subspan(image * classes, classes);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::partial_sort(order, order.begin() + static_cast<std::ptrdiff_t>(count),
                              std::greater{}, [&](std::size_t index) { return own[index]; });
    for (const std::size_t index : std::span(order).first(count)) {
      result.push_back(std::to_string(own[index]) + ":" + std::to_string(index) +
                       (index < labels.size() ? ":" + labels[index] : ""));
    }
  }
  return result;
}

}  // namespace server
