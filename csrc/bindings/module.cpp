#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "engines/engine.h"
#include "kernels/dispatch.h"
#include "kernels/kernel_table.h"
#include "pyquant/torch_engines.h"

PYBIND11_MODULE(_C, module) {
  module.doc() = "pyquant's C++ core: kernels, Programs and the sessions that run them.";
  pyquant::register_torch_engines();
  pyquant::python::bind_cpu(module);
  pyquant::python::bind_dynamic(module);
  pyquant::python::bind_errors(module);
  pyquant::python::bind_kernel(module);
  pyquant::python::bind_observers(module);
  pyquant::python::bind_program(module);
  pyquant::python::bind_weights(module);
  module.def(
      "engines",
      [] {
        pybind11::list names;
        for (const pyquant::Engine* engine : pyquant::engines()) {
          names.append(std::string(engine->name()));
        }
        return names;
      },
      "Names of the engines, in the order in which 'auto' asks them.");
  module.def(
      "isa", [] { return pyquant::kernel_table().isa; },
      "The instruction set that native kernels are prepared for.");
  module.def("isas", &pyquant::isas,
             "The instruction sets that the native engine can use on this CPU, best first.");
  module.def("use_isa", &pyquant::use_isa, pybind11::arg("isa"),
             "Prepares native kernels for this one from now on; '' for the default. For tests.");
}
