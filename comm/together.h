// What one rank does for all.
#pragma once

#include <functional>
#include <string>

#include "comm/group.h"

namespace echelon {

/// Runs `action` on rank 0 and gives its text to every rank. When it throws an Error, every rank throws it.
std::string on_first_rank(const Group& world, const std::string& what, const std::function<std::string()>& action);

/// Runs `action` on every rank; when it throws an Error on some, every rank throws the first rank's.
void on_every_rank(const Group& world, const std::string& what, const std::function<void()>& action);

}  // namespace echelon
