// The command that people type: reads arguments, answers what it can, starts and watches ranks for the rest.
#include <cstring>
#include <iostream>

#include <unistd.h>

#include "cluster/base/bus_error.h"
#include "cluster/base/error.h"
#include "launch/command/describe.h"
#include "launch/command/doctor.h"
#include "launch/command/drill.h"
#include "launch/command/rank_command.h"
#include "launch/command/submit.h"
#include "launch/options/core_dumps.h"
#include "runtime/store/inspect.h"

namespace echelon {

namespace {

// Replaces this process: the tool has its own flags, help and exit codes.
int prepare(const std::vector<std::string>& arguments, const Installation& installation) {
  std::vector<std::string> texts = {installation.python, installation.prepare_script};
  texts.insert(texts.end(), arguments.begin() + 1, arguments.end());
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  execvp(pointers[0], pointers.data());
  throw Error::recipe(installation.python, fmt::format("cannot be started: {}", std::strerror(errno)));
}

int inspect_command(const CommandLine& line) {
  Inspection found = inspect_path(line.names.at(0), wants_verify());
  std::cout << (wants_json() ? dump_json(found.json) + "\n" : found.text) << std::flush;
  if (!found.damage.empty()) throw damage_error(line.names.at(0), found);
  return 0;
}

int doctor_command(const Installation& installation) {
  Diagnosis diagnosis = diagnose(installation);
  std::cout << diagnosis_text(diagnosis, wants_json()) << std::flush;
  if (!diagnosis.can_train)
    throw Error::recipe("doctor", "this machine cannot train yet").remedy("see what is MISSING above");
  return 0;
}

int drill_command(const CommandLine& line, const Installation& installation) {
  DrillArguments arguments = drill_arguments(line);
  if (arguments.list) {
    std::cout << list_faults();
  } else {
    drill(arguments, installation);
  }
  return 0;
}

int run_command(const std::vector<std::string>& arguments) {
  const std::string& name = arguments[0];
  if (name == "prepare") return prepare(arguments, find_installation());
  CommandLine line = parse_command_line(arguments);
  if (line.help) {
    std::cout << help_text(*line.command);
    return 0;
  }
  Installation installation = find_installation();
  if (name == "inspect") return inspect_command(line);
  if (name == "doctor") return doctor_command(installation);
  if (name == "drill") return drill_command(line, installation);
  if (name == "recipes") std::cout << list_recipes(installation, wants_json());
  if (name == "describe") std::cout << describe(line.names.empty() ? "" : line.names[0], installation);
  if (name == "train" && submit_arguments().submit) {
    submit(line, installation);
    return 0;
  }
  return line.command->runs_on_ranks ? run_rank_command(line, installation) : 0;
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.empty()) throw Error::usage("echelon", "no command given").remedy("`echelon --help` lists them");
  const std::string& first = arguments[0];
  if (first == "--version") {
    std::cout << "echelon " << ECHELON_VERSION << "\n";
    return 0;
  }
  if (first == "--help" || first == "-h" || first == "help") {
    std::cout << help_text();
    return 0;
  }
  return run_command(arguments);
}

}  // namespace

}  // namespace echelon

int main(int argc, char** argv) {
  echelon::leave_no_core();
  echelon::name_file_on_bus_error();
  auto fail = [](int exit_code, const std::string& sentence) {
    std::cout << std::flush;
    std::cerr << "echelon: " << sentence << std::endl;
    return exit_code;
  };
  try {
    return echelon::run({argv + 1, argv + argc});
  } catch (const echelon::Error& error) {
    return fail(error.exit_code(), error.what());
  } catch (const echelon::Failed& failed) {
    return fail(failed.exit_code, failed.sentence);
  } catch (const std::bad_alloc&) {
    return fail(8, "memory: out of memory");
  } catch (const std::exception& error) {
    return fail(1, "internal: " + echelon::printable(error.what()));
  }
}
