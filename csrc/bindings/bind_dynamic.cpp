#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>

#include "bindings/bindings.h"
#include "bindings/tensor_views.h"
#include "pyquant/dynamic_linear.h"
#include "pyquant/recurrent.h"

namespace py = pybind11;

namespace pyquant::python {
namespace {

template <typename Element>
std::span<Element> span_of(const at::Tensor& tensor, DType dtype, const char* name) {
  if (view_of(tensor).dtype != dtype) {
    throw InvalidInputError(std::string(name) + " is " + c10::toString(tensor.scalar_type()) +
                            "; it must be " + to_string(dtype));
  }
  return {static_cast<Element*>(tensor.data_ptr()), static_cast<std::size_t>(tensor.numel())};
}

// int8 [O, I], float32 [O], float32 [O] or None.
struct WeightTensors {
  at::Tensor values, scales;
  std::optional<at::Tensor> bias;

  Int8Weights view() const {
    if (values.dim() != 2) {
      throw InvalidInputError("a weight has " + std::to_string(values.dim()) +
                              " dimensions, not 2");
    }
    Int8Weights weights = {values.size(0),
                           values.size(1),
                           span_of<const std::int8_t>(values, DType::kInt8, "a weight"),
                           span_of<const float>(scales, DType::kFloat32, "a weight's scales"),
                           {}};
    if (bias.has_value()) {
      weights.bias = span_of<const float>(*bias, DType::kFloat32, "a bias");
    }
    return weights;
  }
};

WeightTensors read_weights(const py::tuple& from) {
  return {from[0].cast<at::Tensor>(), from[1].cast<at::Tensor>(),
          from[2].cast<std::optional<at::Tensor>>()};
}

at::Tensor run_linear(const DynamicLinear& linear, const at::Tensor& x, Workspace& workspace) {
  const auto values = span_of<const float>(x, DType::kFloat32, "the input");
  if (x.dim() == 0 || x.size(-1) != linear.inputs()) {
    throw InvalidInputError("the input's last dimension must be " +
                            std::to_string(linear.inputs()) + "; its shape is " +
                            shape_of(x).to_string());
  }
  std::vector<std::int64_t> sizes(x.sizes().begin(), x.sizes().end());
  sizes.back() = linear.outputs();
  const at::Tensor y = at::empty(sizes, x.options().requires_grad(false));
  const py::gil_scoped_release release;
  linear.run(values.data(), static_cast<std::int64_t>(values.size()) / linear.inputs(),
             y.data_ptr<float>(), workspace);
  return y;
}

RecurrentCell cell_of(const std::string& name) {
  constexpr const char* kNames[] = {"lstm", "gru", "tanh", "relu"};
  for (std::size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) {
      return static_cast<RecurrentCell>(i);
    }
  }
  throw InvalidInputError("there is no recurrent cell '" + name + "'");
}

void require_shape(const at::Tensor& tensor, std::int64_t rows, std::int64_t columns,
                   const char* name) {
  if (tensor.dim() != 2 || tensor.size(0) != rows || tensor.size(1) != columns) {
    throw InvalidInputError(std::string(name) + " is " + shape_of(tensor).to_string() +
                            "; it must be [" + std::to_string(rows) + ", " +
                            std::to_string(columns) + "]");
  }
}

void run_recurrent(const RecurrentLayer& layer, const at::Tensor& x,
                   const std::vector<std::int64_t>& batch_sizes, const at::Tensor& y,
                   std::int64_t y_offset, const at::Tensor& h, const std::optional<at::Tensor>& c,
                   bool reverse, Workspace& workspace) {
  std::int64_t rows = 0;
  for (const std::int64_t count : batch_sizes) {
    rows += count;
  }
  const std::int64_t batch = batch_sizes.empty() ? 0 : batch_sizes.front();
  require_shape(x, rows, layer.inputs(), "the input");
  require_shape(h, batch, layer.outputs(), "the hidden state");
  if (y.dim() != 2 || y.size(0) != rows || y_offset < 0 || y.size(1) - y_offset < layer.outputs()) {
    throw InvalidInputError("the output is " + shape_of(y).to_string() + ", which is too small");
  }
  if ((layer.cell() == RecurrentCell::kLstm) != c.has_value()) {
    throw InvalidInputError("an LSTM has a cell state, and nothing else has");
  }
  RecurrentArgs args;
  args.x = span_of<const float>(x, DType::kFloat32, "the input").data();
  args.batch_sizes = batch_sizes;
  args.y = span_of<float>(y, DType::kFloat32, "the output").data() + y_offset;
  args.y_stride = y.size(1);
  args.h = span_of<float>(h, DType::kFloat32, "the hidden state").data();
  if (c.has_value()) {
    require_shape(*c, batch, layer.hidden(), "the cell state");
    args.c = span_of<float>(*c, DType::kFloat32, "the cell state").data();
  }
  args.reverse = reverse;
  const py::gil_scoped_release release;
  layer.run(args, workspace);
}

}  // namespace

void bind_dynamic(py::module_& module) {
  py::class_<Workspace>(module, "Workspace", "Threads and memory; for one thread at a time.")
      .def(py::init<int>(), py::arg("threads") = 1);
  py::class_<DynamicLinear>(module, "DynamicLinear",
                            "A linear layer with int8 weights; see pyquant/dynamic_linear.h.")
      .def(py::init([](const py::tuple& weights) {
             return std::make_unique<DynamicLinear>(read_weights(weights).view());
           }),
           py::arg("weights"),
           "weights: (int8 [O, I], float32 scales [O], float32 bias [O] | None)")
      .def("run", &run_linear, py::arg("x"), py::arg("workspace"),
           "x: dense float32 [..., I]. Returns float32 [..., O].");
  py::class_<RecurrentLayer>(module, "RecurrentLayer",
                             "One direction of a recurrent layer; see pyquant/recurrent.h.")
      .def(py::init([](const std::string& cell, const py::tuple& input, const py::tuple& state,
                       const std::optional<py::tuple>& projection) {
             const WeightTensors projected =
                 projection.has_value() ? read_weights(*projection) : WeightTensors{};
             return std::make_unique<RecurrentLayer>(
                 cell_of(cell), read_weights(input).view(), read_weights(state).view(),
                 projection.has_value() ? projected.view() : Int8Weights{});
           }),
           py::arg("cell"), py::arg("input"), py::arg("state"), py::arg("projection") = py::none(),
           "cell: 'lstm', 'gru', 'tanh' or 'relu'; the others as in DynamicLinear.")
      .def(
          "run", &run_recurrent, py::arg("x"), py::arg("batch_sizes"), py::arg("y"),
          py::arg("y_offset"), py::arg("h"), py::arg("c"), py::arg("reverse"), py::arg("workspace"),
          "Reads x [rows, I]; writes y [rows, >= y_offset + O], and in place h [batch, O] and for\n"
          "an LSTM c [batch, hidden]. All dense float32.");
}

}  // namespace pyquant::python
