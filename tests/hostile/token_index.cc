// .idx and .bin: counts and offsets are somebody's words.
#include <cstdint>
#include <cstring>

#include "cluster/base/indexed_tokens.h"
#include "tests/cluster/testing.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

template <class T>
std::string packed(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

/// Documents [1, 2, 3] and [4] as uint16.
struct Index {
  std::string magic = std::string("MMIDIDX\0\0", 9);
  uint64_t version = 1;
  uint8_t code = 8;
  uint64_t sequences = 2, boundaries = 3;
  std::vector<int32_t> lengths = {3, 1};
  std::vector<int64_t> offsets = {0, 6}, documents = {0, 1, 2};
  std::string modes, behind;

  std::string bytes() const {
    std::string text = magic + packed(version) + packed(code) + packed(sequences) + packed(boundaries);
    for (int32_t length : lengths) text += packed(length);
    for (int64_t offset : offsets) text += packed(offset);
    for (int64_t document : documents) text += packed(document);
    return text + modes + behind;
  }
};

const std::string tokens("\1\0\2\0\3\0\4\0", 8);

/// The two files one behind the other, the length of the index first.
std::string both(const std::string& index, const std::string& bin = tokens) {
  return packed(static_cast<uint32_t>(index.size())) + index + bin;
}

template <class Change>
std::string changed(const Change& change) {
  Index index;
  change(index);
  return both(index.bytes());
}

std::vector<Attack> attacks() {
  Index good;
  auto of = [](auto change) { return changed(change); };
  std::vector<Attack> all = {
      {"empty index", "too short for a header: got 0", both("")},
      {"33 bytes", "too short for a header: got 33", both(good.bytes().substr(0, 33))},
      {"other magic", "wrong first bytes", of([](Index& i) { i.magic[0] = 'X'; })},
      {"text", "wrong first bytes", both(std::string(100, 'a'))},
      {"version 2", "unknown version: got 2", of([](Index& i) { i.version = 2; })},
      {"version of 2^64 - 1", "unknown version", of([](Index& i) { i.version = UINT64_MAX; })},
      {"type 0", "unknown token type: got 0", of([](Index& i) { i.code = 0; })},
      {"type 9", "unknown token type: got 9", of([](Index& i) { i.code = 9; })},
      {"type 255", "unknown token type: got 255", of([](Index& i) { i.code = 255; })},
      {"doubles", "floating-point numbers: got float64", of([](Index& i) { i.code = 6; })},
      {"floats", "floating-point numbers: got float32", of([](Index& i) { i.code = 7; })},
      {"2^64 - 1 sequences", "counts are larger than the file", of([](Index& i) { i.sequences = UINT64_MAX; })},
      {"sequences that wrap", "counts are larger", of([](Index& i) { i.sequences = UINT64_MAX / 12 + 3; })},
      {"2^64 - 1 boundaries", "counts are larger than the file", of([](Index& i) { i.boundaries = UINT64_MAX; })},
      {"boundaries that wrap", "counts are larger", of([](Index& i) { i.boundaries = (uint64_t{1} << 61) + 3; })},
      {"sequence too many", "counts are larger", of([](Index& i) { i.sequences = 3; })},
      {"sequence too few", "file size does not fit its counts", of([](Index& i) { i.sequences = 1; })},
      {"byte too many", "file size does not fit its counts", of([](Index& i) { i.behind = "x"; })},
      {"no boundaries", "file size does not fit", of([](Index& i) { i.boundaries = 0; })},
      {"nothing at all", "no document boundaries",
       of([](Index& i) { i = {.sequences = 0, .boundaries = 0, .lengths = {}, .offsets = {}, .documents = {}}; })},
      {"negative length", "sequence 0 has a negative length: got -3", of([](Index& i) { i.lengths[0] = -3; })},
      {"length of 2^31 - 1", "sequence 0 ends beyond", of([](Index& i) { i.lengths[0] = INT32_MAX; })},
      {"offset below 0", "sequence 1 does not begin where", of([](Index& i) { i.offsets[1] = -6; })},
      {"offset of 2^63 - 1", "sequence 1 does not begin where", of([](Index& i) { i.offsets[1] = INT64_MAX; })},
      {"overlap", "sequence 1 does not begin where", of([](Index& i) { i.offsets[1] = 4; })},
      {"gap", "sequence 1 does not begin where", of([](Index& i) { i.offsets[1] = 8; })},
      {"offset inside a token", "sequence 1 does not begin where", of([](Index& i) { i.offsets[1] = 5; })},
      {"first document at 1", "first document does not begin at sequence 0", of([](Index& i) { i.documents[0] = 1; })},
      {"first document below 0", "first document does not begin", of([](Index& i) { i.documents[0] = -1; })},
      {"documents that go back", "document 2 begins before", of([](Index& i) {
         i.documents = {0, 2, 1};
       })},
      {"last document before the end", "last document does not end", of([](Index& i) {
         i.documents = {0, 1, 1};
       })},
      {"last document beyond the end", "last document does not end", of([](Index& i) {
         i.documents = {0, 1, 3};
       })},
      {"document of 2^63 - 1", "document 2 begins before", of([](Index& i) {
         i.documents = {0, INT64_MAX, 2};
       })},
      {"images", "not text (modes other than 0)", of([](Index& i) { i.modes = std::string("\0\1", 2); })},
      {"no tokens", "sequence 0 ends beyond", both(good.bytes(), "")},
      {"tokens cut", "sequence 1 ends beyond", both(good.bytes(), tokens.substr(0, 7))},
      {"tokens too many", "sequences do not fill", both(good.bytes(), tokens + tokens)},
  };
  for (size_t size : {40, 60, 80, 81})
    all.push_back({fmt::format("index of {} bytes", size), "counts are larger", both(good.bytes().substr(0, size))});
  return all;
}

/// Files with those two contents, made once.
class Prefix {
 public:
  const std::string& write(const std::string& index, const std::string& bin) {
    put(".idx", index);
    put(".bin", bin);
    return path_;
  }

 private:
  void put(const char* suffix, const std::string& bytes) {
    std::string path = path_ + suffix;
    std::FILE* file = std::fopen(path.c_str(), "w");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
  }
  TemporaryFolder folder_{"/dev/shm"};
  std::string path_ = folder_.at("attack");
};

void read(const std::string& bytes) {
  static Prefix prefix;
  uint32_t length = 0;
  if (bytes.size() >= sizeof length) std::memcpy(&length, bytes.data(), sizeof length);
  std::string rest = bytes.substr(std::min(bytes.size(), sizeof length));
  length = std::min<uint32_t>(length, static_cast<uint32_t>(rest.size()));
  IndexedTokens read = IndexedTokens::open(prefix.write(rest.substr(0, length), rest.substr(length)));
  for (int64_t document = 0; document <= read.documents(); ++document) read.document_begin(document);
  std::vector<int64_t> ids(read.tokens());
  read.read(0, read.tokens(), ids.data());
  if (read.tokens() > 0) read.range();
}

}  // namespace

Reader token_index_reader() {
  Index good, with_modes;
  with_modes.modes = std::string(2, '\0');
  return {"token_index", 4, "attack.idx", read, attacks(), {both(good.bytes()), both(with_modes.bytes())}};
}

}  // namespace echelon::hostile
