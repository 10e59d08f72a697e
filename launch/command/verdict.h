// Why a job ended: the one cause among what ranks, their starter and the system say.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/command/child.h"
#include "launch/command/heartbeats.h"
#include "launch/command/liveness.h"
#include "launch/command/rank_output.h"
#include "launch/options/rank_status.h"

namespace echelon {

struct Verdict {
  int exit_code = 0;
  std::string sentence;   ///< "comm: rank 2: …"; empty when all went well
  int rank = -1;          ///< the one that failed, when it is known
  bool died = false;      ///< it ended without a word
  bool started = false;   ///< some rank came to life
  bool may_pass = false;  ///< a rank, node or link failed: the next attempt may go well
};

struct Evidence {
  Ending ending;  ///< of the starter, or of the one rank
  Starter starter = Starter::direct;
  std::vector<RankReport> reports;
  std::optional<StarterVerdict> starter_says;
  std::string last_sentence;    ///< a rank's own last line
  int stop_signal = 0;          ///< that asked us to stop; 0: nobody did
  bool out_of_memory = false;   ///< the system has just killed a process of this machine for want of memory
  bool killed = false;          ///< we ended the ranks ourselves
  std::vector<int> lost_ranks;  ///< were seen dead on this machine without a report of their end
  std::optional<LostMachine> lost_machine;
  std::optional<Hang> hang;     ///< they were killed because one of them stood still
};

/// A rank's own error comes first (the earliest; communication errors are mostly echoes of another's end and come
/// last), then a rank that a signal ended, then what is left.
Verdict judge(const Evidence& evidence);

/// The exit code for a sentence that starts with the word for its kind; 0 when it does not.
int exit_code_of_sentence(const std::string& sentence);

}  // namespace echelon
