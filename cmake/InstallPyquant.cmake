# cmake --install: headers, libraries, the CMake package and the pkg-config file. A wheel has them
# inside of the Python package, but neither what links statically nor the pkg-config file, whose
# -lpyquant needs the symbolic link that a wheel cannot hold.

include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/pyquant)
if(APPLE)
  set(origin @loader_path)
else()
  set(origin $ORIGIN)
endif()
if(wheel)
  set(namelink NAMELINK_SKIP)
endif()

set(libraries pyquant_core_shared)
if(NOT wheel)
  list(APPEND libraries pyquant_core)
endif()
set(without_torch PATTERN torch_engines.h EXCLUDE)
if(PYQUANT_TORCH)
  list(APPEND libraries pyquant_torch_shared)
  set(without_torch)
  # libtorch: beside the wheel, else where it was when this was built.
  if(wheel)
    set_target_properties(pyquant_torch_shared PROPERTIES
                          INSTALL_RPATH "${origin};${origin}/../../torch/lib")
  else()
    set_target_properties(pyquant_torch_shared PROPERTIES
                          INSTALL_RPATH ${origin} INSTALL_RPATH_USE_LINK_PATH ON)
  endif()
endif()

install(DIRECTORY ${PROJECT_SOURCE_DIR}/csrc/include/pyquant
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development ${without_torch})
install(TARGETS ${libraries} EXPORT pyquant
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime
                NAMELINK_COMPONENT development ${namelink}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)

install(EXPORT pyquant NAMESPACE pyquant:: FILE pyquantTargets.cmake
        DESTINATION ${package_dir} COMPONENT development)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/pyquantConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/pyquantConfig.cmake
                              INSTALL_DESTINATION ${package_dir}
                              NO_SET_AND_CHECK_MACRO)
# Before 1.0 every minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/pyquantConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/pyquantConfig.cmake
              ${PROJECT_BINARY_DIR}/pyquantConfigVersion.cmake
        DESTINATION ${package_dir} COMPONENT development)

if(NOT wheel)
  set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  file(RELATIVE_PATH pkgconfig_to_prefix /prefix/${pkgconfig_dir} /prefix)
  string(REGEX REPLACE "/$" "" pkgconfig_to_prefix ${pkgconfig_to_prefix})
  set(pkgconfig_cxx -lstdc++)
  if(APPLE)
    set(pkgconfig_cxx -lc++)
  endif()
  configure_file(${CMAKE_CURRENT_LIST_DIR}/pyquant.pc.in ${PROJECT_BINARY_DIR}/pyquant.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/pyquant.pc DESTINATION ${pkgconfig_dir}
          COMPONENT development)
endif()
