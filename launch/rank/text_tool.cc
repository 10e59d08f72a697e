#include "launch/rank/text_tool.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <sstream>

#include <fcntl.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/base/descriptor.h"
#include "cluster/base/files.h"
#include "cluster/base/json.h"
#include "launch/options/installation.h"

extern char** environ;

namespace echelon {

namespace {

std::string read_all(const Descriptor& pipe) {
  std::string text;
  std::array<char, 4096> buffer;
  for (ssize_t count; (count = ::read(pipe.get(), buffer.data(), buffer.size())) != 0;) {
    if (count > 0)
      text.append(buffer.data(), count);
    else if (errno != EINTR)
      break;
  }
  return text;
}

/// A file in memory that holds `lines`, to be read from its begin.
Descriptor file_of(const std::vector<std::string>& lines) {
  Descriptor file(::memfd_create("lines", MFD_CLOEXEC));
  std::string text = fmt::format("{}\n", fmt::join(lines, "\n"));
  for (size_t done = 0; done < text.size();) {
    ssize_t count = ::write(file.get(), text.data() + done, text.size() - done);
    if (count < 0) throw system_error(Error::Kind::internal, "lines", "write");
    done += static_cast<size_t>(count);
  }
  ::lseek(file.get(), 0, SEEK_SET);
  return file;
}

/// Starts the tool between a file and a pipe; its complaints go where ours go.
pid_t start(const std::vector<std::string>& words, int input, int output) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  pid_t child = 0;
  int failed = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) throw Error::recipe(words[0], "cannot be started").remedy("run ./quickstart, which sets .venv up");
  return child;
}

/// One line for each of `lines`.
std::vector<std::string> run_tool(const std::string& tokenizer_folder, const std::string& command,
                                  const std::vector<std::string>& lines) {
  Installation installation = find_installation();
  std::string script = join_path(folder_of(installation.prepare_script), "text.py");
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw system_error(Error::Kind::internal, script, "be given a pipe");
  Descriptor reading(ends[0]), writing(ends[1]), input = file_of(lines);
  pid_t child =
      start({installation.python, script, command, "--tokenizer=" + tokenizer_folder}, input.get(), writing.get());
  writing = Descriptor();
  std::istringstream text(read_all(reading));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  std::vector<std::string> answers;
  for (std::string line; std::getline(text, line);) answers.push_back(line);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || answers.size() != lines.size())
    throw Error::input(tokenizer_folder, "the tokenizer failed (its reason stands above)");
  return answers;
}

std::string as_json(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::type_error&) {
    throw Error::input("prompt", "is not UTF-8");
  }
}

}  // namespace

std::vector<std::string> encode_texts(const std::string& tokenizer_folder, const std::vector<std::string>& texts) {
  std::vector<std::string> lines;
  for (const std::string& text : texts) lines.push_back(as_json(text));
  return run_tool(tokenizer_folder, "encode", lines);
}

std::vector<std::string> decode_ids(const std::string& tokenizer_folder, const std::vector<std::string>& ids) {
  std::vector<std::string> texts;
  for (const std::string& line : run_tool(tokenizer_folder, "decode", ids))
    texts.push_back(parse_json(line, "the tokenizer's answer").get<std::string>());
  return texts;
}

std::vector<int64_t> parse_ids(const std::string& text) {
  std::vector<int64_t> ids;
  const char* end = text.data() + text.size();
  for (const char* at = text.data(); at < end; ++at) {
    int64_t id = 0;
    auto [stop, failure] = std::from_chars(at, end, id);
    if (failure != std::errc() || (stop != end && *stop != ','))
      throw Error::input("prompt", "no list of ids").got(text);
    ids.push_back(id);
    at = stop;
  }
  return ids;
}

}  // namespace echelon
