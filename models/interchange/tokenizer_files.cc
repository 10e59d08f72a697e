#include "models/interchange/tokenizer_files.h"

#include <algorithm>
#include <array>

#include "cluster/base/files.h"

namespace echelon {

namespace {

constexpr std::array<std::string_view, 15> kNames = {"tokenizer.json",
                                                     "tokenizer_config.json",
                                                     "special_tokens_map.json",
                                                     "added_tokens.json",
                                                     "vocab.txt",
                                                     "vocab.json",
                                                     "merges.txt",
                                                     "tokenizer.model",
                                                     "spiece.model",
                                                     "sentencepiece.bpe.model",
                                                     "source.spm",
                                                     "target.spm",
                                                     "chat_template.jinja",
                                                     "preprocessor_config.json",
                                                     "processor_config.json"};

constexpr int64_t kMostBytes = int64_t{1} << 30;

}  // namespace

bool is_tokenizer_file(std::string_view name) { return std::find(kNames.begin(), kNames.end(), name) != kNames.end(); }

bool has_tokenizer(const std::string& folder) {
  return std::any_of(kNames.begin(), kNames.end(),
                     [&](std::string_view name) { return exists(join_path(folder, name)); });
}

void copy_tokenizer(const std::string& from, const std::string& to) {
  for (std::string_view name : kNames) {
    if (!exists(join_path(from, name))) continue;
    std::string path = file_inside(from, std::string(name), Error::Kind::input);
    write_file_atomically(join_path(to, name), read_file(path, Error::Kind::input, kMostBytes));
  }
}

}  // namespace echelon
