// Ranks as processes: who sits on this node shares memory, who does not is reached through MPI.
#include <sched.h>

#include <cstring>

#include "cluster/base/log.h"
#include "comm/backends/backend.h"
#include "comm/backends/mpi_calls.h"
#include "comm/backends/mpi_network.h"
#include "comm/backends/mpi_nodes.h"
#include "comm/backends/shared_memory.h"

namespace echelon {

namespace {

/// MPI between MPI_Init and MPI_Finalize. There is one MPI in a process, whatever a program makes of it.
class MpiRuntime {
 public:
  MpiRuntime(int& argc, char**& argv) {
    int given = 0;
    if (MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &given) != MPI_SUCCESS) {
      throw Error::comm("MPI_Init_thread", "MPI does not start");
    }
    // Backward of GPU nodes runs on threads of the autograd engine.
    if (given < MPI_THREAD_SERIALIZED) throw Error::comm("MPI_Init_thread", "this MPI supports no threads");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  }
  ~MpiRuntime() {
    if (!abandoned) MPI_Finalize();
  }
  bool abandoned = false;
};

std::weak_ptr<MpiRuntime>& runtime() {
  static std::weak_ptr<MpiRuntime> runtime;
  return runtime;
}

/// True when the ranks of `node` have fewer cores between them than they are.
bool more_ranks_than_cores(const Communicator& node) {
  cpu_set_t mine, all;
  CPU_ZERO(&mine);
  CPU_ZERO(&all);
  ::sched_getaffinity(0, sizeof mine, &mine);
  mpi_check(MPI_Allreduce(&mine, &all, sizeof mine, MPI_BYTE, MPI_BOR, node.get()), "MPI_Allreduce");
  return node.size() > CPU_COUNT(&all);
}

bool on_all(const Communicator& communicator, bool here) {
  int mine = here ? 1 : 0, all = 0;
  mpi_check(MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MIN, communicator.get()), "MPI_Allreduce");
  return all != 0;
}

/// The ranks of `communicator` that sit on this one's node.
Communicator node_of(const Communicator& communicator, int world_rank, int ranks_per_node) {
  return ranks_per_node == 0 ? communicator.of_node()
                             : communicator.split(world_rank / ranks_per_node, communicator.rank());
}

/// Whether every node holds as many ranks, and neighbours. Collective.
bool neighbours_alike(const Communicator& communicator, const Communicator& node) {
  int first = communicator.rank() - node.rank(), firsts = first, size = node.size(), most = 0;
  mpi_check(MPI_Bcast(&firsts, 1, MPI_INT, 0, node.get()), "MPI_Bcast");
  mpi_check(MPI_Allreduce(&size, &most, 1, MPI_INT, MPI_MAX, communicator.get()), "MPI_Allreduce");
  return on_all(communicator, size == most && first == firsts && first % size == 0);
}

/// The ranks of one node over memory of their own; nothing, and a warning, where they cannot reach each other's.
std::shared_ptr<SharedMemory> share_memory_of(const std::shared_ptr<Membership>& membership, const Communicator& node) {
  int rank = node.rank(), size = node.size();
  std::shared_ptr<MemorySource> source = memfd_memory();
  int64_t bytes = SharedMemory::page_bytes(size);
  uint64_t ticket = 0;
  NodeMemory page;
  auto attempt = [&](const auto& action) {
    try {
      action();
    } catch (const Error& error) {
      EC_LOG(warning, "ranks of this node use MPI instead of common memory, which is slower: {}", error.what());
    }
  };
  if (rank == 0) attempt([&] { page = source->make(bytes, ticket); });
  mpi_check(MPI_Bcast(&ticket, 1, MPI_UINT64_T, 0, node.get()), "MPI_Bcast");
  if (rank != 0 && ticket != 0) attempt([&] { page = source->open(bytes, ticket); });
  int have = page ? 1 : 0, all_have = 0;
  mpi_check(MPI_Allreduce(&have, &all_have, 1, MPI_INT, MPI_MIN, node.get()), "MPI_Allreduce");
  if (rank == 0 && ticket != 0) source->close(ticket);
  if (all_have == 0) return nullptr;
  return std::make_shared<SharedMemory>(membership, std::move(source), std::move(page), rank, size);
}

}  // namespace

std::shared_ptr<Backend> make_mpi_group(std::shared_ptr<Membership> membership, Communicator communicator,
                                        int ranks_per_node) {
  if (communicator.size() == 1) return make_self(std::move(membership));
  Communicator node = node_of(communicator, membership->world_rank, ranks_per_node);
  bool alike = neighbours_alike(communicator, node);
  std::shared_ptr<SharedMemory> shared;
  if (alike && node.size() > 1) shared = share_memory_of(membership, node);
  if (!on_all(communicator, shared != nullptr)) {
    return std::make_shared<MpiNetwork>(std::move(membership), std::move(communicator), ranks_per_node);
  }
  if (node.size() == communicator.size()) return shared;
  Communicator across = communicator.split(node.rank(), communicator.rank());
  auto network = std::make_shared<MpiNetwork>(membership, std::move(across), ranks_per_node, /*met=*/true);
  return std::make_shared<MpiNodes>(std::move(membership), std::move(communicator), ranks_per_node, std::move(shared),
                                    std::move(network));
}

MpiWorld start_mpi(int& argc, char**& argv) {
  auto running = runtime().lock();
  if (!running) {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized != 0)
      throw Error::comm("MPI_Init_thread", "this process has left its job, and MPI cannot start twice");
    running = std::make_shared<MpiRuntime>(argc, argv);
    runtime() = running;
  }
  Communicator world = Communicator::copy_of(MPI_COMM_WORLD);
  Communicator node = world.of_node();
  return {std::move(running), world.rank(), world.size(), node.rank(), node.size()};
}

std::shared_ptr<Backend> make_mpi(std::shared_ptr<Membership> membership, int ranks_per_node) {
  Communicator world = Communicator::copy_of(MPI_COMM_WORLD);
  membership->crowded = more_ranks_than_cores(world.of_node());
  auto ranks = make_mpi_group(membership, std::move(world), ranks_per_node);
  if (auto* shared = dynamic_cast<SharedMemory*>(ranks.get())) membership->failure = shared->failure();
  return ranks;
}

void abort_mpi(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

void abandon_mpi() {
  if (auto running = runtime().lock()) running->abandoned = true;
}

}  // namespace echelon
