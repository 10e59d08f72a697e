// What a rank leaves behind, or somebody in its place: the ledger, its progress, its report.
#include "comm/ledger/ledger.h"

#include "cluster/base/files.h"
#include "comm/ledger/rank_progress.h"
#include "launch/options/rank_status.h"
#include "tests/cluster/testing.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

std::string good() {
  TemporaryFolder folder;
  {
    Ledger ledger(folder.at("ledger"));
    ledger.leave(ledger.enter({1, "world", "all_reduce", "gradient", "float32", 4, 16}));
    ledger.enter({2, "world", "barrier", "", "", 0, 0});
  }
  return contents(folder.at("ledger"));
}

std::string changed(size_t at, const std::string& bytes) { return good().replace(at, bytes.size(), bytes); }

std::vector<Attack> attacks() {
  std::string whole = good();
  return {{"empty", "is not a ledger", ""},
          {"magic alone", "is not a ledger", whole.substr(0, 8)},
          {"a byte short", "is not a ledger", whole.substr(0, whole.size() - 1)},
          {"zeros", "is not a ledger", std::string(whole.size(), '\0')},
          {"other magic", "is not a ledger", changed(0, "ECLEDGE2")},
          {"capacity 0", "is not a ledger", changed(8, std::string(8, '\0'))},
          {"capacity of 2^64 - 1", "is not a ledger", changed(8, std::string(8, '\xff'))},
          {"count below 0", "is not a ledger", changed(16, std::string(8, '\xff'))}};
}

void read(const std::string& bytes) {
  static TemporaryFolder folder("/dev/shm");
  for (const char* name : {"rank-00000.progress", "rank-00000.status", "ledger.bin"}) {
    std::FILE* file = std::fopen(folder.at(name).c_str(), "w");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
  }
  read_progress(folder.at("rank-00000.progress"));
  read_rank_reports(folder.path());
  for (const LedgerEntry& entry : read_ledger(folder.at("ledger.bin"), Ledger::capacity)) {
    std::string text = entry.text();
    same(text, printable(text), "a collective");
  }
}

}  // namespace

Reader ledger_reader() {
  std::string many = changed(16, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8));
  return {"ledger", 5, "ledger.bin", read, attacks(), {good(), many}};
}

}  // namespace echelon::hostile
