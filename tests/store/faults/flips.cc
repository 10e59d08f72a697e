// One wrong bit in a stored checkpoint.
#include <random>

#include <fcntl.h>
#include <unistd.h>

#include "tests/store/faults/trial.h"

namespace echelon {
namespace {

constexpr int64_t bytes_of_a_rank = 5 << 20;  // two tiles a file

/// Two steps; the bit is wrong in the second. Made once: each trial flips its bit back.
const CheckpointStore& stored() {
  static TemporaryFolder folder(memory_folder());
  static CheckpointStore store(folder.path());
  if (store.steps().empty()) {
    for (int64_t step : {1, 2}) save_step(store, step, bytes_of_a_rank);
  }
  return store;
}

/// While it lives, one bit of a file is the other one.
class Flip {
 public:
  Flip(const std::string& path, int64_t byte, int bit) : file_(::open(path.c_str(), O_RDWR)), byte_(byte), bit_(bit) {
    turn();
  }
  ~Flip() { turn(); }

 private:
  void turn() const {
    char byte = 0;
    (void)!::pread(file_.get(), &byte, 1, byte_);
    byte = static_cast<char>(byte ^ (1 << bit_));
    (void)!::pwrite(file_.get(), &byte, 1, byte_);
  }
  Descriptor file_;
  int64_t byte_;
  int bit_;
};

struct Place {
  std::string file;
  int64_t byte = 0;
  int bit = 0;
};

void demand_part(const std::string& sentence, const std::string& part) {
  demand(sentence.find(part) != std::string::npos, fmt::format("\"{}\" does not name {}", sentence, part));
}

std::string refusal_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    demand(error.kind() == Error::Kind::storage, error.what());
    return error.what();
  }
  throw BrokenPromise("damage was read without a word");
}

void demand_older(const std::optional<Checkpoint>& checkpoint) {
  demand(checkpoint && checkpoint->step == 1, "does not go on from the step before");
  demand(checkpoint->passed_over.size() == 1, "does not say what was passed over");
  demand_content(*checkpoint);
}

/// Found by name by whoever verifies and by whoever reads; the run goes on from the step before.
void demand_tile_is_named(const Place& place, const FileRecord& record) {
  Checkpoint checkpoint = open_checkpoint(stored().folder(2));
  std::string tile = fmt::format("tile {} of {}", place.byte / static_cast<int64_t>(tile_bytes), place.file);
  std::vector<std::string> damage = find_damage(checkpoint);
  demand(damage.size() == 1, fmt::format("{} tiles are said to be damaged", damage.size()));
  for (const std::string& sentence : {damage.front(), refusal_of([&] { demand_content(checkpoint); })}) {
    demand_part(sentence, tile);
    demand_part(sentence, record.writer);
  }
  demand_older(stored().recover(2, {damage.front()}));
}

void flip(const Place& place) {
  std::optional<FileRecord> record;
  if (place.file != "manifest.json") record = *open_checkpoint(stored().folder(2)).manifest.find(place.file);
  Flip flipped(join_path(stored().folder(2), place.file), place.byte, place.bit);
  if (record) return demand_tile_is_named(place, *record);
  demand_part(refusal_of([] { open_checkpoint(stored().folder(2)); }), place.file);
  demand_older(stored().recover());
}

void run_flip(const Place& place) {
  try {
    flip(place);
  } catch (const std::exception& error) {
    throw BrokenPromise(fmt::format("bit {} of byte {} of {}: {}", place.bit, place.byte, place.file, error.what()));
  }
}

std::vector<std::string> files() { return list_folder(stored().folder(2)); }

int64_t size_of(const std::string& file) {
  return static_cast<int64_t>(std::filesystem::file_size(join_path(stored().folder(2), file)));
}

void flip_at_random(int64_t trial) {
  std::mt19937_64 random(trial);
  std::string file = files()[random() % files().size()];
  run_flip({file, static_cast<int64_t>(random() % size_of(file)), static_cast<int>(random() % 8)});
}

/// All bytes of the manifest, and those of the files that stand before the tensors'.
const std::vector<Place>& places_of_headers() {
  static const std::vector<Place> all = [] {
    std::vector<Place> places;
    for (const std::string& file : files()) {
      int64_t bytes = file == "manifest.json" ? size_of(file) : size_of(file) - bytes_of_a_rank;
      for (int64_t byte = 0; byte < bytes; ++byte) places.push_back({file, byte, static_cast<int>(byte % 8)});
    }
    return places;
  }();
  return all;
}

}  // namespace

FaultRow random_flips() {
  stored();
  return {.run = flip_at_random};
}

FaultRow flips_of_every_byte() {
  return {.last = [] { return std::ssize(places_of_headers()); },
          .run = [](int64_t trial) { run_flip(places_of_headers().at(trial)); }};
}

}  // namespace echelon
