#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <map>

#include "bindings/bindings.h"
#include "bindings/tensor_views.h"
#include "pyquant/kernel.h"

namespace py = pybind11;

namespace pyquant::python {
namespace {

Window read_window(const py::handle& from) {
  const auto get = [&](const char* name) { return from.attr(name).cast<std::int32_t>(); };
  return {get("kernel_h"),   get("kernel_w"),  get("stride_h"),   get("stride_w"),
          get("pad_top"),    get("pad_left"),  get("pad_bottom"), get("pad_right"),
          get("dilation_h"), get("dilation_w")};
}

using Reader = OpAttributes (*)(const py::handle&);

// From the dataclasses of pyquant/ir/ops.py, by class name.
const std::map<std::string, Reader>& readers() {
  static const std::map<std::string, Reader> table = {
      {"Quantize", [](const py::handle&) -> OpAttributes { return Quantize{}; }},
      {"Dequantize", [](const py::handle&) -> OpAttributes { return Dequantize{}; }},
      {"Conv2d",
       [](const py::handle& op) -> OpAttributes {
         return Conv2d{read_window(op.attr("window")), op.attr("groups").cast<std::int32_t>(),
                       op.attr("output_min").cast<std::uint8_t>(),
                       op.attr("output_max").cast<std::uint8_t>()};
       }},
      {"Linear",
       [](const py::handle& op) -> OpAttributes {
         return Linear{op.attr("output_min").cast<std::uint8_t>(),
                       op.attr("output_max").cast<std::uint8_t>()};
       }},
      {"Add",
       [](const py::handle& op) -> OpAttributes {
         return Add{op.attr("output_min").cast<std::uint8_t>(),
                    op.attr("output_max").cast<std::uint8_t>(), op.attr("broadcast").cast<bool>()};
       }},
      {"MaxPool2d",
       [](const py::handle& op) -> OpAttributes {
         return MaxPool2d{read_window(op.attr("window")), op.attr("ceil_mode").cast<bool>()};
       }},
      {"AvgPool2d",
       [](const py::handle& op) -> OpAttributes {
         return AvgPool2d{read_window(op.attr("window")), op.attr("ceil_mode").cast<bool>(),
                          op.attr("count_include_pad").cast<bool>(),
                          op.attr("divisor_override").cast<std::int32_t>()};
       }},
      {"AdaptiveAvgPool2d",
       [](const py::handle& op) -> OpAttributes {
         return AdaptiveAvgPool2d{op.attr("output_h").cast<std::int32_t>(),
                                  op.attr("output_w").cast<std::int32_t>()};
       }},
      {"Flatten", [](const py::handle&) -> OpAttributes { return Flatten{}; }},
      {"Pad",
       [](const py::handle& op) -> OpAttributes {
         return Pad{op.attr("top").cast<std::int32_t>(), op.attr("left").cast<std::int32_t>(),
                    op.attr("bottom").cast<std::int32_t>(), op.attr("right").cast<std::int32_t>()};
       }},
      {"LookupTable",
       [](const py::handle& op) -> OpAttributes {
         LookupTable table;
         const auto values = op.attr("values").cast<std::string>();
         if (values.size() != table.values.size()) {
           throw InvalidInputError("a lookup table has 256 values");
         }
         std::copy(values.begin(), values.end(), table.values.begin());
         return table;
       }},
      {"Mul",
       [](const py::handle& op) -> OpAttributes {
         return Mul{op.attr("output_min").cast<std::uint8_t>(),
                    op.attr("output_max").cast<std::uint8_t>()};
       }},
      {"Concat",
       [](const py::handle& op) -> OpAttributes {
         return Concat{op.attr("axis").cast<std::int32_t>(), op.attr("interleaved").cast<bool>()};
       }},
      {"Slice",
       [](const py::handle& op) -> OpAttributes {
         return Slice{op.attr("axis").cast<std::int32_t>(), op.attr("begin").cast<std::int32_t>(),
                      op.attr("end").cast<std::int32_t>()};
       }},
      {"ChannelShuffle",
       [](const py::handle& op) -> OpAttributes {
         return ChannelShuffle{op.attr("groups").cast<std::int32_t>()};
       }},
      {"ResizeNearest",
       [](const py::handle& op) -> OpAttributes {
         return ResizeNearest{op.attr("output_h").cast<std::int32_t>(),
                              op.attr("output_w").cast<std::int32_t>(),
                              op.attr("scale_h").cast<double>(), op.attr("scale_w").cast<double>()};
       }},
      {"ResizeBilinear",
       [](const py::handle& op) -> OpAttributes {
         return ResizeBilinear{op.attr("output_h").cast<std::int32_t>(),
                               op.attr("output_w").cast<std::int32_t>(),
                               op.attr("scale_h").cast<double>(), op.attr("scale_w").cast<double>(),
                               op.attr("align_corners").cast<bool>()};
       }},
      {"ConvTranspose2d",
       [](const py::handle& op) -> OpAttributes {
         return ConvTranspose2d{read_window(op.attr("window")),
                                op.attr("groups").cast<std::int32_t>(),
                                op.attr("output_pad_h").cast<std::int32_t>(),
                                op.attr("output_pad_w").cast<std::int32_t>(),
                                op.attr("output_min").cast<std::uint8_t>(),
                                op.attr("output_max").cast<std::uint8_t>()};
       }},
      {"Reshape",
       [](const py::handle& op) -> OpAttributes {
         return Reshape{op.attr("sizes").cast<std::vector<std::int32_t>>()};
       }},
      {"AdaptiveMaxPool2d",
       [](const py::handle& op) -> OpAttributes {
         return AdaptiveMaxPool2d{op.attr("output_h").cast<std::int32_t>(),
                                  op.attr("output_w").cast<std::int32_t>()};
       }},
  };
  return table;
}

// An activation of uint8 with qparams, or of float32.
Operand read_activation(const py::object& qparams) {
  Operand operand;
  if (qparams.is_none()) {
    operand.dtype = DType::kFloat32;
  } else {
    const auto [scale, zero_point] = qparams.cast<std::pair<float, std::int32_t>>();
    operand.qparams = {scale, zero_point};
  }
  return operand;
}

class PythonKernel {
 public:
  PythonKernel(const py::object& attributes, const std::vector<py::object>& inputs,
               const py::object& output, const std::optional<at::Tensor>& weight,
               const std::vector<float>& weight_scales, const std::optional<at::Tensor>& bias,
               const std::string& engine, int threads, const std::string& name)
      : kernel_([&] {
          const auto kind = py::type::of(attributes).attr("__name__").cast<std::string>();
          const auto reader = readers().find(kind);
          if (reader == readers().end()) {
            throw UnsupportedError("there is no operator '" + kind + "'");
          }
          Operator op;
          op.name = name;
          try {
            op.attributes = reader->second(attributes);
          } catch (const py::cast_error&) {
            throw InvalidInputError("an attribute of " + py::repr(attributes).cast<std::string>() +
                                    " is of a wrong type or out of range");
          }
          for (const py::object& input : inputs) {
            op.inputs.push_back(read_activation(input));
          }
          if (weight.has_value()) {
            Operand operand;
            operand.constant = view_of(*weight);
            operand.dtype = operand.constant.dtype;
            if (operand.constant.shape.rank() == 0 ||
                static_cast<std::int64_t>(weight_scales.size()) != operand.constant.shape[0]) {
              throw InvalidInputError("a weight has one scale per output channel");
            }
            operand.channel_scales = weight_scales.data();
            op.inputs.push_back(operand);
          }
          if (bias.has_value()) {
            Operand operand;
            operand.constant = view_of(*bias);
            operand.dtype = operand.constant.dtype;
            op.inputs.push_back(operand);
          }
          op.output = read_activation(output);
          output_dtype_ = op.output.dtype;
          return Kernel(op, engine, threads);
        }()) {}

