// Ranks with a GPU each, over NCCL. Compiled wherever NCCL's headers are; it has not run on a GPU yet, and where none
// is visible require_nccl() says so and nothing else here is reached. NCCL runs the operations of a communicator one
// after the other: two ranks that send to each other before either receives wait for ever, until the timeout.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>

#include <exception>
#include <utility>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "comm/backends/backend.h"
#include "comm/backends/mpi_calls.h"

namespace echelon {

namespace {

void nccl_check(ncclResult_t code, const char* operation) {
  if (code != ncclSuccess && code != ncclInProgress) throw Error::comm(operation, ncclGetErrorString(code));
}

void cuda_check(cudaError_t code, const char* operation) {
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

ncclDataType_t type_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return ncclDouble;
    case at::kFloat:
      return ncclFloat;
    case at::kBFloat16:
      return ncclBfloat16;
    case at::kLong:
      return ncclInt64;
    case at::kInt:
      return ncclInt32;
    default:
      return ncclUint8;
  }
}

ncclRedOp_t operation_of(Reduce reduce) {
  switch (reduce) {
    case Reduce::sum:
      return ncclSum;
    case Reduce::max:
      return ncclMax;
    case Reduce::min:
      return ncclMin;
  }
  return ncclSum;
}

class Nccl final : public Backend {
 public:
  /// `host`: the same ranks over the CPU, for what they have to tell each other.
  Nccl(std::shared_ptr<Membership> membership, std::shared_ptr<Backend> host, NcclCommunicator communicator, int gpu)
      : Backend(std::move(membership), host->rank(), host->size()),
        host_(std::move(host)),
        communicator_(std::move(communicator)),
        gpu_(gpu),
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, static_cast<c10::DeviceIndex>(gpu))) {}

  at::Device device() const override { return {at::kCUDA, static_cast<c10::DeviceIndex>(gpu_)}; }

  std::shared_ptr<Backend> split(const Collective& collective, int color, int key) override {
    std::shared_ptr<Backend> host = host_->split(collective, color, key);
    ncclComm_t part = nullptr;
    nccl_check(ncclCommSplit(communicator_.get(), color, key, &part, nullptr), "ncclCommSplit");
    return std::make_shared<Nccl>(membership_, std::move(host), NcclCommunicator(part), gpu_);
  }

  Window allocate(const Collective& collective, int64_t elements) override {
    host_->barrier(collective).wait();
    return {at::zeros({elements}, at::TensorOptions().dtype(collective.dtype).device(device())), {}};
  }

  Work all_reduce(const Collective& collective, at::Tensor& tensor) override {
    return enqueue(collective, [&](cudaStream_t stream) {
      return ncclAllReduce(tensor.const_data_ptr(), tensor.data_ptr(), count_of(tensor), type_of(collective.dtype),
                           operation_of(collective.reduce), communicator_.get(), stream);
    });
  }

  Work all_gather(const Collective& collective, const at::Tensor& shard, at::Tensor& full) override {
    return enqueue(collective, [&](cudaStream_t stream) {
      return ncclAllGather(shard.const_data_ptr(), full.data_ptr(), count_of(shard), type_of(collective.dtype),
                           communicator_.get(), stream);
    });
  }

  Work reduce_scatter(const Collective& collective, const at::Tensor& full, at::Tensor& shard) override {
    at::Tensor sum = collective.accumulate ? at::empty_like(shard) : shard;
    Work work = enqueue(collective, [&](cudaStream_t stream) {
      return ncclReduceScatter(full.const_data_ptr(), sum.data_ptr(), count_of(shard), type_of(collective.dtype),
                               operation_of(collective.reduce), communicator_.get(), stream);
    });
    if (!collective.accumulate) return work;
    work.wait();
    shard.add_(sum);
    return {};
  }

  Work all_to_all(const Collective& collective, const at::Tensor& input, at::Tensor& output) override {
    auto slice = input.nbytes() / static_cast<size_t>(size());
    auto* from = static_cast<const char*>(input.const_data_ptr());
    auto* to = static_cast<char*>(output.data_ptr());
    return enqueue(collective, [&](cudaStream_t stream) {
      ncclGroupStart();
      for (size_t other = 0; other < static_cast<size_t>(size()); ++other) {
        ncclSend(from + other * slice, slice, ncclUint8, static_cast<int>(other), communicator_.get(), stream);
        ncclRecv(to + other * slice, slice, ncclUint8, static_cast<int>(other), communicator_.get(), stream);
      }
      return ncclGroupEnd();
    });
  }

  Work broadcast(const Collective& collective, at::Tensor& tensor) override {
    return enqueue(collective, [&](cudaStream_t stream) {
      return ncclBroadcast(tensor.const_data_ptr(), tensor.data_ptr(), count_of(tensor), type_of(collective.dtype),
                           collective.root, communicator_.get(), stream);
    });
  }

  Work send(const Collective& collective, const at::Tensor& tensor) override {
    return enqueue(collective, [&](cudaStream_t stream) {
      return ncclSend(tensor.const_data_ptr(), count_of(tensor), type_of(collective.dtype), collective.root,
                      communicator_.get(), stream);
    });
  }

  Work recv(const Collective& collective, at::Tensor& tensor) override {
    return enqueue(collective, [&](cudaStream_t stream) {
      return ncclRecv(tensor.data_ptr(), count_of(tensor), type_of(collective.dtype), collective.root,
                      communicator_.get(), stream);
    });
  }

  Work barrier(const Collective& collective) override {
    cuda_check(cudaStreamSynchronize(current_stream()), "cudaStreamSynchronize");
    return host_->barrier(collective);
  }

 private:
  static size_t count_of(const at::Tensor& tensor) { return static_cast<size_t>(tensor.numel()); }
  cudaStream_t current_stream() const {
    return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(gpu_)).stream();
  }

  /// Puts `call` on the group's stream, behind what the current stream has done so far. The Work lets the current
  /// stream go on after it; the wait itself happens on the GPU.
  template <class CallNccl>
  Work enqueue(const Collective& collective, const CallNccl& call) {
    bool pairwise = collective.op == Op::send || collective.op == Op::recv;
    if (membership_->checked && !pairwise) host_->barrier(collective).wait();  // compares signatures; see Control
    c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(gpu_));
    Event ready;
    ready.record(current_stream());
    ready.hold_back(stream_.stream());
    nccl_check(call(stream_.stream()), "NCCL");
    auto done = std::make_shared<Event>();
    done->record(stream_.stream());
    return Work([this, done, signature = Signature::of(collective)] { finish(*done, signature); });
  }

  void finish(const Event& done, const Signature& signature) {
    // Watched from here, since a wait on the GPU can neither time out nor see NCCL's own errors.
    auto passed = [&] {
      ncclResult_t state = ncclSuccess;
      nccl_check(ncclCommGetAsyncError(communicator_.get(), &state), "ncclCommGetAsyncError");
      nccl_check(state, "NCCL");
      return done.passed();
    };
    try {
      membership_->wait_until(passed, [&] { return "the other ranks to take part in " + signature.text(); });
    } catch (const Error&) {
      communicator_.abort();
      throw;
    }
    done.hold_back(current_stream());
  }

  std::shared_ptr<Backend> host_;
  NcclCommunicator communicator_;
  int gpu_;
  c10::cuda::CUDAStream stream_;
};

