#include "cluster/base/indexed_tokens.h"

#include <cstring>
#include <functional>

#include "tests/cluster/testing.h"

namespace echelon {
namespace {

const std::string golden_index = from_hex(
    "4d4d49444944580000010000000000000008020000000000000003000000000000000300000001000000000000000000000006000000000000"
    "00"
    "000000000000000001000000000000000200000000000000");
const std::string golden_bin = from_hex("0100020003000400");

class IndexedTokensTest : public testing::Test {
 protected:
  IndexedTokens open(const std::string& index, const std::string& bin) {
    write_file_atomically(folder_.at("corpus.idx"), index);
    write_file_atomically(folder_.at("corpus.bin"), bin);
    return IndexedTokens::open(folder_.at("corpus"));
  }
  /// The golden index with some bytes replaced.
  template <class T>
  std::string with(size_t at, T value) {
    std::string index = golden_index;
    std::memcpy(index.data() + at, &value, sizeof value);
    return index;
  }
  TemporaryFolder folder_;
};

TEST_F(IndexedTokensTest, ReadsTheGoldenFile) {
  IndexedTokens tokens = open(golden_index, golden_bin);
  EXPECT_EQ(tokens.documents(), 2);
  EXPECT_EQ(tokens.tokens(), 4);
  EXPECT_EQ(tokens.token_type(), "uint16");
  EXPECT_EQ(tokens.document_begin(1), 3);
  EXPECT_EQ(tokens.document_begin(2), 4);
  int64_t ids[3] = {};
  tokens.read(1, 3, ids);
  EXPECT_EQ(ids[0], 2);
  EXPECT_EQ(ids[2], 4);
  EXPECT_EQ(tokens.range(), (std::pair<int64_t, int64_t>(1, 4)));
}

TEST_F(IndexedTokensTest, ReadsFourByteTokensAndKeepsTheSign) {
  std::string index = with<uint8_t>(17, 4), bin = from_hex("0000010002000000ffffffff04000000");
  int64_t offset = 12;
  std::memcpy(index.data() + 50, &offset, 8);
  int64_t ids[4];
  open(index, bin).read(0, 4, ids);
  EXPECT_EQ(ids[0], 65536);
  EXPECT_EQ(ids[2], -1);
}

TEST_F(IndexedTokensTest, ReadsAnEmptyCorpus) {
  std::string index = golden_index.substr(0, 18) + from_hex("00000000000000000100000000000000") + std::string(8, '\0');
  EXPECT_EQ(open(index, "").tokens(), 0);
}

TEST_F(IndexedTokensTest, AcceptsModesThatAreAllText) {
  EXPECT_EQ(open(golden_index + std::string(2, '\0'), golden_bin).tokens(), 4);
  EXPECT_REFUSED(open(golden_index + std::string("\0\1", 2), golden_bin), input, "not text");
}

TEST_F(IndexedTokensTest, RefusesEveryLie) {
  struct Lie {
    const char* sentence;
    std::string index, bin;
  };
  const std::vector<Lie> lies = {
      {"too short for a header", golden_index.substr(0, 20), golden_bin},
      {"wrong first bytes", with<char>(0, 'X'), golden_bin},
      {"unknown version: got 2", with<uint64_t>(9, 2), golden_bin},
      {"unknown token type: got 9", with<uint8_t>(17, 9), golden_bin},
      {"unknown token type: got 0", with<uint8_t>(17, 0), golden_bin},
      {"floating-point", with<uint8_t>(17, 6), golden_bin},
      {"counts are larger than the file", with<uint64_t>(18, uint64_t{1} << 62), golden_bin},
      {"counts are larger than the file", with<uint64_t>(18, 0x1555555555555556), golden_bin},  // times 12 wraps to 8
      {"counts are larger than the file", with<uint64_t>(26, uint64_t{1} << 61), golden_bin},   // times 8 wraps to 0
      {"file size does not fit", golden_index + "xxxxxxxx", golden_bin},
      {"larger than the file", golden_index.substr(0, 81), golden_bin},
      {"negative length", with<int32_t>(34, -1), golden_bin},
      {"sequence 0 does not begin", with<int64_t>(42, -2), golden_bin},
      {"sequence 1 does not begin", with<int64_t>(50, 4), golden_bin},
      {"ends beyond", with<int32_t>(34, 0x7fffffff), golden_bin},
      {"ends beyond", golden_index, golden_bin.substr(0, 6)},
      {"do not fill", golden_index, golden_bin + "xx"},
      {"first document does not begin", with<int64_t>(58, 1), golden_bin},
      {"begins before", with<int64_t>(66, 3), golden_bin},
      {"last document does not end", with<int64_t>(74, 1), golden_bin},
  };
  for (const Lie& lie : lies) {
    EXPECT_EQ(not_refused([&] { open(lie.index, lie.bin); }, Error::Kind::input, lie.sentence), "") << lie.sentence;
  }
}

TEST_F(IndexedTokensTest, RefusesTokensOutOfRange) {
  IndexedTokens tokens = open(golden_index, golden_bin);
  int64_t ids[8];
  EXPECT_REFUSED(tokens.read(2, 3, ids), internal, "tokens out of range");
  EXPECT_REFUSED(tokens.read(-1, 1, ids), internal, "tokens out of range");
  EXPECT_REFUSED(tokens.read(1, INT64_MAX, ids), internal, "tokens out of range");
}

TEST_F(IndexedTokensTest, NamesAMissingFile) {
  EXPECT_REFUSED(IndexedTokens::open(folder_.at("none")), input, "none.idx: cannot open");
}

}  // namespace
}  // namespace echelon
