// Machines, as the command line and files name them: a name becomes an argument of other programs.
#include "launch/command/hosts.h"

#include "tests/hostile/in_memory_file.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

std::vector<std::string> bad_names() {
  return {"-oProxyCommand=touch canary",
          "-a",
          "--host",
          ".a",
          "a_b",
          "a/b",
          "../a",
          "a;touch canary",
          "$(touch canary)",
          "`touch canary`",
          "a|b",
          "a&b",
          "a'b",
          "a\"b",
          "a\\b",
          "a@b",
          "user@host",
          "n[0-4294967295]",
          "n[1",
          "n]1[",
          "n{1..9}",
          "\x1b[2J",
          "\xff",
          "h\xc3\xb6st",
          std::string(254, 'a'),
          std::string(500, 'a')};
}

std::vector<std::string> bad_counts() {
  return {"0", "-1", "65537", "4294967297", "99999999999999999999", "1.5", "0x2", "2a", "+2", "two"};
}

std::vector<Attack> attacks_on_the_flag() {
  std::vector<Attack> all = {
      {"space in a name", "is no host name", "a b"},
      {"line break in a name", "is no host name", "a\nb"},
      {"zero byte in a name", "is no host name", std::string("a\0b", 3)},
      {"empty entry", "is no host name", "a,,b"},
      {"comma first", "is no host name", ",a"},
      {"colon alone", "is no host name", ":2"},
      {"no count behind the colon", "is no number of ranks", "a:"},
      {"space in a count", "is no number of ranks", "a: 2"},
      {"two counts", "is no number of ranks", "a:2:2"},
      {"too many hosts", "more than 65536 hosts", repeated("a,", 65'537)},
  };
  for (const std::string& name : bad_names()) all.push_back({"host " + name, "is no host name", name + ":2"});
  for (const std::string& count : bad_counts())
    all.push_back({"count " + count, "is no number of ranks", "a:" + count});
  return all;
}

std::vector<Attack> attacks_on_the_file() {
  std::vector<Attack> all = {
      {"empty", "no host in it", ""},
      {"comments only", "no host in it", "# a\n\n  \t\n"},
      {"zero byte in a name", ":1: \"a\\x00b\" is no host name", std::string("a\0b slots=2\n", 12)},
      {"too many hosts", "more than 65536 hosts", repeated("a\n", 65'537)},
      {"line of a megabyte", ":1: not a line of a hostfile", std::string(1 << 20, 'a')},
      {"words behind", ":1: not a line of a hostfile", "a slots=2 max_slots=4\n"},
      {"another key", ":1: not a line of a hostfile", "a ranks=2\n"},
      {"no value", ":1: not a line of a hostfile", "a slots=\n"},
      {"third line", ":3: not a line of a hostfile", "a\nb\nc d\n"},
      {"17 MiB", "file is too large", std::string(17 << 20, '\n')},
  };
  for (const std::string& name : bad_names())
    all.push_back({"host " + name, name.find(' ') == std::string::npos ? ":1: \"" : "not a line", name + " slots=2\n"});
  for (const std::string& count : bad_counts())
    all.push_back({"count " + count, "is no number of ranks", "a slots=" + count + "\n"});
  return all;
}

void check(const std::vector<Host>& hosts) {
  std::string written = hosts_text(hosts);
  same(written, hosts_text(parse_hosts(written)), "hosts");
}

void read_file_of_hosts(const std::string& bytes) {
  InMemoryFile file(bytes);
  check(read_hostfile(file.path()));
}

}  // namespace

Reader hosts_reader() {
  return {"hosts",
          2,
          "--hosts",
          [](const std::string& bytes) { check(parse_hosts(bytes)); },
          attacks_on_the_flag(),
          {"a:2,b:2", "a", "node-1.example.org:65536"}};
}

Reader hostfile_reader() {
  return {"hostfile",
          2,
          "/proc/self/fd/",
          read_file_of_hosts,
          attacks_on_the_file(),
          {"a slots=2\nb\n", "# ours\n  node-1.example.org   slots=4  # and more\r\n"}};
}

}  // namespace echelon::hostile
