// C++ exceptions become the exceptions of pyquant.errors.
#include "bindings/bindings.h"
#include "pyquant/error.h"

namespace py = pybind11;

namespace pyquant::python {
namespace {

void raise(const char* name, const Error& error) {
  const py::object type = py::module_::import("pyquant.errors").attr(name);
  py::set_error(type, error.what());
}

}  // namespace

void bind_errors(py::module_& /*module*/) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      std::rethrow_exception(pointer);
    } catch (const InvalidProgramError& error) {
      raise("InvalidProgramError", error);
    } catch (const InvalidInputError& error) {
      raise("InvalidInputError", error);
    } catch (const UnsupportedError& error) {
      raise("UnsupportedError", error);
    } catch (const IoError& error) {
      raise("IoError", error);
    } catch (const Error& error) {
      raise("PyquantError", error);
    }
  });
}

}  // namespace pyquant::python
