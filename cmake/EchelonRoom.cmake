# How rooms, protos and tests are declared. Everything is a property of a target; nothing is global.

# What every object of Echelon is compiled with.
add_library(echelon_flags INTERFACE)
target_compile_options(echelon_flags INTERFACE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -g1
                       $<$<CONFIG:Release>:-O3;-fno-math-errno>)
target_include_directories(echelon_flags INTERFACE "${PROJECT_SOURCE_DIR}" "${PROJECT_BINARY_DIR}")
target_link_options(echelon_flags INTERFACE -Wl,--disable-new-dtags -Wl,--as-needed)

# echelon_light(<name> SOURCES ... PROTOS ... LINKS ...): a target free of LibTorch and MPI.
function(echelon_light name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PROTOS;LINKS" ${ARGN})
  echelon_protos(generated ${ARG_PROTOS})
  add_library(${name} STATIC ${ARG_SOURCES} ${generated})
  target_link_libraries(${name} PUBLIC echelon_flags ${ARG_LINKS})
endfunction()

# echelon_room(<name> SOURCES ... LINKS ...): a target that may use LibTorch. All rooms share comm's precompiled header.
function(echelon_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC echelon_flags torch_cpu c10 OpenMP::OpenMP_CXX ${ARG_LINKS})
  echelon_precompile(${name})
endfunction()

function(echelon_precompile name)
  if(name STREQUAL "echelon_comm")
    target_precompile_headers(${name} PRIVATE "${PROJECT_SOURCE_DIR}/comm/precompiled.h")
  else()
    target_precompile_headers(${name} REUSE_FROM echelon_comm)
  endif()
endfunction()

# echelon_protos(<out> a/b.proto ...): generates C++ for protos, which are named relative to the source root.
function(echelon_protos out)
  set(sources)
  foreach(proto ${ARGN})
    file(RELATIVE_PATH stem "${PROJECT_SOURCE_DIR}" "${proto}")
    string(REGEX REPLACE "\\.proto$" "" stem "${stem}")
    set(base "${PROJECT_BINARY_DIR}/${stem}.pb")
    add_custom_command(
      OUTPUT "${base}.cc" "${base}.h"
      COMMAND protobuf::protoc "--proto_path=${PROJECT_SOURCE_DIR}" "--cpp_out=${PROJECT_BINARY_DIR}" "${proto}"
      DEPENDS "${proto}" VERBATIM)
    list(APPEND sources "${base}.cc")
  endforeach()
  set(${out} ${sources} PARENT_SCOPE)
endfunction()

# echelon_test(<name> SOURCES ... LINKS ... [LIGHT] [RANKS 1 2 4] [ISAS plain avx2] [ENVIRONMENT A=B] [GPU])
# One test executable. With RANKS, it is run under mpirun at each of those sizes; with ISAS, once for each set of kernels;
# without, directly. With GPU it is built everywhere, and a test only where the machine has a GPU.
function(echelon_test name)
  cmake_parse_arguments(ARG "LIGHT;GPU" "TIMEOUT" "SOURCES;LINKS;RANKS;ISAS;ENVIRONMENT" ${ARGN})
  set(target "test_${name}")
  add_executable(${target} ${ARG_SOURCES})
  target_link_libraries(${target} PRIVATE ${ARG_LINKS} GTest::gtest GTest::gmock)
  if(ARG_LIGHT)
    target_link_libraries(${target} PRIVATE GTest::gtest_main)
  else()
    target_link_libraries(${target} PRIVATE echelon_test_main)
    echelon_precompile(${target})
  endif()
  if(ARG_GPU AND NOT EXISTS /dev/nvidiactl)
    message(STATUS "${target}: built and not run, for this machine has no GPU")
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(ARG_RANKS)
    foreach(ranks ${ARG_RANKS})
      add_test(NAME ${name}.ranks${ranks}
               COMMAND "${PROJECT_SOURCE_DIR}/tests/mpirun_test" ${ranks} $<TARGET_FILE:${target}>)
      list(APPEND tests ${name}.ranks${ranks})
    endforeach()
  elseif(ARG_ISAS)
    foreach(isa ${ARG_ISAS})
      add_test(NAME ${name}.${isa} COMMAND ${CMAKE_COMMAND} -E env ECHELON_ISA=${isa} $<TARGET_FILE:${target}>)
      list(APPEND tests ${name}.${isa})
    endforeach()
  else()
    add_test(NAME ${name} COMMAND ${target})
    set(tests ${name})
  endif()
  set_tests_properties(${tests} PROPERTIES TIMEOUT ${ARG_TIMEOUT}
    ENVIRONMENT "${ARG_ENVIRONMENT};ECHELON_SOURCE=${PROJECT_SOURCE_DIR};ECHELON_BUILD=${PROJECT_BINARY_DIR}")
endfunction()
