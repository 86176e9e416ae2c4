# lectern_library(name) makes lectern_<name> from every .cpp in the calling folder, and with
# FOLDERS from those of its rooms.

function(lectern_library name)
  cmake_parse_arguments(ARG "" "" "FOLDERS;LINK" ${ARGN})
  set(patterns ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  foreach(folder IN LISTS ARG_FOLDERS)
    list(APPEND patterns ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cpp)
  endforeach()
  file(GLOB sources CONFIGURE_DEPENDS ${patterns})
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  add_library(lectern_${name} STATIC ${sources})
  target_link_libraries(lectern_${name} PUBLIC lectern_options ${ARG_LINK})
endfunction()

# add_op(rms_norm): an operation is a room of several folders. Configuration fails when its
# declaration, kernel or test is missing; the gradient (autograd/ops) exists where one is defined.
function(add_op name)
  foreach(file core/ops/${name}.h core/ops/${name}.cpp tests/ops/${name}_test.cpp)
    if(NOT EXISTS ${CMAKE_SOURCE_DIR}/${file})
      message(FATAL_ERROR "add_op(${name}): missing ${file}")
    endif()
  endforeach()
endfunction()

# lectern_family_table(FILE TYPE FUNCTION): writes FILE from FILE.in, where the declarations and the
# calls of `TYPE lectern::<family>::FUNCTION()` stand for every family of LECTERN_FAMILIES. So no
# C++ file but a family's own names it.
function(lectern_family_table file type function)
  set(LECTERN_FAMILY_DECLARATIONS "")
  set(LECTERN_FAMILY_ROWS "")
  foreach(family IN LISTS LECTERN_FAMILIES)
    string(APPEND LECTERN_FAMILY_DECLARATIONS "namespace lectern::${family} { ${type} ${function}(); }\n")
    list(APPEND LECTERN_FAMILY_ROWS "${family}::${function}()")
  endforeach()
  string(REPLACE ";" ", " LECTERN_FAMILY_ROWS "${LECTERN_FAMILY_ROWS}")
  configure_file(${file}.in ${CMAKE_CURRENT_BINARY_DIR}/${file} @ONLY)
endfunction()
