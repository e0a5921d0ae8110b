#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "bindings/bindings.h"
#include "bindings/tensor_views.h"
#include "pyquant/session.h"

namespace py = pybind11;

namespace pyquant::python {
namespace {

std::vector<at::Tensor> run(Session& session, const Program& program,
                            const std::vector<at::Tensor>& inputs) {
  std::vector<ConstTensorView> views;
  std::vector<Shape> shapes;
  for (const at::Tensor& input : inputs) {
    views.push_back(view_of(input));
    shapes.push_back(views.back().shape);
  }
  const py::gil_scoped_release release;
  const std::vector<Shape>& output_shapes = session.output_shapes(shapes);
  std::vector<at::Tensor> outputs;
  std::vector<TensorView> output_views;
  for (std::size_t i = 0; i < output_shapes.size(); ++i) {
    const DType dtype = program.outputs()[i].dtype;
    outputs.push_back(make_tensor(dtype, output_shapes[i]));
    output_views.push_back({dtype, output_shapes[i], outputs.back().data_ptr()});
  }
  session.run(views, output_views);
  return outputs;
}

py::dict describe(const TensorInfo& info) {
  py::dict result;
  result["name"] = info.name;
  result["dtype"] = to_string(info.dtype);
  result["shape"] =
      py::tuple(py::cast(std::vector<std::int64_t>(info.shape.begin(), info.shape.end())));
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
  PythonSession(std::shared_ptr<const Program> program, std::string engine, int threads)
      : program_(program), session_(std::move(program), {std::move(engine), threads}) {}

  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs) {
    return python::run(session_, *program_, inputs);
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
      .def(py::init([](const std::shared_ptr<Program>& program, std::string engine, int threads) {
             return std::make_unique<PythonSession>(program, std::move(engine), threads);
           }),
           py::arg("program"), py::arg("engine") = "auto", py::arg("threads") = 1,
           py::call_guard<py::gil_scoped_release>())
      .def("run", &PythonSession::run, py::arg("inputs"),
           "Runs on contiguous CPU tensors; returns a list of new tensors.")
      .def_property_readonly("node_engines", &PythonSession::node_engines)
      .def_property_readonly("arena_bytes", &PythonSession::arena_bytes);
}

}  // namespace pyquant::python
