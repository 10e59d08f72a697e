// Core files hold what a process holds: weights, text, and its environment with every token in it.
#pragma once

namespace echelon {

/// Sets the limit of core files to 0, for this process and those it starts, unless ECHELON_CORE_DUMPS is set.
void leave_no_core();

}  // namespace echelon
