// Before the tests of kernels on a GPU: there is one, and the framework knows it.
#include <gtest/gtest.h>

#include "comm/backends/gpus.h"

namespace echelon {
namespace {

class Gpu : public ::testing::Environment {
 public:
  void SetUp() override {
    ASSERT_GT(visible_gpus(), 0) << "no GPU is visible: these tests were not run";
    load_torch_cuda();
  }
};

const ::testing::Environment* gpu = ::testing::AddGlobalTestEnvironment(new Gpu);

}  // namespace
}  // namespace echelon
