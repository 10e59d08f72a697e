// NCCL's and CUDA's objects with owners, and their codes as errors. Included by the nccl backend alone.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <atomic>
#include <utility>

#include "cluster/base/error.h"

namespace echelon {

inline void nccl_check(ncclResult_t code, const char* operation) {
  if (code != ncclSuccess && code != ncclInProgress) throw Error::comm(operation, ncclGetErrorString(code));
}

inline void cuda_check(cudaError_t code, const char* operation) {
  if (code != cudaSuccess) throw Error::comm(operation, cudaGetErrorString(code));
}

/// Owns a communicator, which any thread may abort.
class NcclCommunicator {
 public:
  explicit NcclCommunicator(ncclComm_t comm) : comm_(comm) {}
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;
  ~NcclCommunicator() {
    if (ncclComm_t comm = comm_.exchange(nullptr)) ncclCommDestroy(comm);
  }

  /// Instead of the end in order, which would wait for the other ranks.
  void abort() {
    if (ncclComm_t comm = comm_.exchange(nullptr)) ncclCommAbort(comm);
  }
  /// Null once it is aborted.
  ncclComm_t get() const { return comm_; }

 private:
  std::atomic<ncclComm_t> comm_;
};

/// Owns an event that marks a point in a stream.
class Event {
 public:
  Event() { cuda_check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  ~Event() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  void record(cudaStream_t stream) { cuda_check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  void hold_back(cudaStream_t stream) const {
    cuda_check(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
  }
  bool passed() const {
    cudaError_t state = cudaEventQuery(event_);
    if (state != cudaErrorNotReady) cuda_check(state, "cudaEventQuery");
    return state == cudaSuccess;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace echelon
