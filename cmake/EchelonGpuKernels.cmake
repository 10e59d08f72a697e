# echelon_gpu_kernels(<room> a_kernel.cu ...): adds kernels for GPUs to a room, compiled into the namespace
# echelon::kernels::gpu by the nvcc of the wheel nvidia-cuda-nvcc. CMake's own language CUDA would ask for a toolkit.
# Without nvcc nothing is added: GPUs then run the framework's operators.
if(TARGET cudart)
  find_program(ECHELON_NVCC nvcc PATHS "${ECHELON_CUDA_ROOT}/bin" NO_DEFAULT_PATH)
endif()
set(kGpuKernels false)
if(ECHELON_NVCC)
  set(kGpuKernels true)
else()
  message(STATUS "No nvcc in ${ECHELON_VENV}: GPUs run the framework's operators instead of fused kernels")
endif()
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/models/kernels/gpu_kernels.h" CONTENT
"// Whether this build has kernels for GPUs.
#pragma once

namespace echelon {

inline constexpr bool kGpuKernels = @kGpuKernels@;

}  // namespace echelon
" @ONLY)

set(ECHELON_NVCC_FLAGS -ccbin ${CMAKE_CXX_COMPILER} -std=c++20 -O3 -lineinfo
    -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90]
    -Xcompiler=-Wall,-Wextra,-Wno-unused-parameter,-Wno-missing-field-initializers,-fPIC
    -DECHELON_ISA_NAME=gpu "-I${PROJECT_SOURCE_DIR}" "-I${PROJECT_BINARY_DIR}")

function(echelon_gpu_kernels room)
  if(NOT ECHELON_NVCC)
    return()
  endif()
  foreach(source ${ARGN})
    get_filename_component(name "${source}" NAME)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/${name}.o")
    add_custom_command(
      OUTPUT "${object}"
      COMMAND "${ECHELON_NVCC}" ${ECHELON_NVCC_FLAGS} -MD -MF "${object}.d" -c "${source}" -o "${object}"
      DEPENDS "${source}" DEPFILE "${object}.d" COMMENT "Compiling ${name} for GPUs" VERBATIM)
    set_source_files_properties("${object}" PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
    target_sources(${room} PRIVATE "${object}")
  endforeach()
  target_link_libraries(${room} PRIVATE $<LINK_ONLY:c10_cuda> $<LINK_ONLY:cudart>)
endfunction()
