// Whether ranks that failed are started again, when, and from which checkpoint.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace echelon {

/// How one attempt of a job's ranks ended, and what it left.
struct Attempt {
  bool may_pass = false;     ///< the cause may be gone next time: a rank, node or link failed
  bool started = true;       ///< some rank came to life
  std::string signature;     ///< what failed and which rank: equal for the same failure
  int64_t newest_step = -1;  ///< of the committed checkpoints; -1: none
  bool has_earlier = false;  ///< a checkpoint before that one exists
};

struct Decision {
  bool restart = false;
  double wait_seconds = 0;
  int64_t before_step = 0;  ///< go on from a checkpoint before this one; 0: from the newest
  std::string reason;       ///< why there is no restart; empty where none was to be expected
};

/// A state machine without clock or processes of its own: attempts in, decisions out; the same `seed`, the same waits.
/// - Restarts are few: `most_restarts` of them, a budget that only a newly committed step refills.
/// - Each waits longer: 1, 2, 4 … 60 s, less up to a quarter, so that jobs that failed together do not return together.
/// - Three attempts in a row without a new step end the job.
/// - The same failure twice behind one checkpoint: that checkpoint may be the cause, the next attempt goes on from the
///   one before. Three times: the end.
class RestartPolicy {
 public:
  RestartPolicy(int most_restarts, uint64_t seed) : most_restarts_(most_restarts), random_(seed) {}

  /// The step that the folder held before the first attempt.
  void begin(int64_t newest_step) { best_step_ = newest_step; }
  Decision after(const Attempt& attempt);

 private:
  void count(const Attempt& attempt);
  std::string reason_to_stop(const Attempt& attempt) const;
  double next_wait();

  int most_restarts_;
  std::mt19937_64 random_;
  int64_t best_step_ = -1;    // the highest that was ever committed
  int restarts_ = 0;          // since then
  int attempts_in_vain_ = 0;  // in a row
  int times_ = 0;             // that the last failure was seen behind the present best step
  std::string last_signature_;
  bool ever_started_ = false;
};

}  // namespace echelon
