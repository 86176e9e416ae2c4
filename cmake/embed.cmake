# cmake -DOUT=header.h -DFILES=a;b -P embed.cmake: a header with kTemplateFiles, the name and the text
# of each file.
set(text "#pragma once\n#include <string_view>\n
namespace lectern::report {\nstruct TemplateFile {\n  std::string_view name;\n  const char* text;\n};
inline constexpr TemplateFile kTemplateFiles[] = {\n")
foreach(path IN LISTS FILES)
  get_filename_component(name ${path} NAME)
  file(READ ${path} content)
  string(APPEND text "{\"${name}\", R\"template(${content})template\"},\n")
endforeach()
file(WRITE ${OUT} "${text}};\n}  // namespace lectern::report\n")
