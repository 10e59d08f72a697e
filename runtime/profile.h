// A profile of one step: what a rank did when.
#pragma once

#include <functional>
#include <string>

#include "comm/group.h"

namespace echelon {

/// Records what this thread does in `action`, and then writes it to `path`: a Chrome trace, which chrome://tracing and
/// ui.perfetto.dev open. Operators are named by the framework; spans of our own are those of RECORD_USER_SCOPE whose
/// names begin with a track: "phase: ", "unit: ", "collective: " or "kernel: ". Times count from one moment for all
/// `ranks`, as far as the clocks of their machines agree. Collective. Errors: Error::storage, and those of `action`.
void record_profile(const Group& ranks, const std::string& path, const std::function<void()>& action);

}  // namespace echelon
