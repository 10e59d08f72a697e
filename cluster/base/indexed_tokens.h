// Token ids in Megatron's indexed format: `prefix.bin` holds them, `prefix.idx` says where documents begin.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "cluster/base/error.h"
#include "cluster/base/files.h"

namespace echelon {

/// Both files, mapped; tokens are read as one long row of all documents.
class IndexedTokens {
 public:
  /// `prefix` is the path without ".bin" or ".idx". Everything the index says is checked against the token file first.
  /// Errors: Error::input, for each way in which the index can be damaged or lie.
  static IndexedTokens open(const std::string& prefix);

  int64_t documents() const { return documents_; }
  int64_t sequences() const { return sequences_; }
  int64_t tokens() const { return tokens_; }
  /// Bytes of a stored token: 1, 2, 4 or 8.
  int64_t token_bytes() const { return token_bytes_; }
  /// Megatron's name of the stored type: "uint16", "int32", …
  std::string_view token_type() const;
  /// First token of a document; of documents(), the count of tokens.
  int64_t document_begin(int64_t document) const;
  /// Copies tokens [first_token, first_token + count) to `out`. Errors: Error::internal outside of [0, tokens()).
  void read(int64_t first_token, int64_t count, int64_t* out) const;
  /// The smallest and the largest id, by reading all. Errors: Error::internal without tokens.
  std::pair<int64_t, int64_t> range() const;

 private:
  void check_header();
  void check_sequences();
  void check_documents();
  void check_modes();
  Error damaged(const std::string& what) const;
  int64_t sequence_tokens(int64_t sequence) const;
  int64_t sequence_offset(int64_t sequence) const;
  int64_t document_sequence(int64_t document) const;

  MappedFile index_, bin_;
  int code_ = 0;
  int64_t token_bytes_ = 0, sequences_ = 0, documents_ = 0, tokens_ = 0;
};

}  // namespace echelon
