#include "runtime/store/scrub.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cluster/base/log.h"

namespace echelon {

namespace {

constexpr size_t most_said = 20;

/// Of the calling thread. Where the system refuses, it goes on with what it has.
void give_way_to_all_others() {
  constexpr int lowest = 19, this_thread = 0, of_a_process = 1, idle_class = 3 << 13;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), lowest);
  ::syscall(SYS_ioprio_set, of_a_process, this_thread, idle_class);
}

bool has(const CheckpointStore& store, int64_t step) {
  std::vector<int64_t> steps = store.steps();
  return std::find(steps.begin(), steps.end(), step) != steps.end();
}

std::string fate_of(const CheckpointStore& store, const DamagedStep& found) {
  std::string name = step_name(found.step);
  if (!found.whole_step || !has(store, *found.whole_step))
    return fmt::format("{} stays where it is: no other checkpoint was found whole", name);
  std::string place = store.set_aside(found.step);
  return fmt::format("{} was moved to {}; {} is whole", name, place, step_name(*found.whole_step));
}

}  // namespace

std::optional<int64_t> Scrub::next() const {
  std::vector<int64_t> steps = store_.steps();
  auto turn_of = [&](int64_t step) {
    auto turn = turns_.find(step);
    return turn == turns_.end() ? 0 : turn->second;
  };
  auto first =
      std::min_element(steps.begin(), steps.end(), [&](int64_t a, int64_t b) { return turn_of(a) < turn_of(b); });
  if (first == steps.end()) return {};
  return *first;
}

std::optional<DamagedStep> Scrub::look(const std::function<bool()>& given_up) {
  std::optional<int64_t> step = next();
  if (!step) return {};
  turns_[*step] = ++turn_;
  DamagedStep found{.step = *step, .damage = damage_of(*step, given_up)};
  if (found.damage.empty()) return {};
  found.whole_step = whole_step_beside(*step, given_up);
  if (given_up && given_up()) return {};
  return found;
}

/// None of a step that is gone: a removal begins with a rename.
std::vector<std::string> Scrub::damage_of(int64_t step, const std::function<bool()>& given_up) const {
  std::optional<Checkpoint> checkpoint;
  try {
    checkpoint = open_checkpoint(store_.folder(step));
  } catch (const Error& error) {
    if (!has(store_, step)) return {};
    return {error.what()};
  }
  try {
    return find_damage(*checkpoint, {.from_disk = true, .given_up = given_up});
  } catch (const Error&) {
    if (!has(store_, step)) return {};
    throw;  // a disk that cannot be read now says nothing of the bytes
  }
}

/// The newest: the last to be removed.
std::optional<int64_t> Scrub::whole_step_beside(int64_t damaged, const std::function<bool()>& given_up) const {
  std::vector<int64_t> steps = store_.steps();
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    if (*step != damaged && damage_of(*step, given_up).empty() && has(store_, *step)) return *step;
  }
  return {};
}

std::vector<std::string> settle(const CheckpointStore& store, const DamagedStep& found) {
  std::string name = step_name(found.step);
  std::vector<std::string> lines;
  for (size_t i = 0; i < std::min(found.damage.size(), most_said); ++i)
    lines.push_back(fmt::format("{}: {}", name, found.damage[i]));
  if (found.damage.size() > most_said)
    lines.push_back(fmt::format("{}: the same of {} more tiles", name, found.damage.size() - most_said));
  try {
    if (!has(store, found.step)) return {};
    lines.push_back(fate_of(store, found));
  } catch (const Error& error) {
    // Training goes on: what it needs of the disk, it asks for itself.
    lines.push_back(fmt::format("{} stays where it is: {}", name, error.what()));
  }
  return lines;
}

struct BackgroundScrub::State {
  explicit State(const CheckpointStore& store) : scrub(store) {}
  void run(std::stop_token stop, std::chrono::duration<double> interval);
  void look(const std::stop_token& stop);

  Scrub scrub;
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::vector<DamagedStep> found;
  std::jthread thread;  // last: stopped and joined before what it uses goes
};

void BackgroundScrub::State::run(std::stop_token stop, std::chrono::duration<double> interval) {
  give_way_to_all_others();
  while (true) {
    {
      std::unique_lock lock(mutex);
      if (stopped.wait_for(lock, stop, interval, [&] { return stop.stop_requested(); })) return;
    }
    look(stop);
  }
}

void BackgroundScrub::State::look(const std::stop_token& stop) {
  try {
    std::optional<DamagedStep> damaged = scrub.look([&] { return stop.stop_requested(); });
    std::lock_guard lock(mutex);
    if (damaged) found.push_back(std::move(*damaged));
  } catch (const std::exception& error) {
    EC_LOG(warning, "checkpoints cannot be verified: {}", error.what());
  }
}

BackgroundScrub::BackgroundScrub(const CheckpointStore& store, double minutes)
    : state_(std::make_unique<State>(store)) {
  state_->thread = std::jthread([state = state_.get(), minutes](std::stop_token stop) {
    state->run(stop, std::chrono::duration<double>(60 * minutes));
  });
}

BackgroundScrub::~BackgroundScrub() = default;

std::vector<DamagedStep> BackgroundScrub::take() {
  std::lock_guard lock(state_->mutex);
  return std::exchange(state_->found, {});
}

}  // namespace echelon
