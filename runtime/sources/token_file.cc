#include "runtime/sources/token_file.pb.h"

#include <limits>

#include <fmt/format.h>

#include "cluster/base/files.h"
#include "cluster/base/indexed_tokens.h"
#include "cluster/base/json.h"
#include "cluster/base/registry.h"
#include "runtime/source.h"

namespace echelon {

namespace {

constexpr int64_t kMetaLimit = 16 << 20;
constexpr int64_t kLargestId = std::numeric_limits<int32_t>::max();

int64_t id_of(const Json& meta, const std::string& key, const std::string& place) {
  if (!meta.contains(key) || meta[key].is_null()) return -1;
  return json_integer(meta, key, place, 0, kLargestId);
}

Vocabulary read_vocabulary(const std::string& path) {
  Json meta = parse_json(read_file(path, Error::Kind::input, kMetaLimit), path);
  Vocabulary vocabulary{.size = json_integer(meta, "vocabulary_size", path, 1, kLargestId),
                        .pad = id_of(meta, "pad_id", path),
                        .begin = id_of(meta, "bos_id", path),
                        .end = id_of(meta, "eos_id", path),
                        .mask = id_of(meta, "mask_id", path)};
  if (!meta.contains("special_ids")) return vocabulary;
  const Json& special = meta["special_ids"];
  if (!special.is_array()) throw Error::input(path, "special_ids is no list").got(special.type_name());
  for (const Json& id : special) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > uint64_t{kLargestId})
      throw Error::input(path, "special_ids holds something that is no id");
    vocabulary.special.push_back(id.get<int64_t>());
  }
  return vocabulary;
}

class TokenFileSource : public Source {
 public:
  TokenFileSource(const TokenFile& options, int64_t lookahead)
      : path_(options.path()),
        length_(options.sequence_length()),
        lookahead_(lookahead),
        tokens_(IndexedTokens::open(path_)),
        vocabulary_(read_vocabulary(path_ + ".meta.json")) {
    if (size() < 1) {
      throw Error::input(path_ + ".bin",
                         fmt::format("{} tokens are not one sample of {}", tokens_.tokens(), length_ + lookahead_))
          .remedy("prepare more text or lower sequence_length");
    }
  }

  int64_t size() const override { return (tokens_.tokens() - lookahead_) / length_; }
  int64_t length() const override { return length_; }
  void read(int64_t index, int64_t* tokens) const override {
    tokens_.read(index * length_, length_ + lookahead_, tokens);
  }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::string describe(int64_t index) const override { return fmt::format("{}.bin, sample {}", path_, index); }
  std::string tokenizer_folder() const override {
    std::string folder = path_ + ".tokenizer";
    return exists(folder) ? folder : "";
  }

 private:
  std::string path_;
  int64_t length_, lookahead_;
  IndexedTokens tokens_;
  Vocabulary vocabulary_;
};

}  // namespace

void register_token_file(Registry& registry) {
  registry.add<Source, TokenFile>([](const TokenFile& options, const Source::Context& context) {
    return std::make_unique<TokenFileSource>(options, context.lookahead);
  });
}

}  // namespace echelon
