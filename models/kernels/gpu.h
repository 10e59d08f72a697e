// Where kernels for GPUs go, and whether they got there.
#pragma once

struct CUstream_st;

namespace echelon {

/// The framework's current stream on the current GPU.
CUstream_st* gpu_stream();

/// Errors: Error::internal if `kernel` could not be launched.
void check_launch(const char* kernel);

}  // namespace echelon
