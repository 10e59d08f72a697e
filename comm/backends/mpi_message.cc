#include "comm/backends/mpi_message.h"

#include <algorithm>

namespace echelon {

namespace {

constexpr int64_t kPieceBytes = int64_t{1} << 30;   // MPI counts in int

// A message from a to b, and the receiver's word on it, which goes the other way, never share a tag and a direction.
constexpr int kSenderTag = 2, kReceiverTag = 3;
int data_tag(const Signature& signature) { return 16 + static_cast<int>(signature.sequence % 16'384); }

}  // namespace

MpiMessage::MpiMessage(MPI_Comm comm, const Collective& collective, int rank, std::byte* data, int64_t bytes)
    : comm_(comm), mine_(Signature::of(collective)), rank_(rank), data_(data), bytes_(bytes) {
  int out_tag = sends() ? kSenderTag : kReceiverTag;
  int in_tag = sends() ? kReceiverTag : kSenderTag;
  int other = collective.root;
  mpi_check(MPI_Irecv(&theirs_, sizeof theirs_, MPI_BYTE, other, in_tag, comm_, header_in_.out()), "MPI_Irecv");
  mpi_check(MPI_Isend(&mine_, sizeof mine_, MPI_BYTE, other, out_tag, comm_, header_out_.out()), "MPI_Isend");
}

bool MpiMessage::advance() {
  if (!compared_) {
    if (!header_in_.finished() || !header_out_.finished()) return false;
    if (!same_message(mine_, theirs_)) throw disagreement(rank_, mine_, mine_.root, theirs_);
    compared_ = true;
    start_data();
  }
  return std::all_of(data_requests_.begin(), data_requests_.end(), [](Request& piece) { return piece.finished(); });
}

void MpiMessage::start_data() {
  for (int64_t begin = 0; begin < bytes_; begin += kPieceBytes) {
    auto length = static_cast<int>(std::min(kPieceBytes, bytes_ - begin));
    Request& piece = data_requests_.emplace_back(!sends());
    int code = sends() ? MPI_Isend(data_ + begin, length, MPI_BYTE, mine_.root, data_tag(mine_), comm_, piece.out())
                       : MPI_Irecv(data_ + begin, length, MPI_BYTE, mine_.root, data_tag(mine_), comm_, piece.out());
    mpi_check(code, "MPI_Isend, MPI_Irecv");
  }
}

std::string MpiMessage::waits_for() const {
  return fmt::format("rank {} to meet rank {} in {}", mine_.root, rank_, mine_.text());
}

}  // namespace echelon
