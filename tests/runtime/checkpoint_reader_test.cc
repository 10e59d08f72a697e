// What a checkpoint says about its tensors is not believed: here its author made it up, hashes included.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "cluster/base/files.h"
#include "runtime/checkpoint/load.h"
#include "runtime/checkpoint/names.h"
#include "tests/cluster/testing.h"

namespace echelon {
namespace {

/// Rows of a tensor "w" [4, 3] that one file holds, and where it says that they stand.
struct Piece {
  std::vector<int64_t> shape;
  Json place;
};
Piece rows_at(Json offset) { return {{2, 3}, {{"saved_offsets", {offset, 0}}}}; }

Json good_state() {
  return {{"step", 1},
          {"recipe", ""},
          {"config", Json::object()},
          {"optimizer_state", {"exp_avg"}},
          {"exchange", {{"ranks", 2}, {"tp", 1}}}};
}

class MadeUp {
 public:
  /// Errors: of CheckpointReader.
  CheckpointReader reader(const std::vector<Piece>& pieces, const Json& state = good_state()) {
    CheckpointStore store(folder_.path());
    std::string staging = store.begin(1, 1000);
    std::vector<FileRecord> records;
    for (size_t i = 0; i < pieces.size(); ++i) {
      std::string path = join_path(staging, shard_name(i, pieces.size()));
      write(path, pieces[i]);
      records.push_back(hash_file(path, "somebody"));
    }
    write_file_atomically(join_path(staging, kStateFile), dump_json(state));
    records.push_back(hash_file(join_path(staging, kStateFile), "somebody"));
    store.commit(staging, 1, records, "made up");
    return CheckpointReader(open_checkpoint(store.folder(1)));
  }

 private:
  static void write(const std::string& path, const Piece& piece) {
    at::Tensor ones = at::ones(piece.shape);
    SafetensorsWriter writer(path, {{"w", DType::F32, piece.shape, 0, 0}},
                             {{"DCP_SHARDING_INFO", dump_json({{"w", piece.place}})}});
    writer.write("w", ones.const_data_ptr(), ones.nbytes());
    writer.finish();
  }
  TemporaryFolder folder_;
};

void expect_refused(const std::string& sentence, const std::function<void()>& action) {
  EXPECT_EQ(not_refused(action, Error::Kind::storage, sentence), "");
}

const Slice kWhole = Slice::whole({4, 3});

TEST(CheckpointReader, PutsRowsTogether) {
  MadeUp made_up;
  EXPECT_TRUE(at::equal(made_up.reader({rows_at(0), rows_at(2)}).read("w", kWhole), at::ones({4, 3})));
}

TEST(CheckpointReader, RefusesRowsThatAreThereTwiceOrNotAtAll) {
  expect_refused("twice", [] { MadeUp().reader({rows_at(0), rows_at(0)}).read("w", kWhole); });
  expect_refused("twice", [] { MadeUp().reader({rows_at(1), rows_at(2)}).read("w", kWhole); });
  expect_refused("6 of 12", [] { MadeUp().reader({rows_at(2)}).read("w", kWhole); });
  expect_refused("0 of 12", [] { MadeUp().reader({rows_at(4)}).read("w", kWhole); });
}

TEST(CheckpointReader, RefusesPlacesThatAreNone) {
  expect_refused("no count", [] { MadeUp().reader({rows_at(-1)}); });
  expect_refused("no count", [] { MadeUp().reader({rows_at("0")}); });
  expect_refused("no count", [] { MadeUp().reader({rows_at(uint64_t{1} << 63)}); });
  expect_refused("no count", [] { MadeUp().reader({rows_at((uint64_t{1} << 63) - 1)}); });
  expect_refused("another rank", [] { MadeUp().reader({{{2, 3}, {{"saved_offsets", {0}}}}}); });
  expect_refused("another rank", [] { MadeUp().reader({{{2, 3}, {{"saved_offsets", "0, 0"}}}}); });
  expect_refused("does not say where", [] { MadeUp().reader({{{2, 3}, Json::array()}}); });
  expect_refused("does not say where", [] { MadeUp().reader({{{2, 3}, 7}}); });
  expect_refused("has no rows", [] { MadeUp().reader({{{}, {{"saved_offsets", Json::array()}}}}); });
}

TEST(CheckpointReader, RefusesStatesThatAreNone) {
  auto refused = [](const std::string& sentence, const std::string& key, const Json& value) {
    Json state = good_state();
    state[key] = value;
    expect_refused(sentence, [&] { MadeUp().reader({rows_at(0)}, state); });
  };
  refused("step", "step", -1);
  refused("step", "step", "1");
  refused("recipe", "recipe", 7);
  refused("config", "config", Json::array());
  refused("optimizer_state", "optimizer_state", {1, 2});
  refused("optimizer_state", "optimizer_state", "exp_avg");
  refused("not a JSON object", "exchange", Json::array());
  refused("replicas", "replicas", 0);
  expect_refused("state.json", [] { MadeUp().reader({rows_at(0)}, Json::array()); });
}

}  // namespace
}  // namespace echelon
