// What ranks and their starter write: nothing is refused, and nothing may break the launcher.
#include "launch/command/rank_output.h"

#include <memory>

#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

void read(const std::string& bytes) {
  static std::FILE* nowhere = std::fopen("/dev/null", "w");
  for (Starter starter : {Starter::direct, Starter::mpirun, Starter::srun}) {
    RankOutput output(starter, nowhere);
    output.take(bytes.substr(0, bytes.size() / 2));
    output.rest();
    output.take(bytes.substr(bytes.size() / 2));
    output.finish();
  }
}

}  // namespace

Reader rank_output_reader() {
  std::string frame(70, '-');
  return {"rank_output",
          0,
          "",
          read,
          {},
          {"step 1\n", frame + "\nMPI_ABORT was invoked on rank 1 in communicator\nwith errorcode 5.\n" + frame + "\n",
           "mpirun noticed that process rank 3 with PID 0 on node a exited on signal 9 (Killed).\n",
           "srun: error: a: task 3: Killed\n", "echelon: input: x: y\n", std::string(10'000, '[') + "\n",
           "[a:1] " + std::string(1900, ' ') + "\n", "\r\x1b[K\r", std::string(10'000, '-') + "\n"}};
}

}  // namespace echelon::hostile
