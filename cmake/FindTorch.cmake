# LibTorch from the Python wheel.
#
# TorchConfig.cmake of a CUDA wheel insists on a CUDA toolkit, so this module makes the imported targets itself:
#   torch_cpu, c10                 always
#   torch_cuda, c10_cuda           where the wheel has them
#   cudart                         CUDA's runtime, where the wheel's headers and library are there
#   nccl                           where the wheel's NCCL headers and library are there (ECHELON_NCCL_FOUND)
#
# The wheel carries its own, older protobuf headers. Include folders of imported targets become -isystem, which would
# shadow Debian's, so the wheel's folders are given with -idirafter.
set(ECHELON_VENV "${PROJECT_SOURCE_DIR}/.venv" CACHE PATH "Virtual environment that holds the torch wheel")

file(GLOB _torch_roots "${ECHELON_VENV}/lib/python3*/site-packages/torch")
list(LENGTH _torch_roots _torch_count)
if(NOT _torch_count EQUAL 1)
  message(FATAL_ERROR "No torch wheel in ${ECHELON_VENV}. Run ./quickstart, or: "
                      "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt")
endif()
set(Torch_ROOT_DIR "${_torch_roots}")
get_filename_component(_site "${Torch_ROOT_DIR}" DIRECTORY)

file(READ "${Torch_ROOT_DIR}/version.py" _version_text)
string(REGEX MATCH "__version__ = '([0-9]+\\.[0-9]+\\.[0-9]+)" _ "${_version_text}")
set(Torch_VERSION "${CMAKE_MATCH_1}")
if(Torch_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "Echelon needs torch >= 2.11; ${Torch_ROOT_DIR} is ${Torch_VERSION}")
endif()

set(_torch_includes
    "SHELL:-idirafter ${Torch_ROOT_DIR}/include"
    "SHELL:-idirafter ${Torch_ROOT_DIR}/include/torch/csrc/api/include")

foreach(_name c10 torch_cpu c10_cuda torch_cuda)
  if(EXISTS "${Torch_ROOT_DIR}/lib/lib${_name}.so" AND NOT TARGET ${_name})
    add_library(${_name} SHARED IMPORTED)
    set_target_properties(${_name} PROPERTIES
      IMPORTED_LOCATION "${Torch_ROOT_DIR}/lib/lib${_name}.so"
      IMPORTED_NO_SONAME FALSE
      INTERFACE_COMPILE_OPTIONS "${_torch_includes}")
  endif()
endforeach()
target_link_libraries(torch_cpu INTERFACE c10)

# RUNPATH does not serve transitive libraries, RPATH does.
file(GLOB _nvidia_libs "${_site}/nvidia/*/lib")
set(Torch_RPATH "${Torch_ROOT_DIR}/lib" ${_nvidia_libs})
list(APPEND CMAKE_BUILD_RPATH ${Torch_RPATH})
list(APPEND CMAKE_INSTALL_RPATH ${Torch_RPATH})
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)

set(_cuda "${_site}/nvidia/cu13")
if(EXISTS "${_cuda}/include/cuda_runtime_api.h" AND EXISTS "${_cuda}/lib/libcudart.so.13" AND TARGET c10_cuda)
  add_library(cudart SHARED IMPORTED)
  set_target_properties(cudart PROPERTIES IMPORTED_LOCATION "${_cuda}/lib/libcudart.so.13")
  set(ECHELON_CUDA_ROOT "${_cuda}")
endif()

set(ECHELON_NCCL_FOUND FALSE)
set(_nccl "${_site}/nvidia/nccl")
if(EXISTS "${_nccl}/include/nccl.h" AND EXISTS "${_nccl}/lib/libnccl.so.2" AND TARGET cudart)
  add_library(nccl SHARED IMPORTED)
  set_target_properties(nccl PROPERTIES
    IMPORTED_LOCATION "${_nccl}/lib/libnccl.so.2"
    INTERFACE_COMPILE_OPTIONS "SHELL:-idirafter ${_nccl}/include;SHELL:-idirafter ${_cuda}/include")
  set(ECHELON_NCCL_FOUND TRUE)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Torch REQUIRED_VARS Torch_ROOT_DIR VERSION_VAR Torch_VERSION)
