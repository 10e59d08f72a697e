// NCCL's and CUDA's objects with owners, and their codes as errors. Included by the nccl backend alone.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <exception>
#include <utility>

#include "cluster/base/error.h"

namespace echelon {

inline void nccl_check(ncclResult_t code, const char* operation) {
  if (code != ncclSuccess && code != ncclInProgress) throw Error::comm(operation, ncclGetErrorString(code));
}

inline void cuda_check(cudaError_t code, const char* operation) {
  if (code != cudaSuccess) throw Error::comm(operation, cudaGetErrorString(code));
}

/// Owns a communicator. It is aborted when an error is on its way up: to destroy it would wait for the other ranks.
class NcclCommunicator {
 public:
  explicit NcclCommunicator(ncclComm_t comm) : comm_(comm) {}
  NcclCommunicator(NcclCommunicator&& other) noexcept : comm_(std::exchange(other.comm_, nullptr)) {}
  NcclCommunicator& operator=(NcclCommunicator&& other) noexcept {
    std::swap(comm_, other.comm_);
    return *this;
  }
  ~NcclCommunicator() {
    if (comm_ == nullptr) return;
    std::uncaught_exceptions() > 0 ? ncclCommAbort(comm_) : ncclCommDestroy(comm_);
  }

  void abort() {
    if (comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
  }
  ncclComm_t get() const { return comm_; }

 private:
  ncclComm_t comm_;
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
