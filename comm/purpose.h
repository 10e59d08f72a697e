// What transfers are for, in words.
#pragma once

#include <array>
#include <string_view>

#include "comm/group.h"

namespace echelon {

constexpr std::array kPurposes{Purpose::gradients, Purpose::parameters, Purpose::activations, Purpose::updates,
                               Purpose::control};

/// "gradients".
constexpr std::string_view name_of(Purpose purpose) {
  constexpr std::array<std::string_view, kPurposes.size()> names{"gradients", "parameters", "activations", "updates",
                                                                 "control"};
  return names[static_cast<size_t>(purpose)];
}

}  // namespace echelon
