#include "comm/session.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "cluster/base/error.h"
#include "cluster/base/log.h"
#include "comm/backends/backend.h"

namespace echelon {

namespace {

const char* environment(const char* name) { return std::getenv(name); }

bool under_mpirun() { return environment("OMPI_COMM_WORLD_SIZE") != nullptr; }

bool under_pmi() {
  for (const char* name : {"PMIX_RANK", "PMI_RANK", "PMI_FD"}) {
    if (environment(name) != nullptr) return true;
  }
  return false;
}

/// Tasks that srun started this program as; 1 where Slurm is not at work.
int slurm_tasks() {
  for (const char* name : {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}) {
    if (const char* tasks = environment(name)) return std::atoi(tasks);
  }
  return 1;
}

/// Slurm started several tasks that do not know of each other: each would train on its own and overwrite the others.
/// Inside mpirun Slurm's count is that of the allocation and says nothing.
void refuse_independent_copies(bool connected) {
  int tasks = slurm_tasks();
  if (tasks <= 1 || connected || under_mpirun()) return;
  throw Error::recipe("Slurm", fmt::format("{} independent copies were started", tasks)).remedy("use srun --mpi=pmix");
}

std::string chosen_backend(const std::string& asked) {
  static constexpr const char* known[] = {"auto", "self", "thread", "mpi", "nccl"};
  if (std::find(std::begin(known), std::end(known), asked) == std::end(known)) {
    throw Error::recipe("backend", "unknown backend").got(asked).expected("auto, self, mpi or nccl");
  }
  if (asked == "thread") {
    throw Error::recipe("backend", "ranks that are threads are not started by a launcher")
        .expected("auto, self, mpi or nccl");
  }
  if (asked != "auto") return asked;
  if (nccl_usable()) return "nccl";
  return under_mpirun() || under_pmi() ? "mpi" : "self";
}

std::string ledger_of(std::string path, int rank) {
  if (auto at = path.find("{rank}"); at != std::string::npos) path.replace(at, 6, fmt::format("{:05}", rank));
  return path;
}

std::shared_ptr<Membership> join_as(int rank, const SessionOptions& options) {
  return std::make_shared<Membership>(rank, options.timeout_seconds, options.checked,
                                      ledger_of(options.ledger_path, rank));
}

int cores_of_this_process() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  return ::sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

}  // namespace

struct Session::State {
  std::shared_ptr<Membership> membership;
  Group world;
  std::string backend;
  int local_rank = 0, local_size = 1;
};

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;

Session::~Session() {
  if (!state_) return;
  // An error is on its way up: leaving in order would wait for ranks that wait for this one.
  if (std::uncaught_exceptions() > 0) {
    state_->membership->failure->mark(state_->membership->world_rank, "left the job because of an error");
    if (state_->membership->runtime) abandon_mpi();
  }
  state_->membership->lane.close();
}

Session Session::join(int& argc, char**& argv, SessionOptions options) {
  std::string backend = chosen_backend(options.backend);
  refuse_independent_copies(under_pmi());
  if (backend == "self") return alone(std::move(options));
  if (backend == "nccl") require_nccl();  // before MPI starts, which takes half a second
  MpiWorld mpi = start_mpi(argc, argv);
  refuse_independent_copies(mpi.size > 1);
  auto membership = join_as(mpi.rank, options);
  membership->runtime = mpi.runtime;
  auto ranks = backend == "nccl" ? make_nccl(membership, mpi) : make_mpi(membership, options.ranks_per_node);
  return Session(std::make_unique<State>(
      State{membership, Group(std::move(ranks), "world"), backend, mpi.local_rank, mpi.local_size}));
}

Session Session::alone(SessionOptions options) {
  auto membership = join_as(0, options);
  return Session(std::make_unique<State>(State{membership, Group(make_self(membership), "world"), "self"}));
}

const Group& Session::world() const { return state_->world; }
int Session::local_rank() const { return state_->local_rank; }
int Session::local_size() const { return state_->local_size; }
const std::string& Session::backend() const { return state_->backend; }

void Session::abort(int exit_code) {
  state_->membership->failure->mark(state_->membership->world_rank,
                                    fmt::format("ended the job with code {}", exit_code));
  state_->membership->lane.close();
  if (state_->membership->runtime) abort_mpi(exit_code);
  std::_Exit(exit_code);
}

void run_thread_ranks(int ranks, const std::function<void(const Group& world)>& rank_main,
                      const SessionOptions& options) {
  if (ranks < 1) throw Error::usage("run_thread_ranks", fmt::format("{} ranks", ranks)).expected("1 or more");
  std::vector<std::shared_ptr<Membership>> memberships;
  for (int rank = 0; rank < ranks; ++rank) {
    memberships.push_back(join_as(rank, options));
    memberships.back()->crowded = ranks > cores_of_this_process();
  }
  auto backends = make_threads(memberships);
  int threads_now = omp_get_max_threads();
  std::exception_ptr first;  // later ones are its echoes
  std::mutex first_mutex;
  auto fail = [&](int rank, const char* text) {
    std::lock_guard lock(first_mutex);
    if (!first) first = std::current_exception();
    memberships[static_cast<size_t>(rank)]->failure->mark(rank, text);
  };
  auto run = [&](int rank) {
    // A rank's share of the cores, as the launcher deals them to processes.
    omp_set_num_threads(std::clamp(cores_of_this_process() / ranks, 1, threads_now));
    try {
      rank_main(Group(backends[static_cast<size_t>(rank)], "world"));
    } catch (const std::exception& error) {
      fail(rank, error.what());
    } catch (...) {
      fail(rank, "unknown exception");
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace echelon
