#include "launch/rank/text_tool.h"

#include <array>
#include <charconv>
#include <cstdio>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/base/descriptor.h"
#include "cluster/base/files.h"
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

/// Starts the tool with its output in a pipe; its complaints go where ours go.
pid_t start(const std::vector<std::string>& words, int output) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  pid_t child = 0;
  int failed = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) throw Error::recipe(words[0], "cannot be started").remedy("run ./quickstart, which sets .venv up");
  return child;
}

std::string run_tool(const std::string& tokenizer_folder, const std::string& command, const std::string& argument) {
  Installation installation = find_installation();
  std::string script = join_path(folder_of(installation.prepare_script), "text.py");
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw system_error(Error::Kind::internal, script, "be given a pipe");
  Descriptor reading(ends[0]), writing(ends[1]);
  pid_t child =
      start({installation.python, script, command, "--tokenizer=" + tokenizer_folder, argument}, writing.get());
  writing = Descriptor();
  std::string text = read_all(reading);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw Error::input(tokenizer_folder, "the tokenizer failed (its reason stands above)");
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

std::string encode_text(const std::string& tokenizer_folder, const std::string& text) {
  return run_tool(tokenizer_folder, "encode", "--text=" + text);
}

std::string decode_ids(const std::string& tokenizer_folder, const std::string& ids) {
  return run_tool(tokenizer_folder, "decode", "--ids=" + ids);
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
