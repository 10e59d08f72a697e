// main() of every test program that may run on several ranks: failures of all ranks are shown, each with its rank.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>

#include "tests/test_session.h"

namespace echelon::testing {

namespace {

std::optional<Session>& joined() {
  static std::optional<Session> session;
  return session;
}

/// Shows failures only, tagged, in place of gtest's progress.
class FailurePrinter : public ::testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}

 private:
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "[rank %d] %s:%d: %s\n", rank_, result.file_name() ? result.file_name() : "(unknown)",
                 result.line_number(), result.message());
  }
  void OnTestEnd(const ::testing::TestInfo& info) override {
    if (!info.result()->Failed()) return;
    std::fprintf(stderr, "[rank %d] FAILED %s.%s\n", rank_, info.test_suite_name(), info.name());
  }
  int rank_;
};

/// Rank 0 reports as usual, the others speak up only when something is wrong.
void quieten(int rank) {
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (rank == 0) return;
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new FailurePrinter(rank));
}

}  // namespace

const Session& session() { return *joined(); }

namespace {

/// ECHELON_TEST_BACKEND, or what suits how the program was started.
std::string backend_of_tests() {
  if (const char* asked = std::getenv("ECHELON_TEST_BACKEND")) return asked;
  return std::getenv("OMPI_COMM_WORLD_SIZE") ? "mpi" : "self";
}

}  // namespace

int run_tests(int argc, char** argv) {
  // Before InitGoogleTest, so that a suite's parameters may depend on the number of ranks.
  joined().emplace(Session::join(argc, argv, {.backend = backend_of_tests(), .timeout_seconds = 60}));
  ::testing::InitGoogleTest(&argc, argv);
  quieten(session().world().rank());
  int result = RUN_ALL_TESTS();
  joined().reset();
  return result;
}

}  // namespace echelon::testing

int main(int argc, char** argv) {
  try {
    return echelon::testing::run_tests(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
