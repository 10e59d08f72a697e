// The commands, their flags, and how a command line is read. Both programs accept the same.
#pragma once

#include <string>
#include <vector>

namespace echelon {

struct Command {
  std::string name;
  std::string usage;    ///< "RECIPE [path=value ...]"
  std::string summary;  ///< one line
  std::vector<std::string> flags;
  int least_names = 0;  ///< RECIPE, PATH, …: positional arguments
  int most_names = 0;
  bool takes_overrides = false;  ///< path=value
  bool runs_on_ranks = false;    ///< started as echelon-rank processes
  bool available = true;         ///< false: known, not built yet
};

const std::vector<Command>& commands();
/// Errors: Error::usage with the nearest names.
const Command& find_command(const std::string& name);

struct CommandLine {
  const Command* command = nullptr;
  std::vector<std::string> names;      ///< positional arguments
  std::vector<std::string> overrides;  ///< "mesh.tp=2"
  bool help = false;
};

/// Reads `COMMAND ARGUMENT…`: sets gflags of this command, `--flag=value`, `--flag value`, `--flag`, `--noflag`; what
/// reads `path=value` is an override where the command takes them; `--` ends the flags. Errors: Error::usage: unknown
/// command or flag (with the nearest names), a value that does not fit, too few or many names.
CommandLine parse_command_line(const std::vector<std::string>& arguments);

/// The page of `echelon --help`, and that of one command with its flags.
std::string help_text();
std::string help_text(const Command& command);

}  // namespace echelon
