// merge and unmerge: an adapter folded into its base, and taken out again.
#include "models/interchange/merge_folder.h"

#include "launch/rank/commands.h"
#include "runtime/trainer.h"

namespace echelon {

int run_merge(const CommandLine& line, Session& session) {
  MergeArguments arguments = merge_arguments(line);
  Registry registry;
  register_builtin_methods(registry);
  merge_folder(arguments.model, arguments.adapter, arguments.out, registry, session.world());
  return 0;
}

int run_unmerge(const CommandLine& line, Session& session) {
  MergeArguments arguments = unmerge_arguments(line);
  Registry registry;
  register_builtin_methods(registry);
  unmerge_folder(arguments.model, arguments.out, registry, session.world());
  return 0;
}

}  // namespace echelon
