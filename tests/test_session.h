// The session that the test program has joined.
#pragma once

#include "comm/session.h"

namespace echelon::testing {

/// Of all ranks under mpirun, else of this process alone; over the backend that ECHELON_TEST_BACKEND names, as nccl.
const Session& session();

}  // namespace echelon::testing
