# Finds the libtorch inside the torch wheel of the current Python environment, without torch's own
# TorchConfig.cmake (which looks for CUDA, MKL and more that is not needed here).
#
#   TORCH_ROOT              the folder of the package; set it to another machine's to cross-compile
#
#   torch_cpu_only          headers and libtorch_cpu, libc10
#   torch_python_bindings   the same and libtorch_python, for the pybind11 module

find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
if(NOT TORCH_ROOT)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
            "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0], end='')"
    OUTPUT_VARIABLE TORCH_ROOT
    COMMAND_ERROR_IS_FATAL ANY)
endif()

foreach(name c10 torch_cpu torch_python)
  # Not cached: the torch of the next configuration may be another.
  find_library(TORCH_${name}_LIBRARY ${name} PATHS ${TORCH_ROOT}/lib NO_DEFAULT_PATH REQUIRED NO_CACHE)
endforeach()

add_library(torch_cpu_only INTERFACE)
target_include_directories(torch_cpu_only SYSTEM INTERFACE ${TORCH_ROOT}/include
                           ${TORCH_ROOT}/include/torch/csrc/api/include)
target_link_libraries(torch_cpu_only INTERFACE ${TORCH_torch_cpu_LIBRARY} ${TORCH_c10_LIBRARY})

add_library(torch_python_bindings INTERFACE)
target_link_libraries(torch_python_bindings INTERFACE torch_cpu_only ${TORCH_torch_python_LIBRARY})
