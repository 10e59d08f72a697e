#include "launch/rank/export.h"

#include <map>

#include <ATen/ATen.h>

#include "launch/rank/commands.h"
#include "launch/rank/loaded_model.h"

namespace echelon {

void export_model(const ExportArguments& arguments, const Group& world) {
  static const std::map<std::string, at::ScalarType> types = {
      {"float32", at::kFloat}, {"bfloat16", at::kBFloat16}, {"float16", at::kHalf}};
  FolderOptions options{.dtype = types.at(arguments.dtype), .max_shard_bytes = arguments.max_shard_bytes};
  LoadedModel loaded(open_folder_or_checkpoint(arguments.checkpoint), world, Recipe());
  options.tokenizer_from = loaded.source.tokenizer_folder;
  if (!loaded.adapters->empty()) return loaded.adapters->write(arguments.out, loaded.model, "");
  write_model_folder(arguments.out, loaded.model, loaded.source.config, options);
}

int run_export(const CommandLine& line, Session& session) {
  export_model(export_arguments(line), session.world());
  return 0;
}

}  // namespace echelon
