// roll_backs.json: where a run went back to a checkpoint from before its numbers went wrong, and which samples it left
// out for that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cluster/base/json.h"

namespace echelon {

inline constexpr const char* kRollBacksFile = "roll_backs.json";

struct RollBack {
  int64_t from_step = 0;  ///< whose numbers were at fault
  int64_t to_step = 0;    ///< of the checkpoint that it went on from
  std::string reason;
  int64_t first_sample = 0, samples = 0;  ///< left out: positions in the order of the data, from 0

  /// Where the data go on, with step to_step + 1.
  int64_t next_sample() const { return first_sample + samples; }
};

/// In the order of time. They decide which samples a step sees: the position in the data never goes back, so no sample
/// is seen twice because of a roll-back, and those left out are counted here.
class RollBacks {
 public:
  RollBacks() = default;
  /// Of a run folder; none when it has no such file. Errors: Error::storage.
  static RollBacks read(const std::string& run_folder);
  /// Errors: Error::storage with `place`.
  static RollBacks parse(std::string_view text, const std::string& place);
  std::string text() const;

  const std::vector<RollBack>& all() const { return all_; }
  /// Position in the data at which `step` begins, `batch` samples a step. The latest roll-back that it lies behind
  /// decides: a checkpoint from before that one leads there again on the same way.
  int64_t first_sample(int64_t step, int64_t batch) const;
  /// The one that `step` is the first step behind; null: none.
  const RollBack* before(int64_t step) const;
  /// Of the `committed` steps, rising: the newest from before `fault`. Where the last roll-back went to that one and
  /// nothing was committed since, the one before it, if there is one: what it holds may be the cause.
  std::optional<int64_t> step_to_go_back_to(const std::vector<int64_t>& committed, int64_t fault) const;
  void add(int64_t from_step, int64_t to_step, const std::string& reason, int64_t batch);

 private:
  /// The latest that `step` lies behind; null: none.
  const RollBack* behind(int64_t step) const;

  std::vector<RollBack> all_;
};

Json to_json(const RollBack& roll_back);

}  // namespace echelon
