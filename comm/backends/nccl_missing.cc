// The place of the NCCL backend in a build without it.
#include "cluster/base/error.h"
#include "comm/backends/backend.h"

namespace echelon {

bool nccl_usable() { return false; }

void require_nccl() {
  throw Error::recipe("backend", "this build has no NCCL")
      .remedy("install a CUDA build of the torch wheel (it brings nvidia-nccl) and build again, or use backend mpi");
}

std::shared_ptr<Backend> make_nccl(std::shared_ptr<Membership>, const MpiWorld&) {
  require_nccl();
  return nullptr;
}

}  // namespace echelon
