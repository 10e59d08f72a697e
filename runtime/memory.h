// What this rank has used.
#pragma once

#include <cstdint>

#include <c10/core/Device.h>

namespace echelon {

/// The most so far, bytes: of a processor's memory the resident set (VmHWM; 0 where the system does not tell), of a GPU's
/// what tensors took.
int64_t peak_memory_bytes(c10::Device device);

}  // namespace echelon
