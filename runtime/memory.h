// What this rank has used.
#pragma once

#include <cstdint>

#include <c10/core/Device.h>

namespace echelon {

/// The most so far, bytes: of a processor's memory the resident set (VmHWM; 0 where the system does not tell), of a
/// GPU's what tensors took.
int64_t peak_memory_bytes(c10::Device device);

/// From now on large blocks that are freed stay with this process. glibc would give them back to the kernel, which then
/// zeroes every page of every activation again in every step.
void keep_large_blocks();

}  // namespace echelon
