# echelon_kernels(<room> a_kernel.cc ...): adds kernels to a room, each source compiled once for each instruction set into the
# namespace echelon::kernels::<set>. See models/kernels/kernel.h.
set(ECHELON_KERNEL_SETS plain)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND ECHELON_KERNEL_SETS avx2 avx512 avx512_bf16)
endif()
set(ECHELON_KERNEL_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(ECHELON_KERNEL_FLAGS_avx512 ${ECHELON_KERNEL_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl
    -mprefer-vector-width=512)
set(ECHELON_KERNEL_FLAGS_avx512_bf16 ${ECHELON_KERNEL_FLAGS_avx512} -mavx512bf16)

function(echelon_kernels room)
  foreach(set ${ECHELON_KERNEL_SETS})
    set(objects ${room}_kernels_${set})
    add_library(${objects} OBJECT ${ARGN})
    target_link_libraries(${objects} PRIVATE echelon_flags)
    # -O3 whatever the build type: a kernel without vectors measures and tests nothing.
    target_compile_options(${objects} PRIVATE -O3 -fno-math-errno -fno-trapping-math -fopenmp-simd -ffp-contract=fast
                           ${ECHELON_KERNEL_FLAGS_${set}})
    target_compile_definitions(${objects} PRIVATE ECHELON_ISA_NAME=${set})
    target_sources(${room} PRIVATE $<TARGET_OBJECTS:${objects}>)
  endforeach()
endfunction()
