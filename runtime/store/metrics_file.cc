#include "runtime/store/metrics_file.h"

#include <cerrno>
#include <cmath>
#include <functional>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/files.h"

namespace echelon {

namespace {

Json parse_line(std::string_view line, const std::string& path, size_t number) {
  std::string place = fmt::format("{}:{}", path, number);
  Json json = parse_json(line, place, Error::Kind::storage);
  json_integer(json, "step", place, 0, INT64_MAX, Error::Kind::storage);
  return json;
}

/// Calls `take` with each whole line until it says false. A last line that does not end or does not parse was torn by a
/// crash; a damaged one before it is an error. Gives the first byte that was not taken.
uint64_t for_each_line(const std::string& path, const std::function<bool(Json)>& take) {
  MappedFile file = MappedFile::open(path, Error::Kind::storage);
  std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  size_t at = 0;
  for (size_t number = 1; at < text.size(); ++number) {
    size_t end = text.find('\n', at);
    if (end == std::string_view::npos) break;
    bool is_last = end + 1 == text.size();
    try {
      if (!take(parse_line(text.substr(at, end - at), path, number))) break;
    } catch (const Error&) {
      if (!is_last) throw;
      break;
    }
    at = end + 1;
  }
  return at;
}

}  // namespace

MetricsFile MetricsFile::open(const std::string& path, int64_t last_step) {
  MetricsFile metrics;
  metrics.path_ = path;
  metrics.file_ = Descriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
  if (!metrics.file_.is_open()) throw system_error(Error::Kind::storage, path, "open");
  metrics.size_ = for_each_line(path, [&](const Json& line) { return line["step"].get<int64_t>() <= last_step; });
  if (::ftruncate(metrics.file_.get(), static_cast<off_t>(metrics.size_)) != 0) {
    throw system_error(Error::Kind::storage, path, "drop later lines");
  }
  metrics.sync();
  fsync_folder(folder_of(path));
  return metrics;
}

void MetricsFile::append(const Json& line) {
  if (!line.contains("step")) throw Error::internal(path_, "a line of metrics has no step");
  std::string text = dump_json(line, {.seventeen_digits = true, .non_finite_as_null = true}) + "\n";
  write_at(file_, text.data(), text.size(), size_, path_);
  size_ += text.size();
}

void MetricsFile::sync() { sync_file(file_, path_); }

std::vector<Json> read_metrics(const std::string& path) {
  std::vector<Json> lines;
  for_each_line(path, [&](Json line) {
    lines.push_back(std::move(line));
    return true;
  });
  return lines;
}

std::vector<TakenStep> taken_steps(const std::string& path) {
  std::vector<TakenStep> steps;
  auto number = [](const Json& line, const char* key) {
    auto found = line.find(key);
    return found != line.end() && found->is_number() ? found->get<double>() : std::nan("");
  };
  for_each_line(path, [&](const Json& line) {
    if (!line.contains("eval") && !line.value("skipped", false))
      steps.push_back({line["step"].get<int64_t>(), number(line, "loss"), number(line, "grad_norm")});
    return true;
  });
  return steps;
}

int64_t skipped_at_end(const std::string& path) {
  int64_t steps = 0;
  for (const Json& line : read_metrics(path)) {
    if (!line.contains("eval")) steps = line.value("skipped", false) ? steps + 1 : 0;
  }
  return steps;
}

}  // namespace echelon
