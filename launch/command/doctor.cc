#include "launch/command/doctor.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include <dlfcn.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cluster/base/files.h"
#include "cluster/base/json.h"
#include "cluster/base/text.h"
#include "launch/command/child.h"
#include "launch/command/machine.h"

namespace echelon {

namespace fs = std::filesystem;

namespace {

using State = Finding::State;

std::string first_line_of(const std::string& text) { return text.substr(0, text.find('\n')); }

Finding mpi() {
  std::string program = find_program("mpirun");
  if (program.empty()) return {"MPI", State::missing, "no mpirun on PATH: apt-get install openmpi-bin libopenmpi-dev"};
  std::string version = first_line_of(output_of({program, "--version"}, 10));
  if (version.empty()) return {"MPI", State::missing, program + " does not answer"};
  return {"MPI", State::ok, fmt::format("{}, {}", version, program)};
}

Finding rank_program(const Installation& installation) {
  const std::string& path = installation.rank_program;
  if (!exists(path)) return {"rank program", State::missing, path + " is not built: ninja echelon-rank"};
  Child probe = Child::start({.arguments = {path, "--version"}, .capture_stderr = true, .capture_stdout = true});
  std::string output;
  for (int tenths = 0; tenths < 200 && !probe.output_closed(); ++tenths) output += probe.read_output(100);
  for (int tenths = 0; tenths < 10 && !probe.ended(); ++tenths) usleep(100'000);
  auto ending = probe.ended();
  if (!ending) return {"rank program", State::missing, path + " does not answer"};
  if (ending->exit_code != 0 || ending->signal != 0) {
    return {"rank program", State::missing,
            fmt::format("{} does not start: {}", path, printable(first_line_of(output)))};
  }
  return {"rank program", State::ok, fmt::format("{}, {}", printable(first_line_of(output)), path)};
}

// The site-packages folder of the environment that the build took LibTorch from.
std::string site_packages(const Installation& installation) {
  fs::path root = fs::path(installation.python).parent_path().parent_path();
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(root / "lib", ignored)) {
    fs::path site = entry.path() / "site-packages";
    if (fs::exists(site / "torch")) return site.string();
  }
  return "";
}

std::string match_in(const std::string& path, const std::string& pattern) {
  std::ifstream file(path);
  std::regex expression(pattern);
  for (std::string line; std::getline(file, line);) {
    std::smatch match;
    if (line.size() < 1000 && std::regex_search(line, match, expression)) return match[1];
  }
  return "";
}

Finding libtorch(const std::string& site) {
  std::string library = join_path(site, "torch/lib/libtorch_cpu.so");
  if (site.empty() || !exists(library)) {
    return {"LibTorch", State::warning,
            "not found in .venv beside the sources; what the rank program was built with counts"};
  }
  return {"LibTorch", State::ok,
          fmt::format("{}, {}", match_in(join_path(site, "torch/version.py"), "__version__ = '([^']*)'"), library)};
}

Finding cuda() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!driver) return {"CUDA", State::warning, "no driver (libcuda.so.1): ranks compute on processors"};
  auto get_version = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDriverGetVersion"));
  int version = 0;
  if (!get_version || get_version(&version) != 0) return {"CUDA", State::warning, "the driver does not answer"};
  return {"CUDA", State::ok, fmt::format("driver for CUDA {}.{}", version / 1000, version % 1000 / 10)};
}

Finding nccl(const std::string& site) {
  std::string header = join_path(site, "nvidia/nccl/include/nccl.h"),
              library = join_path(site, "nvidia/nccl/lib/libnccl.so.2");
  if (site.empty() || !exists(header) || !exists(library)) {
    return {"NCCL", State::warning, "not found: GPUs of several ranks cannot talk (pip install nvidia-nccl-cu13)"};
  }
  return {"NCCL", State::ok,
          fmt::format("{}.{}.{}, {}", match_in(header, R"(#define NCCL_MAJOR (\d+))"),
                      match_in(header, R"(#define NCCL_MINOR (\d+))"), match_in(header, R"(#define NCCL_PATCH (\d+))"),
                      library)};
}

Finding gpus(const Machine& machine) {
  if (machine.gpus.empty()) return {"GPUs", State::warning, "none visible: ranks compute on processors"};
  return {"GPUs", State::ok, fmt::format("{}: {}", machine.gpus.size(), fmt::join(machine.gpus, ", "))};
}

