// PREFIX.meta.json beside a corpus.
#include "cluster/base/files.h"
#include "cluster/base/json.h"
#include "cluster/base/registry.h"
#include "runtime/source.h"
#include "runtime/sources/token_file.pb.h"
#include "runtime/trainer.h"
#include "tests/cluster/testing.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

Json good() {
  return {{"vocabulary_size", 100}, {"pad_id", 0}, {"bos_id", nullptr}, {"mask_id", 4}, {"special_ids", {0, 4}}};
}

std::string with(const std::string& key, Json value) {
  Json meta = good();
  meta[key] = std::move(value);
  return dump_json(meta);
}

std::vector<Attack> attacks() {
  return json_attacks(dump_json(good()), {
      {"key twice", "stands twice", "{\"vocabulary_size\":1,\"vocabulary_size\":2}"},
      {"no size", "\"vocabulary_size\" is missing", "{}"},
      {"size 0", "vocabulary_size: out of range", with("vocabulary_size", 0)},
      {"size below 0", "vocabulary_size: out of range", with("vocabulary_size", -1)},
      {"size of 2^31", "vocabulary_size: out of range", with("vocabulary_size", int64_t{1} << 31)},
      {"size of text", "vocabulary_size: wrong type", with("vocabulary_size", "100")},
      {"size with a point", "vocabulary_size: wrong type", with("vocabulary_size", 100.0)},
      {"id below 0", "pad_id: out of range", with("pad_id", -1)},
      {"id of 2^64 - 1", "mask_id: out of range", with("mask_id", UINT64_MAX)},
      {"id of text", "eos_id: wrong type", with("eos_id", "</s>")},
      {"special ids are text", "special_ids is no list", with("special_ids", "0")},
      {"special ids are a number", "special_ids is no list", with("special_ids", 4)},
      {"special ids are an object", "special_ids is no list", with("special_ids", {{"a", 1}})},
      {"special id of text", "something that is no id", with("special_ids", {"0"})},
      {"special id below 0", "something that is no id", with("special_ids", {-1})},
      {"special id of 2^63", "something that is no id", with("special_ids", {uint64_t{1} << 63})},
      {"special id with a point", "something that is no id", with("special_ids", {1.5})},
  });
}

/// Four tokens of 16 bits, one document.
void write_corpus(const std::string& prefix) {
  write_file_atomically(prefix + ".bin", std::string("\1\0\2\0\3\0\4\0", 8));
  write_file_atomically(prefix + ".idx",
                        from_hex("4d4d49444944580000"
                                 "0100000000000000"
                                 "08"  // version 1, uint16
                                 "0100000000000000"
                                 "0200000000000000"  // a sequence, two boundaries
                                 "04000000"
                                 "0000000000000000"  // of four tokens, from 0
                                 "0000000000000000"
                                 "0100000000000000"));
}

void read(const std::string& bytes) {
  static TemporaryFolder folder("/dev/shm");
  static const bool is_written = (write_corpus(folder.at("corpus")), true);
  static const Registry registry = [] {
    Registry all;
    register_builtin_methods(all);
    return all;
  }();
  if (is_written) write_file_atomically(folder.at("corpus.meta.json"), bytes);
  TokenFile options;
  options.set_path(folder.at("corpus"));
  options.set_sequence_length(2);
  google::protobuf::Any any;
  any.PackFrom(options);
  registry.make<Source>(any, {.lookahead = 1});
}

}  // namespace

Reader token_meta_reader() {
  return {"token_meta", 4, "corpus.meta.json", read, attacks(), {dump_json(good()), "{\"vocabulary_size\":7}"}};
}

}  // namespace echelon::hostile
