// `echelon doctor`: what this machine has and lacks for training.
#pragma once

#include <string>

#include "launch/options/installation.h"

namespace echelon {

struct Finding {
  enum class State { ok, warning, missing };
  std::string subject;  ///< "MPI"
  State state = State::ok;
  std::string detail;  ///< version and path, or why it is not usable and what to do
};

struct Diagnosis {
  std::vector<Finding> findings;
  bool can_train = true;
};

Diagnosis diagnose(const Installation& installation);
std::string diagnosis_text(const Diagnosis& diagnosis, bool json);

}  // namespace echelon