Finding slurm() {
  std::string program = find_program("srun");
  if (program.empty()) return {"Slurm", State::warning, "no srun on PATH: jobs start through mpirun"};
  std::string version = first_line_of(output_of({program, "--version"}, 10));
  if (!version.starts_with("slurm"))
    return {"Slurm", State::warning,
            fmt::format("{} finds no cluster's configuration: jobs start through mpirun", program)};
  std::string kinds = output_of({program, "--mpi=list"}, 10);
  std::string inside = std::getenv("SLURM_JOB_ID") ? "inside an allocation" : "outside of an allocation";
  if (kinds.find("pmix") == std::string::npos) {
    return {"Slurm", State::warning,
            fmt::format("{}, {}; without PMIx, so --launcher=srun cannot connect ranks", version, inside)};
  }
  return {"Slurm", State::ok, fmt::format("{}, {}, {}", version, inside, program)};
}

Finding processors(const Machine& machine) {
  return {"processors", State::ok,
          fmt::format("{}{}{}", machine.processors, machine.several_per_core ? ", several to a core" : "",
                      machine.pinnable ? "" : ", limited by the container")};
}

Finding memory(const Machine& machine) {
  State state = machine.memory_bytes < (int64_t{1} << 30) ? State::warning : State::ok;
  return {"memory", state,
          fmt::format("{}, {} free", human_bytes(machine.memory_bytes), human_bytes(machine.memory_free_bytes))};
}

std::string limit_text(rlim_t value, bool bytes) {
  if (value == RLIM_INFINITY) return "unlimited";
  return bytes ? human_bytes(static_cast<int64_t>(value)) : std::to_string(value);
}

Finding limits() {
  rlimit files{}, locked{}, address{};
  getrlimit(RLIMIT_NOFILE, &files);
  getrlimit(RLIMIT_MEMLOCK, &locked);
  getrlimit(RLIMIT_AS, &address);
  bool tight = files.rlim_cur < 1024 || address.rlim_cur != RLIM_INFINITY;
  return {"limits", tight ? State::warning : State::ok,
          fmt::format("open files {}, locked memory {}, address space {}", limit_text(files.rlim_cur, false),
                      limit_text(locked.rlim_cur, true), limit_text(address.rlim_cur, true))};
}

Finding python(const Installation& installation) {
  std::string version = first_line_of(output_of(
      {installation.python.starts_with('/') ? installation.python : find_program("python3"), "--version"}, 10));
  if (version.empty()) return {"Python", State::warning, "not found: `echelon prepare` needs it"};
  return {"Python", State::ok, fmt::format("{}, {} (only `echelon prepare` uses it)", version, installation.python)};
}

Finding drills() {
  int scope = 0;  // of Yama; from 2 on only the administrator may hold another process
  std::ifstream("/proc/sys/kernel/yama/ptrace_scope") >> scope;
  if (scope >= 2) return {"drills", State::warning, "all of `drill --list` but `hold`, which the kernel forbids"};
  return {"drills", State::ok, "all of `drill --list`; faults of machines, links, disks and power are not drilled"};
}

// Left-over settings that slow runs down or put other programs in their path.
std::vector<Finding> environment() {
  std::vector<Finding> findings;
  for (const char* name :
       {"NCCL_ALGO", "NCCL_PROTO", "NCCL_P2P_DISABLE", "NCCL_IB_DISABLE", "LD_PRELOAD", "OMPI_MCA_plm_rsh_agent"}) {
    if (std::getenv(name))
      findings.push_back({"environment", State::warning, fmt::format("{} is set; it changes every run", name)});
  }
  return findings;
}

const char* word(State state) {
  switch (state) {
    case State::ok:
      return "ok";
    case State::warning:
      return "note";
    case State::missing:
      return "MISSING";
  }
  return "";
}

}  // namespace

Diagnosis diagnose(const Installation& installation) {
  Machine machine = this_machine();
  std::string site = site_packages(installation);
  Diagnosis diagnosis;
  diagnosis.findings = {
      mpi(),   rank_program(installation), libtorch(site),  cuda(),   nccl(site),          gpus(machine),
      slurm(), processors(machine),        memory(machine), limits(), python(installation), drills()};
  for (Finding& finding : environment()) diagnosis.findings.push_back(std::move(finding));
  diagnosis.can_train = std::none_of(diagnosis.findings.begin(), diagnosis.findings.end(),
                                     [](const Finding& finding) { return finding.state == State::missing; });
  return diagnosis;
}

std::string diagnosis_text(const Diagnosis& diagnosis, bool json) {
  Json object = {{"can_train", diagnosis.can_train}, {"findings", Json::array()}};
  std::string text;
  for (const Finding& finding : diagnosis.findings) {
    text += fmt::format("  {:<8} {:<13} {}\n", word(finding.state), finding.subject, finding.detail);
    object["findings"].push_back(
        {{"subject", finding.subject}, {"state", word(finding.state)}, {"detail", finding.detail}});
  }
  return json ? dump_json(object) + "\n" : text;
}

}  // namespace echelon
