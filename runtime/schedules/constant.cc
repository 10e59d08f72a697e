#include "runtime/schedules/constant.pb.h"

#include "cluster/base/registry.h"
#include "runtime/schedule.h"

namespace echelon {

namespace {

struct ConstantSchedule : Schedule {
  double factor(int64_t) const override { return 1; }
};

}  // namespace

void register_constant(Registry& registry) {
  registry.add<Schedule, Constant>(
      [](const Constant&, const Schedule::Context&) { return std::make_unique<ConstantSchedule>(); });
}

}  // namespace echelon
