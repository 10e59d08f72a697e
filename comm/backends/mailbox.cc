#include "comm/backends/mailbox.h"

#include <algorithm>
#include <cstring>

namespace echelon {

namespace {

constexpr int64_t kChunkBytes = 128 << 10;   // half of the ring fits the second-level cache
constexpr int64_t kChunks = 2;               // one is written while the other is read

}  // namespace

struct alignas(64) Mailboxes::Box {
  std::atomic<int64_t> posted;                // messages announced by the sender
  std::atomic<int64_t> written;               // chunks, of all messages together
  Signature sent;
  alignas(64) std::atomic<int64_t> answered;  // messages the receiver has compared
  std::atomic<int64_t> taken;                 // messages the receiver has whole
  std::atomic<int64_t> read;                  // chunks
  std::atomic<int32_t> refused;
  Signature expected;
  alignas(64) std::byte ring[kChunks][kChunkBytes];
};

/// A position in a message that moves through the ring.
struct MessagePart {
  int64_t bytes, done = 0;
  bool whole() const { return done == bytes; }
  int64_t next() const { return std::min(kChunkBytes, bytes - done); }
};

class Mailboxes::Sending final : public Transfer {
 public:
  Sending(Box& box, const Collective& collective, int rank, const std::byte* data, int64_t bytes)
      : box_(box), signature_(Signature::of(collective)), rank_(rank), data_(data), part_{bytes} {}

  bool advance() override {
    if (!announced_ && !announce()) return false;
    if (box_.answered.load(std::memory_order_acquire) < signature_.sequence) return false;
    if (box_.refused.load(std::memory_order_acquire) != 0) {
      throw disagreement(rank_, signature_, signature_.root, box_.expected);
    }
    int64_t written = box_.written.load(std::memory_order_relaxed);
    while (!part_.whole() && written - box_.read.load(std::memory_order_acquire) < kChunks) {
      std::memcpy(box_.ring[written % kChunks], data_ + part_.done, static_cast<size_t>(part_.next()));
      part_.done += part_.next();
      box_.written.store(++written, std::memory_order_release);
    }
    return part_.whole() && box_.taken.load(std::memory_order_acquire) >= signature_.sequence;
  }

  std::string waits_for() const override {
    return fmt::format("rank {} to receive what rank {} sends in {}", signature_.root, rank_, signature_.text());
  }

 private:
  bool announce() {
    if (box_.taken.load(std::memory_order_acquire) < signature_.sequence - 1) return false;   // not our turn
    box_.sent = signature_;
    box_.posted.store(signature_.sequence, std::memory_order_release);
    announced_ = true;
    return true;
  }

  Box& box_;
  Signature signature_;
  int rank_;
  const std::byte* data_;
  MessagePart part_;
  bool announced_ = false;
};

class Mailboxes::Receiving final : public Transfer {
 public:
  Receiving(Box& box, const Collective& collective, int rank, std::byte* data, int64_t bytes)
      : box_(box), signature_(Signature::of(collective)), rank_(rank), data_(data), part_{bytes} {}

  bool advance() override {
    if (!answered_ && !answer()) return false;
    int64_t read = box_.read.load(std::memory_order_relaxed);
    while (!part_.whole() && box_.written.load(std::memory_order_acquire) > read) {
      std::memcpy(data_ + part_.done, box_.ring[read % kChunks], static_cast<size_t>(part_.next()));
      part_.done += part_.next();
      box_.read.store(++read, std::memory_order_release);
    }
    if (part_.whole()) box_.taken.store(signature_.sequence, std::memory_order_release);
    return part_.whole();
  }

  std::string waits_for() const override {
    return fmt::format("rank {} to send what rank {} expects in {}", signature_.root, rank_, signature_.text());
  }

 private:
  bool answer() {
    if (box_.posted.load(std::memory_order_acquire) < signature_.sequence) return false;
    if (box_.taken.load(std::memory_order_relaxed) < signature_.sequence - 1) return false;   // not our turn
    bool same = same_message(box_.sent, signature_);
    box_.expected = signature_;
    if (!same) box_.refused.store(1, std::memory_order_release);
    box_.answered.store(signature_.sequence, std::memory_order_release);
    if (!same) throw disagreement(rank_, signature_, signature_.root, box_.sent);
    answered_ = true;
    return true;
  }

  Box& box_;
  Signature signature_;
  int rank_;
  std::byte* data_;
  MessagePart part_;
  bool answered_ = false;
};

Mailboxes::Mailboxes(std::byte* area, int rank, int size)
    : area_(area), rank_(rank), size_(size), sent_(static_cast<size_t>(size)), received_(static_cast<size_t>(size)) {}

int64_t Mailboxes::bytes(int size) { return static_cast<int64_t>(sizeof(Box)) * size * size; }

Mailboxes::Box& Mailboxes::box(int from, int to) const {
  return reinterpret_cast<Box*>(area_)[static_cast<int64_t>(from) * size_ + to];
}

Work Mailboxes::send(Membership& membership, Collective collective, const std::byte* data, int64_t bytes) {
  collective.sequence = ++sent_[static_cast<size_t>(collective.root)];
  return membership.start(std::make_shared<Sending>(box(rank_, collective.root), collective, rank_, data, bytes));
}

Work Mailboxes::recv(Membership& membership, Collective collective, std::byte* data, int64_t bytes) {
  collective.sequence = ++received_[static_cast<size_t>(collective.root)];
  return membership.start(std::make_shared<Receiving>(box(collective.root, rank_), collective, rank_, data, bytes));
}

}  // namespace echelon
