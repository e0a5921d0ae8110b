#include <torch/csrc/utils/pybind.h>

#include <exception>
#include <memory>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/parallel.h"
#include "bindings/tensor_views.h"
#include "observers/histogram.h"
#include "observers/min_max.h"
#include "observers/range.h"

namespace py = pybind11;

namespace pyquant::python {
namespace {

constexpr std::int64_t kGrain = 65536;  // values that are worth another thread

// Observers see float32 [rows, n], one row per channel.
at::Tensor checked_rows(const at::Tensor& x) {
  if (x.dim() != 2 || view_of(x).dtype != DType::kFloat32) {
    throw InvalidInputError("observed values must be float32 [rows, n]");
  }
  return x;
}

std::span<const float> row_of(const at::Tensor& x, std::int64_t row) {
  return {x.const_data_ptr<float>() + row * x.size(1), static_cast<std::size_t>(x.size(1))};
}

// Calls visit(thread, values) for parts of the values.
template <typename Visit>
void for_parts(std::span<const float> values, const Visit& visit) {
  parallel_for(static_cast<std::int64_t>(values.size()), kGrain,
               [&](std::int64_t begin, std::int64_t end) {
                 visit(at::get_thread_num(), values.subspan(static_cast<std::size_t>(begin),
                                                            static_cast<std::size_t>(end - begin)));
               });
}

struct StateTensors {
  at::Tensor counts, exponent, min, max;  // int64 [rows, bins], int32 [rows], float32 [rows] twice

  explicit StateTensors(const py::tuple& tensors)
      : counts(tensors[0].cast<at::Tensor>()),
        exponent(tensors[1].cast<at::Tensor>()),
        min(tensors[2].cast<at::Tensor>()),
        max(tensors[3].cast<at::Tensor>()) {
    const std::int64_t rows = exponent.numel();
    if (counts.scalar_type() != at::kLong || exponent.scalar_type() != at::kInt ||
        min.scalar_type() != at::kFloat || max.scalar_type() != at::kFloat ||
        counts.numel() != rows * static_cast<std::int64_t>(kHistogramBins) || min.numel() != rows ||
        max.numel() != rows || !counts.is_contiguous() || !exponent.is_contiguous() ||
        !min.is_contiguous() || !max.is_contiguous()) {
      throw InvalidInputError("this is not the state of a histogram");
    }
  }

  std::int64_t rows() const { return exponent.numel(); }

