// Ranks with a GPU each, over NCCL. Compiled wherever NCCL's headers are; where no GPU is visible require_nccl() says
// so and nothing else here is reached.
#include <unistd.h>

#include <cstdlib>
#include <deque>
#include <exception>
#include <utility>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cluster/base/log.h"
#include "comm/backends/backend.h"
#include "comm/backends/gpus.h"
#include "comm/backends/mpi_calls.h"
#include "comm/backends/nccl_watch.h"

namespace echelon {

namespace {

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
  Nccl(std::shared_ptr<Membership> membership, std::shared_ptr<Backend> host, std::shared_ptr<NcclWatch> watch,
       ncclComm_t communicator, int gpu)
      : Backend(std::move(membership), host->rank(), host->size()),
        host_(std::move(host)),
        watch_(std::move(watch)),
        communicator_(std::make_shared<NcclCommunicator>(communicator)),
        gpu_(gpu),
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, static_cast<c10::DeviceIndex>(gpu))) {}

  ~Nccl() override {
    if (std::uncaught_exceptions() > 0) communicator_->abort();
  }

  at::Device device() const override { return {at::kCUDA, static_cast<c10::DeviceIndex>(gpu_)}; }

  std::shared_ptr<Backend> split(const Collective& collective, int color, int key) override {
    send_all_kept();
    std::shared_ptr<Backend> host = host_->split(collective, color, key);
    ncclComm_t part = nullptr;
    nccl_check(ncclCommSplit(communicator_->get(), color, key, &part, nullptr), "ncclCommSplit");
    return std::make_shared<Nccl>(membership_, std::move(host), watch_, part, gpu_);
  }

  Window allocate(const Collective& collective, int64_t elements) override {
    send_all_kept();
    if (size() > 1) host_->barrier(collective).wait();
    return {at::zeros({elements}, at::TensorOptions().dtype(collective.dtype).device(device())), {}};
  }

  Work all_reduce(const Collective& collective, at::Tensor& tensor) override {
    return enqueue(collective, [&](cudaStream_t stream) {
      return ncclAllReduce(tensor.const_data_ptr(), tensor.data_ptr(), count_of(tensor), type_of(collective.dtype),
                           operation_of(collective.reduce), communicator_->get(), stream);
    });
  }

  Work all_gather(const Collective& collective, const at::Tensor& shard, at::Tensor& full) override {
    return enqueue(collective, [&](cudaStream_t stream) {
      return ncclAllGather(shard.const_data_ptr(), full.data_ptr(), count_of(shard), type_of(collective.dtype),
                           communicator_->get(), stream);
    });
  }

  Work reduce_scatter(const Collective& collective, const at::Tensor& full, at::Tensor& shard) override {
    at::Tensor sum = collective.accumulate ? at::empty_like(shard) : shard;
    Work work = enqueue(collective, [&](cudaStream_t stream) {
      return ncclReduceScatter(full.const_data_ptr(), sum.data_ptr(), count_of(shard), type_of(collective.dtype),
                               operation_of(collective.reduce), communicator_->get(), stream);
    });
    if (!collective.accumulate) return work;
    return then(std::move(work), [shard, sum]() mutable { shard.add_(sum); });
  }

  Work all_to_all(const Collective& collective, const at::Tensor& input, at::Tensor& output) override {
    auto slice = input.nbytes() / static_cast<size_t>(size());
    auto* from = static_cast<const char*>(input.const_data_ptr());
    auto* to = static_cast<char*>(output.data_ptr());
    return enqueue(collective, [&](cudaStream_t stream) {
      ncclGroupStart();
      for (size_t other = 0; other < static_cast<size_t>(size()); ++other) {
        ncclSend(from + other * slice, slice, ncclUint8, static_cast<int>(other), communicator_->get(), stream);
        ncclRecv(to + other * slice, slice, ncclUint8, static_cast<int>(other), communicator_->get(), stream);
      }
      return ncclGroupEnd();
    });
  }

  Work broadcast(const Collective& collective, at::Tensor& tensor) override {
    return enqueue(collective, [&](cudaStream_t stream) {
      return ncclBroadcast(tensor.const_data_ptr(), tensor.data_ptr(), count_of(tensor), type_of(collective.dtype),
                           collective.root, communicator_->get(), stream);
    });
  }

  /// NCCL runs the operations of a communicator one after the other: two ranks that both send before they receive would
  /// wait for each other. A message is therefore kept until this rank receives one, and goes with that; or until
  /// something else is asked of the group.
  Work send(const Collective& collective, const at::Tensor& tensor) override {
    auto message = std::make_shared<Message>(tensor, collective.root, agree_on_message(collective));
    kept_.push_back(message);
    return Work([this, message, signature = Signature::of(collective)] {
      message->agreement.wait();
      while (!message->sent) send_kept();
      watch_->add(message->sent, communicator_, signature);
      message->sent->hold_back(current_stream());
    });
  }

  Work recv(const Collective& collective, at::Tensor& tensor) override {
    agree_on_message(collective).wait();
    std::shared_ptr<Message> ours = take_kept();
    auto done = on_stream([&](cudaStream_t stream) {
      ncclGroupStart();
      if (ours) push(*ours, stream);
      ncclRecv(tensor.data_ptr(), tensor.nbytes(), ncclUint8, collective.root, communicator_->get(), stream);
      return ncclGroupEnd();
    });
    if (ours) ours->sent = done;
    return work_of(done, collective);
  }

  Work barrier(const Collective& collective) override {
    send_all_kept();
    cuda_check(cudaStreamSynchronize(current_stream()), "cudaStreamSynchronize");
    return host_->barrier(collective);
  }

 private:
  static size_t count_of(const at::Tensor& tensor) { return static_cast<size_t>(tensor.numel()); }
  cudaStream_t current_stream() const {
    return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(gpu_)).stream();
  }

  /// A message that this rank sends.
  struct Message {
    Message(at::Tensor data, int receiver, Work agreed)
        : tensor(std::move(data)), to(receiver), agreement(std::move(agreed)) {}
    at::Tensor tensor;
    int to;
    Work agreement;
    std::shared_ptr<Event> sent;  ///< once it is on the stream
  };

  /// In checked mode both sides compare what they send and expect, over the host.
  Work agree_on_message(const Collective& collective) {
    if (!membership_->checked) return {};
    at::Tensor nothing = at::empty({0}, at::kByte);
    return collective.op == Op::send ? host_->send(collective, nothing) : host_->recv(collective, nothing);
  }

  ncclResult_t push(const Message& message, cudaStream_t stream) {
    const at::Tensor& tensor = message.tensor;
    return ncclSend(tensor.const_data_ptr(), tensor.nbytes(), ncclUint8, message.to, communicator_->get(), stream);
  }
  std::shared_ptr<Message> take_kept() {
    if (kept_.empty()) return nullptr;
    std::shared_ptr<Message> first = std::move(kept_.front());
    kept_.pop_front();
    return first;
  }
  void send_kept() {
    std::shared_ptr<Message> message = take_kept();
    message->sent = on_stream([&](cudaStream_t stream) { return push(*message, stream); });
  }
  void send_all_kept() {
    while (!kept_.empty()) send_kept();
  }

  /// A collective: all ranks compare what they are about to do, then the GPU does it.
  template <class CallNccl>
  Work enqueue(const Collective& collective, const CallNccl& call) {
    send_all_kept();
    if (membership_->checked) host_->barrier(collective).wait();  // compares signatures; see Control
    return work_of(on_stream(call), collective);
  }

  /// Puts `call` on the group's stream, behind what the current stream has done so far. Gives the event of its end.
  template <class CallNccl>
  std::shared_ptr<Event> on_stream(const CallNccl& call) {
    if (membership_->failure->happened()) throw membership_->failure->error();
    c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(gpu_));
    Event ready;
    ready.record(current_stream());
    ready.hold_back(stream_.stream());
    nccl_check(call(stream_.stream()), "NCCL");
    auto done = std::make_shared<Event>();
    done->record(stream_.stream());
    return done;
  }

  /// Its wait lets the current stream go on after `done`; the host goes on at once.
  Work work_of(const std::shared_ptr<Event>& done, const Collective& collective) {
    watch_->add(done, communicator_, Signature::of(collective));
    return Work([this, done] { done->hold_back(current_stream()); });
  }

  std::shared_ptr<Backend> host_;
  std::shared_ptr<NcclWatch> watch_;
  std::shared_ptr<NcclCommunicator> communicator_;
  int gpu_;
  c10::cuda::CUDAStream stream_;
  std::deque<std::shared_ptr<Message>> kept_;
};

