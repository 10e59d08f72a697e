// metrics.jsonl of a run folder: a torn last line is nothing, a damaged one before it is.
#include "runtime/store/metrics_file.h"

#include "tests/hostile/in_memory_file.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

const std::string whole = "{\"step\":1,\"loss\":2.5}\n";

std::vector<Attack> attacks() {
  return {{"text", ":1: not valid JSON", "loss\n" + whole},
          {"second line cut", ":2: not valid JSON", whole + "{\"step\":\n" + whole},
          {"empty line", ":2: not valid JSON", whole + "\n" + whole},
          {"zero byte", ":1: not valid JSON: a zero byte", std::string("{\"step\":1}\0\n", 12) + whole},
          {"no UTF-8", ":1: not valid JSON", "{\"step\":1,\"\xff\":1}\n" + whole},
          {"key twice", ":1: key \"step\" stands twice", "{\"step\":1,\"step\":2}\n" + whole},
          {"array", ":1: not a JSON object", "[1]\n" + whole},
          {"no step", ":1: \"step\" is missing", "{\"loss\":1}\n" + whole},
          {"step is text", ":1: step: wrong type", "{\"step\":\"1\"}\n" + whole},
          {"step with a point", ":1: step: wrong type", "{\"step\":1.0}\n" + whole},
          {"step below 0", ":1: step: out of range", "{\"step\":-1}\n" + whole},
          {"step of 2^64 - 1", ":1: step: out of range", "{\"step\":18446744073709551615}\n" + whole},
          {"NaN", ":1: not valid JSON", "{\"step\":1,\"loss\":NaN}\n" + whole},
          {"deep", ":1: JSON is nested deeper than 64", repeated("[", 100'000) + "\n" + whole}};
}

void read(const std::string& bytes) {
  InMemoryFile file(bytes);
  for (const Json& line : read_metrics(file.path())) {
    JsonStyle style{.seventeen_digits = true, .non_finite_as_null = true};
    std::string written = dump_json(line, style);
    same(written, dump_json(parse_json(written, "again"), style), "a line");
  }
  skipped_at_end(file.path());
}

}  // namespace

Reader metrics_reader() {
  return {"metrics", 5, "/proc/self/fd/", read, attacks(), {"", whole, whole + whole, whole + "{\"step\":2,\"lo"}};
}

}  // namespace echelon::hostile
