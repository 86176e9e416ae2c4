# Reading the standard library, json and fmt is most of what a small source costs: with this, up to
# fourteen neighbours are compiled as one (-DLECTERN_UNITY=OFF for who edits one file again and again).
# Names in the anonymous namespaces of one library, or of one program of tests, must not clash, then.
option(LECTERN_UNITY "Compile neighbouring sources together" ON)
set(unity_sources 14)

# lectern_unite(target [EXCEPT FOLDERS...]): compiles the sources of a target together, but for those of
# some folders. A source that has compile options of its own stays alone.
function(lectern_unite target)
  cmake_parse_arguments(ARG "" "" "EXCEPT" ${ARGN})
  if(NOT LECTERN_UNITY)
    return()
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  # The warning asks whether the main file is a header; here it always looks like one.
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
  get_target_property(sources ${target} SOURCES)
  set(count 0)
  foreach(source IN LISTS sources)
    get_filename_component(folder ${source} DIRECTORY)
    if(NOT folder IN_LIST ARG_EXCEPT)
      math(EXPR group "${count} / ${unity_sources}")
      math(EXPR count "${count} + 1")
      set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group})
    endif()
  endforeach()
endfunction()

# lectern_library(name) makes lectern_<name> from every .cpp in the calling folder, and with
# FOLDERS from those of its rooms. ALONE: folders whose sources are not compiled together, because
# code that decides numbers should not depend on its neighbours.

function(lectern_library name)
  cmake_parse_arguments(ARG "" "" "FOLDERS;ALONE;LINK" ${ARGN})
  set(patterns ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  foreach(folder IN LISTS ARG_FOLDERS)
    list(APPEND patterns ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cpp)
  endforeach()
  file(GLOB sources CONFIGURE_DEPENDS ${patterns})
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  add_library(lectern_${name} STATIC ${sources})
  target_link_libraries(lectern_${name} PUBLIC lectern_options ${ARG_LINK})
  list(TRANSFORM ARG_ALONE PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  lectern_unite(lectern_${name} EXCEPT ${ARG_ALONE})
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
