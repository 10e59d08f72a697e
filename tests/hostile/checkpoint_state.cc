// state.json of a checkpoint whose author can compute hashes too.
#include <filesystem>

#include "cluster/base/files.h"
#include "runtime/checkpoint/load.h"
#include "runtime/checkpoint/names.h"
#include "tests/cluster/testing.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

Json good() {
  return {{"step", 1},
          {"recipe", ""},
          {"config", Json::object()},
          {"optimizer_state", {"exp_avg"}},
          {"replicas", 2},
          {"exchange", {{"ranks", 2}, {"tp", 1}}}};
}

std::string with(const std::string& key, Json value) {
  Json state = good();
  state[key] = std::move(value);
  return dump_json(state);
}

std::string without(const std::string& key) {
  Json state = good();
  state.erase(key);
  return dump_json(state);
}

std::vector<Attack> attacks() {
  return json_attacks(dump_json(good()), {
      {"key twice", "\"step\" stands twice", "{\"step\":1,\"step\":2}"},
      {"no step", "\"step\" is missing", without("step")},
      {"step below 0", "step: out of range", with("step", -1)},
      {"step of 2^61", "step: out of range", with("step", int64_t{1} << 61)},
      {"step of text", "step: wrong type", with("step", "1")},
      {"step with a point", "step: wrong type", with("step", 1.0)},
      {"no recipe", "\"recipe\" is missing", without("recipe")},
      {"recipe is a number", "recipe: wrong type", with("recipe", 7)},
      {"no config", "has no config of the model", without("config")},
      {"config is an array", "config is no object", with("config", Json::array())},
      {"config is null", "config is no object", with("config", nullptr)},
      {"no optimizer", "does not name the optimizer's state", without("optimizer_state")},
      {"optimizer of numbers", "optimizer_state is no list of names", with("optimizer_state", {1, 2})},
      {"optimizer is text", "optimizer_state is no list of names", with("optimizer_state", "exp_avg")},
      {"no replica", "replicas: out of range", with("replicas", 0)},
      {"a million replicas", "replicas: out of range", with("replicas", 1'000'000)},
      {"exchange is an array", "not a JSON object", with("exchange", Json::array())},
      {"exchange is null", "not a JSON object", with("exchange", nullptr)},
      {"exchange of no ranks", "ranks: out of range", with("exchange", {{"ranks", 0}, {"tp", 1}})},
      {"exchange of 2^25 ranks", "ranks: out of range", with("exchange", {{"ranks", 1 << 25}, {"tp", 1}})},
      {"more tensor ranks than ranks", "tp: out of range", with("exchange", {{"ranks", 2}, {"tp", 3}})},
  });
}

void read(const std::string& bytes) {
  TemporaryFolder folder("/dev/shm");
  CheckpointStore store(folder.path());
  std::string staging = store.begin(1, 1), path = join_path(staging, kStateFile);
  write_file_atomically(path, bytes);
  store.commit(staging, 1, {hash_file(path, "somebody")}, "made up");
  CheckpointReader reader(open_checkpoint(store.folder(1)));
}

}  // namespace

Reader checkpoint_state_reader() {
  return {"checkpoint_state", 5, "state.json", read, attacks(), {dump_json(good()), without("exchange")}};
}

}  // namespace echelon::hostile
