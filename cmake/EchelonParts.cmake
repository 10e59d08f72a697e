# echelon_parts(<out>): writes builtin_methods.cc, which calls register_<stem>(Registry&) for each <stem>.cc of a Part folder.
# A forgotten function is a link error that names it.
function(echelon_parts out)
  file(GLOB parts CONFIGURE_DEPENDS
    ${PROJECT_SOURCE_DIR}/sharding/exchange/*.proto
    ${PROJECT_SOURCE_DIR}/models/objectives/*.proto ${PROJECT_SOURCE_DIR}/models/adapters/*.proto
    ${PROJECT_SOURCE_DIR}/models/weight_ops/*.proto
    ${PROJECT_SOURCE_DIR}/runtime/optimizers/*.proto ${PROJECT_SOURCE_DIR}/runtime/schedules/*.proto
    ${PROJECT_SOURCE_DIR}/runtime/sources/*.proto)
  set(declarations "")
  set(calls "")
  foreach(part ${parts})
    get_filename_component(stem "${part}" NAME_WE)
    string(APPEND declarations "void register_${stem}(Registry&);\n")
    string(APPEND calls "  register_${stem}(registry);\n")
  endforeach()
  set(file "${PROJECT_BINARY_DIR}/builtin_methods.cc")
  file(CONFIGURE OUTPUT "${file}" CONTENT
"#include \"cluster/base/registry.h\"

namespace echelon {

${declarations}
void register_builtin_methods(Registry& registry) {
${calls}}

}  // namespace echelon
" @ONLY)
  set(${out} "${file}" PARENT_SCOPE)
endfunction()
