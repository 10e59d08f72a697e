#include "cluster/base/indexed_tokens.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

namespace echelon {

namespace {

struct TokenType {
  std::string_view name;
  int64_t bytes;  ///< 0: no token ids are kept in it
};

constexpr std::array<TokenType, 9> token_types = {{{"", 0},
                                                   {"uint8", 1},
                                                   {"int8", 1},
                                                   {"int16", 2},
                                                   {"int32", 4},
                                                   {"int64", 8},
                                                   {"float64", 0},
                                                   {"float32", 0},
                                                   {"uint16", 2}}};
constexpr std::string_view magic("MMIDIDX\0\0", 9);
constexpr size_t version_at = 9, code_at = 17, sequences_at = 18, documents_at = 26, lengths_at = 34;

/// Fields are not aligned.
template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <class T>
void widen(const std::byte* from, int64_t count, int64_t* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = load<T>(from + i * sizeof(T));
}

using Widen = void (*)(const std::byte*, int64_t, int64_t*);
constexpr std::array<Widen, 9> wideners = {nullptr,        widen<uint8_t>, widen<int8_t>,
                                           widen<int16_t>, widen<int32_t>, widen<int64_t>,
                                           nullptr,        nullptr,        widen<uint16_t>};

}  // namespace

IndexedTokens IndexedTokens::open(const std::string& prefix) {
  IndexedTokens tokens;
  tokens.index_ = MappedFile::open(prefix + ".idx", Error::Kind::input);
  tokens.bin_ = MappedFile::open(prefix + ".bin", Error::Kind::input);
  tokens.check_header();
  tokens.check_sequences();
  tokens.check_documents();
  tokens.check_modes();
  return tokens;
}

Error IndexedTokens::damaged(const std::string& what) const {
  return Error::input(index_.path(), "DATA_INDEX: " + what);
}

void IndexedTokens::check_header() {
  const std::byte* index = index_.data();
  if (index_.size() < lengths_at)
    throw damaged("file is too short for a header").got(index_.size()).expected(lengths_at);
  if (std::memcmp(index, magic.data(), magic.size()) != 0) throw damaged("not a Megatron index: wrong first bytes");
  uint64_t version = load<uint64_t>(index + version_at);
  if (version != 1) throw damaged("unknown version").got(version).expected(1);
  code_ = load<uint8_t>(index + code_at);
  if (code_ == 0 || code_ >= static_cast<int>(token_types.size())) throw damaged("unknown token type").got(code_);
  token_bytes_ = token_types[code_].bytes;
  if (token_bytes_ == 0) throw damaged("tokens are floating-point numbers").got(token_type());

  uint64_t sequences = load<uint64_t>(index + sequences_at), boundaries = load<uint64_t>(index + documents_at);
  uint64_t rest = index_.size() - lengths_at;
  // Divided, not multiplied: the counts are not to be believed yet.
  if (sequences > rest / 12 || boundaries > (rest - 12 * sequences) / 8) {
    throw damaged("counts are larger than the file")
        .got(fmt::format("{} sequences, {} boundaries", sequences, boundaries));
  }
  uint64_t expected = 12 * sequences + 8 * boundaries;
  if (rest != expected && rest != expected + sequences) {
    throw damaged("file size does not fit its counts").got(index_.size()).expected(lengths_at + expected);
  }
  if (boundaries == 0) throw damaged("no document boundaries");
  sequences_ = static_cast<int64_t>(sequences);
  documents_ = static_cast<int64_t>(boundaries) - 1;
}

int64_t IndexedTokens::sequence_tokens(int64_t sequence) const {
  return load<int32_t>(index_.data() + lengths_at + 4 * sequence);
}

int64_t IndexedTokens::sequence_offset(int64_t sequence) const {
  return load<int64_t>(index_.data() + lengths_at + 4 * sequences_ + 8 * sequence);
}

int64_t IndexedTokens::document_sequence(int64_t document) const {
  return load<int64_t>(index_.data() + lengths_at + 12 * sequences_ + 8 * document);
}

/// Sequences must fill the token file one after the other: tokens are read as one long row.
void IndexedTokens::check_sequences() {
  int64_t bytes = 0, size = static_cast<int64_t>(bin_.size());
  for (int64_t i = 0; i < sequences_; ++i) {
    int64_t tokens = sequence_tokens(i), offset = sequence_offset(i);
    if (tokens < 0) throw damaged(fmt::format("sequence {} has a negative length", i)).got(tokens);
    if (offset != bytes) {
      throw damaged(fmt::format("sequence {} does not begin where the one before it ends", i))
          .got(offset)
          .expected(bytes);
    }
    bytes += tokens * token_bytes_;
    if (bytes > size)
      throw damaged(fmt::format("sequence {} ends beyond {}", i, bin_.path())).got(bytes).expected(size);
  }
  if (bytes != size) throw damaged(fmt::format("sequences do not fill {}", bin_.path())).got(bytes).expected(size);
  tokens_ = bytes / token_bytes_;
}

void IndexedTokens::check_documents() {
  if (document_sequence(0) != 0) throw damaged("first document does not begin at sequence 0").got(document_sequence(0));
  for (int64_t i = 1; i <= documents_; ++i) {
    if (document_sequence(i) < document_sequence(i - 1))
      throw damaged(fmt::format("document {} begins before the one before it", i));
  }
  if (document_sequence(documents_) != sequences_) {
    throw damaged("last document does not end with the last sequence")
        .got(document_sequence(documents_))
        .expected(sequences_);
  }
}

void IndexedTokens::check_modes() {
  const std::byte* modes = index_.data() + lengths_at + 12 * sequences_ + 8 * (documents_ + 1);
  bool all_text =
      std::all_of(modes, index_.data() + index_.size(), [](std::byte mode) { return mode == std::byte{0}; });
  if (!all_text) throw damaged("some sequences are not text (modes other than 0)");
}

std::string_view IndexedTokens::token_type() const { return token_types[code_].name; }

int64_t IndexedTokens::document_begin(int64_t document) const {
  if (document < 0 || document > documents_) throw Error::internal(index_.path(), "no such document").got(document);
  int64_t sequence = document_sequence(document);
  return sequence == sequences_ ? tokens_ : sequence_offset(sequence) / token_bytes_;
}

void IndexedTokens::read(int64_t first_token, int64_t count, int64_t* out) const {
  if (first_token < 0 || count < 0 || first_token > tokens_ || count > tokens_ - first_token) {
    throw Error::internal(bin_.path(), "tokens out of range")
        .got(fmt::format("{} from {}", count, first_token))
        .expected(fmt::format("within {}", tokens_));
  }
  wideners[code_](bin_.data() + first_token * token_bytes_, count, out);
}

std::pair<int64_t, int64_t> IndexedTokens::range() const {
  if (tokens_ == 0) throw Error::internal(bin_.path(), "no tokens to look at");
  int64_t smallest = std::numeric_limits<int64_t>::max(), largest = std::numeric_limits<int64_t>::min();
  std::array<int64_t, 8192> chunk;
  for (int64_t at = 0; at < tokens_; at += chunk.size()) {
    int64_t count = std::min<int64_t>(chunk.size(), tokens_ - at);
    read(at, count, chunk.data());
    auto [low, high] = std::minmax_element(chunk.begin(), chunk.begin() + count);
    smallest = std::min(smallest, *low);
    largest = std::max(largest, *high);
  }
  return {smallest, largest};
}

}  // namespace echelon
