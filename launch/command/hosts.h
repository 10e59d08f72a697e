// Machines that ranks run on, as people name them.
#pragma once

#include <string>
#include <vector>

namespace echelon {

struct Host {
  std::string name;
  int slots = 1;  ///< ranks
};

/// Reads "a:2,b:2"; without a number, one. At most 65,536 names of letters, digits, dots and hyphens.
/// Errors: Error::usage naming what is wrong.
std::vector<Host> parse_hosts(const std::string& text);
/// Reads lines `HOST slots=N`; '#' starts a comment. Errors: Error::usage with file and line.
std::vector<Host> read_hostfile(const std::string& path);
/// "a:2,b:2".
std::string hosts_text(const std::vector<Host>& hosts);
int all_slots(const std::vector<Host>& hosts);

}  // namespace echelon