  at::Tensor run(const std::vector<at::Tensor>& inputs) {
    std::vector<ConstTensorView> views;
    std::vector<Shape> shapes;
    for (const at::Tensor& input : inputs) {
      views.push_back(view_of(input));
      shapes.push_back(views.back().shape);
    }
    const py::gil_scoped_release release;
    const Shape shape = kernel_.output_shape(shapes);
    const at::Tensor output = make_tensor(output_dtype_, shape);
    kernel_.run(views, {output_dtype_, shape, output.data_ptr()});
    return output;
  }

  const std::string& engine() const { return kernel_.engine(); }

 private:
  DType output_dtype_ = DType::kUInt8;
  Kernel kernel_;
};

}  // namespace

void bind_kernel(py::module_& module) {
  py::class_<PythonKernel>(module, "Kernel",
                           "One prepared operator; see pyquant.operators for its faces.")
      .def(
          py::init<const py::object&, const std::vector<py::object>&, const py::object&,
                   const std::optional<at::Tensor>&, const std::vector<float>&,
                   const std::optional<at::Tensor>&, const std::string&, int, const std::string&>(),
          py::arg("op"), py::arg("inputs"), py::arg("output"), py::kw_only(),
          py::arg("weight") = py::none(), py::arg("weight_scales") = std::vector<float>(),
          py::arg("bias") = py::none(), py::arg("engine") = "auto", py::arg("threads") = 1,
          py::arg("name") = "kernel",
          "op: a dataclass of pyquant.ir.ops. inputs, output: (scale, zero_point) of a uint8\n"
          "activation, or None for float32. weight int8, bias int32.")
      .def("run", &PythonKernel::run, py::arg("inputs"))
      .def_property_readonly("engine", &PythonKernel::engine);
}

}  // namespace pyquant::python
