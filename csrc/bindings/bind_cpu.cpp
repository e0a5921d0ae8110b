#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "pyquant/peak.h"

namespace py = pybind11;

namespace pyquant::python {

void bind_cpu(py::module_& module) {
  module.def("isa", &isa_in_use, "The instruction set of the kernels in use.");
  module.def("measure_peak", &measure_peak, py::arg("seconds") = 0.05,
             py::call_guard<py::gil_scoped_release>(),
             "8-bit multiply-adds per second that one core reaches with that instruction set's\n"
             "fastest multiply-add and nothing else; None where it has no such instruction.");
}

}  // namespace pyquant::python
