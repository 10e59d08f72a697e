// What a recipe will need, before anything is allocated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/recipe/recipe.pb.h"

namespace echelon {

/// Bytes of one rank, and bytes that all ranks send in one step. Sources of the formulas: Rajbhandari et al. 2020
/// (ZeRO), Patarasuk and Yuan 2009 (collectives), Korthikanti et al. 2022 (sequence parallel).
struct Plan {
  int64_t parameters = 0;  ///< elements, each tensor once
  int dp = 1, tp = 1, zero = 3;
  int64_t values = 0, gradients = 0, masters = 0, state = 0, exchange = 0;  ///< bytes kept by every rank
  int64_t buckets = 0;   ///< bytes of gradient memory in use during backward
  int64_t saved = 0;     ///< bytes of the copy that a checkpoint is written from, while training goes on
  int64_t gathered = 0;  ///< bytes of the largest gathered Units, where ranks share no memory
  int64_t sent_gradients = 0, sent_parameters = 0, sent_activations = 0;  ///< bytes a step, all ranks
  int replicas = 1;                                                       ///< inside dp
  int64_t sent_updates = 0;  ///< bytes of a step in which replicas that train apart meet, all ranks

  int ranks_per_replica() const { return dp / replicas; }

  int64_t total() const { return values + gradients + masters + state + exchange; }
};

/// Errors: Error::recipe, Error::input.
Plan plan_of(const Recipe& recipe, int ranks);

/// A table for people.
std::string describe(const Plan& plan);

}  // namespace echelon
