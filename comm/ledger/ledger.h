// The record of a rank's last collectives, in a file that survives the rank.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace echelon {

struct LedgerFile;

/// One collective as it stands in the ledger. Names longer than the record holds are cut.
struct LedgerEntry {
  int64_t sequence = 0;         ///< number of the collective within its group (send, recv: within the pair of ranks)
  std::string group, op, name, dtype;
  int64_t count = 0;            ///< elements
  int64_t bytes = 0;            ///< logical bytes sent by this rank
  double entered_seconds = 0;   ///< since 1970
  double left_seconds = 0;      ///< since 1970; 0: the rank was still inside

  /// `all_reduce "gradient norm" of 1 float32 in world (number 17), inside since 12:30:05`
  std::string text() const;
};

/// A ring of the last `capacity` collectives of one rank, written by that rank alone. In a file it is shared with the
/// kernel, so whatever was written is there after the rank was killed. Some 50 ns an entry.
class Ledger {
 public:
  static constexpr int64_t capacity = 256;

  /// Makes or overwrites `path` (mode 0640); empty: in memory. Errors: Error::storage.
  explicit Ledger(const std::string& path = "");
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// What `enter` records; texts are copied.
  struct Entering {
    int64_t sequence;
    std::string_view group, op, name, dtype;
    int64_t count, bytes;
  };
  /// Records that the rank enters a collective. The result is for leave().
  int64_t enter(const Entering& entering);
  /// What the last enter() gave.
  int64_t newest() const;
  /// Records that it has left it, the first time; of an entry that the ring has dropped, nothing. Any thread.
  void leave(int64_t ticket);

  /// The last `entries`, oldest first.
  std::vector<LedgerEntry> last(int64_t entries) const;

 private:
  LedgerFile* file_ = nullptr;
};

/// The last `entries` of a ledger file, oldest first; records that a dying rank left half written are left out.
/// The file is not trusted. Errors: Error::storage when it is missing or is not a ledger.
std::vector<LedgerEntry> read_ledger(const std::string& path, int64_t entries);

}  // namespace echelon
