// One message between two ranks over MPI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "comm/backends/membership.h"
#include "comm/backends/mpi_calls.h"
#include "comm/backends/signature.h"

namespace echelon {

/// Both sides send each other what they are about to do, compare, and only then move data.
class MpiMessage final : public Transfer {
 public:
  /// `data`: `bytes` to be sent to, or received from, rank `collective.root`.
  MpiMessage(MPI_Comm comm, const Collective& collective, int rank, std::byte* data, int64_t bytes);

  bool advance() override;
  std::string waits_for() const override;

 private:
  bool sends() const { return mine_.op == Op::send; }
  void start_data();

  MPI_Comm comm_;
  Signature mine_, theirs_{};
  int rank_;
  std::byte* data_;
  int64_t bytes_;
  Request header_out_, header_in_{true};
  std::vector<Request> data_requests_;
  bool compared_ = false;
};

}  // namespace echelon
