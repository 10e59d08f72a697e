// Messages between two ranks that share memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/backends/membership.h"
#include "comm/backends/node_memory.h"
#include "comm/backends/signature.h"

namespace echelon {

/// One mailbox for each ordered pair of ranks: a header and a ring of chunks. A message is whole when its receiver has
/// taken all of it; both sides compare signatures first.
class Mailboxes {
 public:
  Mailboxes(std::byte* area, int rank, int size);
  static int64_t bytes(int size);

  /// Starts to send `bytes` at `data` to rank `collective.root`, which must stay as they are until the Work is done.
  Work send(Membership& membership, Collective collective, const std::byte* data, int64_t bytes);
  Work recv(Membership& membership, Collective collective, std::byte* data, int64_t bytes);

 private:
  struct Box;
  class Sending;
  class Receiving;

  Box& box(int from, int to) const;

  std::byte* area_;
  int rank_, size_;
  std::vector<int64_t> sent_, received_;   // messages so far, by other rank
};

}  // namespace echelon
