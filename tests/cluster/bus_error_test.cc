#include "cluster/base/bus_error.h"

#include <csignal>

#include <unistd.h>

#include "tests/cluster/testing.h"

namespace echelon {
namespace {

class BusError : public testing::Test {
 protected:
  BusError() { write_file_atomically(path_, std::string(3 * 4096, 'a')); }
  /// Reads the last byte of the file when it has been cut to nothing.
  void read_what_is_gone(Error::Kind kind) const {
    name_file_on_bus_error();
    MappedFile file = MappedFile::open(path_, kind), moved = std::move(file);
    if (::truncate(path_.c_str(), 0) != 0) std::abort();
    volatile auto byte = moved.bytes().back();
    (void)byte;
  }
  TemporaryFolder folder_;
  std::string path_ = folder_.at("model.safetensors");
};

TEST_F(BusError, InAMappedFileNamesIt) {
  EXPECT_EXIT(read_what_is_gone(Error::Kind::input), testing::ExitedWithCode(4),
              "echelon: input: .*model.safetensors: CHANGED: file was cut short");
  write_file_atomically(path_, std::string(4096, 'a'));
  EXPECT_EXIT(read_what_is_gone(Error::Kind::storage), testing::ExitedWithCode(5), "echelon: storage: ");
}

TEST_F(BusError, ElsewhereIsTheSignal) {
  EXPECT_EXIT(
      {
        name_file_on_bus_error();
        std::raise(SIGBUS);
        std::raise(SIGBUS);
      },
      testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace echelon