/// Operators on a GPU give the same bits in every run, as those on processors do.
void fix_order_of_sums() {
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // cuBLAS's condition; before its first use
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

/// NCCL takes ranks for neighbours of one machine, which it refuses on one GPU, unless their names of it differ.
void share_gpu(int local_rank) {
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  ::setenv("NCCL_HOSTID", fmt::format("{}-{}", host, local_rank).c_str(), /*overwrite=*/0);
  EC_LOG(warning, "several ranks share one GPU: they are right, and slow");
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
  fix_order_of_sums();
  if (world.local_size > gpus) share_gpu(world.local_rank);
  int gpu = world.local_rank % gpus;  // Slurm may show each rank its own GPU alone
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(gpu));
  // All connections now, while every rank is known to be here: a collective that still had to connect would hold its
  // host up for a rank that does not come.
  ::setenv("NCCL_RUNTIME_CONNECT", "0", /*overwrite=*/0);
  ncclUniqueId id{};
  if (world.rank == 0) nccl_check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  mpi_check(MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD), "MPI_Bcast");
  ncclComm_t comm = nullptr;
  nccl_check(ncclCommInitRank(&comm, world.size, id, world.rank), "ncclCommInitRank");
  std::shared_ptr<Backend> host = make_mpi(membership, /*ranks_per_node=*/0);
  auto watch = std::make_shared<NcclWatch>(membership, gpu);
  return std::make_shared<Nccl>(std::move(membership), std::move(host), std::move(watch), comm, gpu);
}

}  // namespace echelon