  // Calls `use` with the state of one row, and keeps what it does to it.
  template <typename Use>
  void with_row(std::int64_t row, const Use& use) const {
    float& low = min.data_ptr<float>()[row];
    float& high = max.data_ptr<float>()[row];
    Extremes extremes{low, high};
    use(HistogramState{
        std::span<std::int64_t, kHistogramBins>(
            counts.data_ptr<std::int64_t>() + row * static_cast<std::int64_t>(kHistogramBins),
            kHistogramBins),
        exponent.data_ptr<std::int32_t>()[row], extremes});
    low = extremes.min;
    high = extremes.max;
  }
};

void check_rows(std::int64_t rows, std::int64_t expected) {
  if (rows != expected) {
    throw InvalidInputError("an observer of " + std::to_string(expected) + " channels was given " +
                            std::to_string(rows));
  }
}

py::tuple observe_min_max(const at::Tensor& x, Interval interval) {
  const at::Tensor values = checked_rows(x);
  const at::Tensor low = at::empty({x.size(0)}, at::kFloat);
  const at::Tensor high = at::empty({x.size(0)}, at::kFloat);
  {
    const py::gil_scoped_release release;
    for (std::int64_t row = 0; row < x.size(0); ++row) {
      std::vector<Extremes> found(static_cast<std::size_t>(at::get_num_threads()));
      for_parts(row_of(values, row), [&](int thread, std::span<const float> part) {
        found[static_cast<std::size_t>(thread)].add(min_max(part, interval));
      });
      for (std::size_t thread = 1; thread < found.size(); ++thread) {
        found[0].add(found[thread]);
      }
      low.data_ptr<float>()[row] = found[0].min;
      high.data_ptr<float>()[row] = found[0].max;
    }
  }
  return py::make_tuple(low, high);
}

void observe_histogram(const py::tuple& tensors, const at::Tensor& x, Interval interval) {
  const StateTensors state(tensors);
  const at::Tensor values = checked_rows(x);
  check_rows(x.size(0), state.rows());
  const py::gil_scoped_release release;
  // Nothing is added before all rows are known to be finite.
  using Counters = std::vector<std::unique_ptr<HistogramCounter>>;
  std::vector<Counters> rows(static_cast<std::size_t>(state.rows()));
  for (std::size_t row = 0; row < rows.size(); ++row) {
    rows[row].resize(static_cast<std::size_t>(at::get_num_threads()));
    const std::int32_t exponent = state.exponent.const_data_ptr<std::int32_t>()[row];
    for_parts(row_of(values, static_cast<std::int64_t>(row)),
              [&](int thread, std::span<const float> part) {
                auto& counter = rows[row][static_cast<std::size_t>(thread)];
                if (counter == nullptr) {
                  counter = std::make_unique<HistogramCounter>(interval, exponent);
                }
                counter->count(part);
              });
  }
  for (std::size_t row = 0; row < rows.size(); ++row) {
    state.with_row(static_cast<std::int64_t>(row), [&](HistogramState own) {
      for (const auto& counter : rows[row]) {
        if (counter != nullptr) {
          own.merge(counter->state());
        }
      }
    });
  }
}

void merge_histograms(const py::tuple& into, const py::tuple& from) {
  const StateTensors state(into);
  const StateTensors other(from);
  check_rows(other.rows(), state.rows());
  for (std::int64_t row = 0; row < state.rows(); ++row) {
    state.with_row(row, [&](HistogramState own) {
      other.with_row(row, [&](const HistogramState& added) { own.merge(added); });
    });
  }
}

template <typename Rule>
py::tuple ranges(const py::tuple& tensors, const Rule& rule) {
  const StateTensors state(tensors);
  const at::Tensor low = at::zeros({state.rows()}, at::kFloat);
  const at::Tensor high = at::zeros({state.rows()}, at::kFloat);
  {
    const py::gil_scoped_release release;
    for (std::int64_t row = 0; row < state.rows(); ++row) {
      state.with_row(row, [&](const HistogramState& own) {
        if (!own.extremes.empty()) {
          const ValueRange range = rule(own);
          low.data_ptr<float>()[row] = range.low;
          high.data_ptr<float>()[row] = range.high;
        }
      });
    }
  }
  return py::make_tuple(low, high);
}

py::tuple qparams(const at::Tensor& low, const at::Tensor& high, const Grid& grid) {
  const at::Tensor scale = at::empty({low.numel()}, at::kFloat);
  const at::Tensor zero_point = at::empty({low.numel()}, at::kLong);
  for (std::int64_t row = 0; row < low.numel(); ++row) {
    const GridParams params =
        choose_qparams(low.const_data_ptr<float>()[row], high.const_data_ptr<float>()[row], grid);
    scale.data_ptr<float>()[row] = params.scale;
    zero_point.data_ptr<std::int64_t>()[row] = params.zero_point;
  }
  return py::make_tuple(scale, zero_point);
}

}  // namespace

void bind_observers(py::module_& module) {
  module.attr("HISTOGRAM_BINS") = kHistogramBins;
  module.attr("SMALLEST_EXPONENT") = kSmallestExponent;
  py::class_<Interval>(module, "Interval", "Observed values outside of it are taken as its bounds.")
      .def(py::init<float, float>(), py::arg("low"), py::arg("high"));
  py::class_<Grid>(module, "Grid", "Integers min..max; symmetric: the middle one stands for 0.")
      .def(py::init<std::int32_t, std::int32_t, bool>(), py::arg("min"), py::arg("max"),
           py::arg("symmetric"));
  module.def("observe_min_max", &observe_min_max, py::arg("x"), py::arg("interval"),
             "The smallest and largest value of each row of x, float32 [rows, n]: two float32\n"
             "[rows]. Raises InvalidInputError for NaN and infinity.");
  module.def("observe_histogram", &observe_histogram, py::arg("state"), py::arg("x"),
             py::arg("interval"),
             "Counts x, float32 [rows, n], in place. state: counts, int64 [rows, HISTOGRAM_BINS];\n"
             "exponent, int32 [rows]; min and max, float32 [rows]. Raises InvalidInputError for\n"
             "NaN and infinity; the state is then what it was.");
  module.def("merge_histograms", &merge_histograms, py::arg("state"), py::arg("other"),
             "Adds to a state all that another has seen, in place.");
  module.def(
      "least_squares_range",
      [](const py::tuple& state, const Grid& grid) {
        return ranges(state,
                      [&](const HistogramState& own) { return least_squares_range(own, grid); });
      },
      py::arg("state"), py::arg("grid"),
      "Lowest and highest value, float32 [rows] each, of the least expected squared error.");
  module.def(
      "entropy_range",
      [](const py::tuple& state, const Grid& grid) {
        return ranges(state, [&](const HistogramState& own) { return entropy_range(own, grid); });
      },
      py::arg("state"), py::arg("grid"), "The same of the least Kullback-Leibler divergence.");
  module.def(
      "percentile_range",
      [](const py::tuple& state, const Grid& grid, double percentile) {
        return ranges(state, [&](const HistogramState& own) {
          return percentile_range(own, grid, percentile);
        });
      },
      py::arg("state"), py::arg("grid"), py::arg("percentile"),
      "The same of the given percentage of all values.");
  module.def("qparams", &qparams, py::arg("low"), py::arg("high"), py::arg("grid"),
             "Scale, float32 [rows], and zero point, int64 [rows], of ranges, float32 [rows].");
}

}  // namespace pyquant::python
