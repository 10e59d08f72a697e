#include "models/interchange/base_hash.h"

#include <span>

#include <fmt/format.h>

#include "cluster/base/mapped_pages.h"
#include "cluster/base/tiles.h"
#include "models/interchange/model_folder.h"

namespace echelon {

void check_base(const std::string& base, const PeftFolder& adapter) {
  std::string hash = adapter.config().text("echelon_base_hash", "");
  if (hash.empty() || hash == hash_of_model(base)) return;
  throw Error::input(adapter.path(), "was trained on another base than " + base)
      .remedy("name the model in its base_model_name_or_path");
}

std::string hash_of_model(const std::string& folder) {
  ModelFolder model = ModelFolder::open(folder);
  std::string text;
  for (const TensorEntry* entry : model.tensors().entries()) {
    text += fmt::format("{} {} [{}] {}\n", entry->name, dtype_name(entry->dtype), fmt::join(entry->shape, ","),
                        hash_bytes({model.tensors().data(*entry), entry->size()}));
    forget_pages(model.tensors().data(*entry), entry->size());
  }
  return hash_bytes(std::as_bytes(std::span(text)));
}

}  // namespace echelon
