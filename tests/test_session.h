// The session that the test program has joined.
#pragma once

#include "comm/session.h"

namespace echelon::testing {

/// Of all ranks under mpirun, else of this process alone.
const Session& session();

}  // namespace echelon::testing
