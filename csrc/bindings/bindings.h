// The parts of the Python module; each bind_*.cpp defines one.
#pragma once

#include <pybind11/pybind11.h>

namespace pyquant::python {

void bind_cpu(pybind11::module_& module);
void bind_dynamic(pybind11::module_& module);
void bind_errors(pybind11::module_& module);
void bind_kernel(pybind11::module_& module);
void bind_observers(pybind11::module_& module);
void bind_program(pybind11::module_& module);
void bind_weights(pybind11::module_& module);

}  // namespace pyquant::python