int visible_gpus() {
  int gpus = 0;
  return cudaGetDeviceCount(&gpus) == cudaSuccess ? gpus : 0;
}

/// LibTorch's CUDA half registers its operators when it is loaded; programs that never see a GPU start without it.
void load_torch_cuda() {
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    throw Error::recipe("backend nccl", dlerror())
        .remedy("install a CUDA build of the torch wheel, or use backend mpi");
  }
}

}  // namespace

bool nccl_usable() { return visible_gpus() > 0; }

void require_nccl() {
  if (nccl_usable()) return;
  throw Error::recipe("backend", "nccl needs a GPU, and none is visible")
      .remedy("check nvidia-smi and CUDA_VISIBLE_DEVICES, or use backend mpi");
}

std::shared_ptr<Backend> make_nccl(std::shared_ptr<Membership> membership, const MpiWorld& world) {
  require_nccl();
  int gpus = visible_gpus();
  if (world.local_size > gpus && gpus > 1) {
    throw Error::recipe("backend", fmt::format("{} ranks of this node share {} GPUs", world.local_size, gpus))
        .remedy("start one rank for each GPU");
  }
  load_torch_cuda();
  int gpu = world.local_rank % gpus;  // Slurm may show each rank its own GPU alone
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(gpu));
  ncclUniqueId id{};
  if (world.rank == 0) nccl_check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  mpi_check(MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD), "MPI_Bcast");
  ncclComm_t comm = nullptr;
  nccl_check(ncclCommInitRank(&comm, world.size, id, world.rank), "ncclCommInitRank");
  std::shared_ptr<Backend> host = make_mpi(membership, true);
  return std::make_shared<Nccl>(std::move(membership), std::move(host), NcclCommunicator(comm), gpu);
}

}  // namespace echelon
