# cmake --install build --prefix P: the program with its recipes and the small model, and the
# libraries that it is made of with their headers and a CMake package (docs/library.md).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# What others link. recipes/ is the program's own.
set(LECTERN_INSTALLED core autograd nn data distributed cuda nccl)

set(targets lectern_options lectern_dnnl)
foreach(name IN LISTS LECTERN_INSTALLED)
  list(APPEND targets lectern_${name})
  set_target_properties(lectern_${name} PROPERTIES EXPORT_NAME ${name})
endforeach()
install(TARGETS ${targets} EXPORT lectern ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT lectern NAMESPACE lectern:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/lectern)
foreach(folder core autograd nn data distributed cuda)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lectern
          FILES_MATCHING PATTERN "*.h")
endforeach()

set(LECTERN_PACKAGE_MPI OFF)
if(LECTERN_MPI AND MPI_CXX_FOUND)
  set(LECTERN_PACKAGE_MPI ON)
endif()
configure_package_config_file(
  ${CMAKE_SOURCE_DIR}/cmake/lectern-config.cmake.in ${CMAKE_BINARY_DIR}/lectern-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/lectern)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/lectern-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/lectern-config.cmake
              ${CMAKE_BINARY_DIR}/lectern-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/lectern)

# The program finds recipes by name, and the model that it reads with, in share/lectern.
install(TARGETS lectern RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
foreach(folder configs nano)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/recipes/${folder}
          DESTINATION ${CMAKE_INSTALL_DATADIR}/lectern/recipes)
endforeach()
