// What a group of ranks needs from the wire. Group has checked and numbered everything before it calls.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "comm/backends/membership.h"
#include "comm/backends/signature.h"
#include "comm/group.h"
#include "comm/work.h"

namespace echelon {

/// One rank's end of one group of at least two ranks (a group of one only splits and allocates). Collectives have the
/// semantics that Group documents, tensors are valid, and Collective says what they hold.
class Backend : public std::enable_shared_from_this<Backend> {
 public:
  Backend(std::shared_ptr<Membership> membership, int rank, int size)
      : membership_(std::move(membership)), rank_(rank), size_(size) {}
  virtual ~Backend() = default;

  int rank() const { return rank_; }
  int size() const { return size_; }
  Membership& membership() const { return *membership_; }
  int64_t next_sequence() { return ++sequence_; }

  virtual at::Device device() const { return at::kCPU; }
  virtual std::shared_ptr<Backend> split(const Collective& collective, int color, int key) = 0;
  virtual Window allocate(const Collective& collective, int64_t elements) = 0;
  virtual Work all_reduce(const Collective& collective, at::Tensor& tensor) = 0;
  virtual Work all_gather(const Collective& collective, const at::Tensor& shard, at::Tensor& full) = 0;
  virtual Work reduce_scatter(const Collective& collective, const at::Tensor& full, at::Tensor& shard) = 0;
  virtual Work all_to_all(const Collective& collective, const at::Tensor& input, at::Tensor& output) = 0;
  virtual Work broadcast(const Collective& collective, at::Tensor& tensor) = 0;
  virtual Work send(const Collective& collective, const at::Tensor& tensor) = 0;
  virtual Work recv(const Collective& collective, at::Tensor& tensor) = 0;
  virtual Work barrier(const Collective& collective) = 0;

 protected:
  std::shared_ptr<Membership> membership_;

 private:
  int rank_, size_;
  int64_t sequence_ = 0;
};

/// One rank alone.
std::shared_ptr<Backend> make_self(std::shared_ptr<Membership> membership);
/// Ranks that are threads of this process, each with its own end; they learn of each other's failures.
std::vector<std::shared_ptr<Backend>> make_threads(const std::vector<std::shared_ptr<Membership>>& memberships);

/// The processes that a launcher started.
struct MpiWorld {
  std::shared_ptr<void> runtime;  ///< ends MPI with its last owner
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;
};
/// MPI_Init on first use. Errors: Error::comm.
MpiWorld start_mpi(int& argc, char**& argv);
/// All processes, over memory that they share where they sit on one node, else over MPI. `ranks_per_node` as in
/// SessionOptions.
std::shared_ptr<Backend> make_mpi(std::shared_ptr<Membership> membership, int ranks_per_node);
/// Ends every process of the job at once.
[[noreturn]] void abort_mpi(int exit_code);
/// From now on the end of the process does not wait for the other ranks: this one has failed.
void abandon_mpi();

/// All processes, each with a GPU of its own; on a machine with one GPU they may share it, for tests.
/// Errors: Error::recipe when there are fewer GPUs than ranks.
std::shared_ptr<Backend> make_nccl(std::shared_ptr<Membership> membership, const MpiWorld& world);
/// True when this build has NCCL and a GPU is visible.
bool nccl_usable();
/// Errors: Error::recipe that says how to get NCCL, unless it is usable.
void require_nccl();

}  // namespace echelon
