#include "runtime/store/roll_backs.h"

#include <algorithm>

#include "cluster/base/files.h"

namespace echelon {

namespace {

constexpr int64_t kLimitBytes = 16 << 20, kMost = int64_t{1} << 60;

RollBack roll_back_from(const Json& json, const std::string& place) {
  auto count = [&](const char* key) { return json_integer(json, key, place, 0, kMost, Error::Kind::storage); };
  return {.from_step = count("from_step"),
          .to_step = count("to_step"),
          .reason = json_string(json, "reason", place, Error::Kind::storage),
          .first_sample = count("first_sample"),
          .samples = count("samples")};
}

}  // namespace

Json to_json(const RollBack& roll_back) {
  return {{"from_step", roll_back.from_step},
          {"to_step", roll_back.to_step},
          {"reason", roll_back.reason},
          {"first_sample", roll_back.first_sample},
          {"samples", roll_back.samples}};
}

RollBacks RollBacks::read(const std::string& run_folder) {
  std::string path = join_path(run_folder, kRollBacksFile);
  if (!exists(path)) return {};
  return parse(read_file(path, Error::Kind::storage, kLimitBytes), path);
}

RollBacks RollBacks::parse(std::string_view text, const std::string& place) {
  Json json = parse_json(text, place, Error::Kind::storage, 4);
  if (!json.is_array()) throw Error::storage(place, "is not a list of roll-backs");
  RollBacks roll_backs;
  for (const Json& one : json) roll_backs.all_.push_back(roll_back_from(one, place));
  return roll_backs;
}

std::string RollBacks::text() const {
  Json json = Json::array();
  for (const RollBack& one : all_) json.push_back(to_json(one));
  return dump_json(json, 2) + "\n";
}

const RollBack* RollBacks::behind(int64_t step) const {
  auto last = std::find_if(all_.rbegin(), all_.rend(), [&](const RollBack& one) { return one.to_step < step; });
  return last == all_.rend() ? nullptr : &*last;
}

int64_t RollBacks::first_sample(int64_t step, int64_t batch) const {
  const RollBack* last = behind(step);
  return last ? last->next_sample() + (step - 1 - last->to_step) * batch : (step - 1) * batch;
}

const RollBack* RollBacks::before(int64_t step) const {
  const RollBack* last = behind(step);
  return last && last->to_step + 1 == step ? last : nullptr;
}

std::optional<int64_t> RollBacks::step_to_go_back_to(const std::vector<int64_t>& committed, int64_t fault) const {
  auto newest = std::lower_bound(committed.begin(), committed.end(), fault);
  if (newest == committed.begin()) return {};
  --newest;
  bool in_vain = !all_.empty() && all_.back().to_step == *newest;
  return in_vain && newest != committed.begin() ? *(newest - 1) : *newest;
}

void RollBacks::add(int64_t from_step, int64_t to_step, const std::string& reason, int64_t batch) {
  int64_t first = first_sample(to_step + 1, batch);
  all_.push_back({from_step, to_step, reason, first, first_sample(from_step + 1, batch) - first});
}

}  // namespace echelon
