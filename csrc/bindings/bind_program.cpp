#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <cstring>
#include <map>

#include "bindings/bindings.h"
#include "bindings/tensor_views.h"
#include "pyquant/session.h"

namespace py = pybind11;

namespace pyquant::python {
namespace {

// The views of a run's inputs, and new tensors for its outputs with theirs.
struct RunTensors {
  RunTensors(Session& session, const Program& program, const std::vector<at::Tensor>& inputs) {
    std::vector<Shape> shapes;
    for (const at::Tensor& input : inputs) {
      input_views.push_back(view_of(input));
      shapes.push_back(input_views.back().shape);
    }
    const py::gil_scoped_release release;
    const std::vector<Shape>& output_shapes = session.output_shapes(shapes);
    for (std::size_t i = 0; i < output_shapes.size(); ++i) {
      const DType dtype = program.outputs()[i].dtype;
      outputs.push_back(make_tensor(dtype, output_shapes[i]));
      output_views.push_back({dtype, output_shapes[i], outputs.back().data_ptr()});
    }
  }

  std::vector<ConstTensorView> input_views;
  std::vector<at::Tensor> outputs;
  std::vector<TensorView> output_views;
};

std::vector<std::int64_t> sizes_of(const Shape& shape) { return {shape.begin(), shape.end()}; }

py::dict describe(const TensorInfo& info) {
  py::dict result;
  result["name"] = info.name;
  result["dtype"] = to_string(info.dtype);
  result["shape"] = py::tuple(py::cast(sizes_of(info.shape)));
  result["scale"] = info.qparams.scale;
  result["zero_point"] = info.qparams.zero_point;
  return result;
}

template <typename Info>
py::list describe_all(const std::vector<Info>& infos) {
  py::list result;
  for (const Info& info : infos) {
    result.append(describe(info));
  }
  return result;
}

// A Session with the Program that describes its outputs.
class PythonSession {
 public:
  PythonSession(std::shared_ptr<const Program> program, std::string engine, int threads, bool fuse)
      : program_(program), session_(std::move(program), {std::move(engine), threads, fuse}) {}

  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs) {
    RunTensors tensors(session_, *program_, inputs);
    const py::gil_scoped_release release;
    session_.run(tensors.input_views, tensors.output_views);
    return tensors.outputs;
  }

  py::list profile(const std::vector<at::Tensor>& inputs) {
    RunTensors tensors(session_, *program_, inputs);
    const std::vector<StepProfile> steps = [&] {
      const py::gil_scoped_release release;
      return session_.profile(tensors.input_views, tensors.output_views);
    }();
    py::list result;
    for (const StepProfile& step : steps) {
      py::list shapes;
      for (const Shape& shape : step.output_shapes) {
        shapes.append(py::tuple(py::cast(sizes_of(shape))));
      }
      result.append(py::make_tuple(step.nodes, shapes, step.seconds));
    }
    return result;
  }

  std::map<std::size_t, at::Tensor> observe(const std::vector<at::Tensor>& inputs) {
    RunTensors tensors(session_, *program_, inputs);
    const py::gil_scoped_release release;
    std::map<std::size_t, at::Tensor> values;
    session_.observe(tensors.input_views, tensors.output_views,
                     [&](std::size_t node, const ConstTensorView& value) {
                       const at::Tensor copy = make_tensor(value.dtype, value.shape);
                       std::memcpy(copy.data_ptr(), value.data, value.bytes());
                       values.emplace(node, copy);
                     });
    return values;
  }

  const std::vector<std::string>& node_engines() const { return session_.node_engines(); }
  std::size_t arena_bytes() const { return session_.arena_bytes(); }

 private:
  std::shared_ptr<const Program> program_;
  Session session_;
};

}  // namespace

void bind_program(py::module_& module) {
  py::class_<Program, std::shared_ptr<Program>>(module, "Program", "A verified, immutable Program.")
      .def_static(
          "load",
          [](const std::string& path) {
            return std::const_pointer_cast<Program>(Program::load(path));
          },
          py::arg("path"), py::call_guard<py::gil_scoped_release>(),
          "Maps and verifies a model.pyq.")
      .def_static(
          "from_bytes",
          [](const py::bytes& data) {
            const std::string_view text = data;
            return std::const_pointer_cast<Program>(
                Program::from_bytes(std::as_bytes(std::span(text.data(), text.size()))));
          },
          py::arg("data"), "Verifies the bytes of a model.pyq; they are copied.")
      .def_property_readonly("name", &Program::name)
      .def_property_readonly("inputs",
                             [](const Program& program) { return describe_all(program.inputs()); })
      .def_property_readonly(
          "outputs", [](const Program& program) { return describe_all(program.outputs()); });

  py::class_<PythonSession>(module, "Session", "Runs a Program; used by one thread at a time.")
      .def(py::init([](const std::shared_ptr<Program>& program, std::string engine, int threads,
                       bool fuse) {
             return std::make_unique<PythonSession>(program, std::move(engine), threads, fuse);
           }),
           py::arg("program"), py::arg("engine") = "auto", py::arg("threads") = 1,
           py::arg("fuse") = true, py::call_guard<py::gil_scoped_release>())
      .def("run", &PythonSession::run, py::arg("inputs"),
           "Runs on contiguous CPU tensors; returns a list of new tensors.")
      .def("profile", &PythonSession::profile, py::arg("inputs"),
           "Runs once; returns (indices of nodes, their output shapes, seconds) for each step.")
      .def("observe", &PythonSession::observe, py::arg("inputs"),
           "Runs once; returns copies of the nodes' values by the nodes' indices.")
      .def_property_readonly("node_engines", &PythonSession::node_engines)
      .def_property_readonly("arena_bytes", &PythonSession::arena_bytes);
}

}  // namespace pyquant::python
