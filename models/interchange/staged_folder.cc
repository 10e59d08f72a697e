#include "models/interchange/staged_folder.h"

#include <filesystem>

#include <fcntl.h>

#include <fmt/format.h>

#include "cluster/base/descriptor.h"
#include "cluster/base/files.h"
#include "comm/agree.h"
#include "comm/together.h"
#include "models/interchange/tokenizer_files.h"

namespace echelon {

namespace {

namespace fs = std::filesystem;

void remove(const std::string& folder) {
  std::error_code ignored;  // what is left behind is named .partial-… and does no harm
  fs::remove_all(folder, ignored);
}

bool is_part_of_a_model(const std::string& name) {
  return name == "config.json" || name == "generation_config.json" || name == "merge_record.safetensors" ||
         is_tokenizer_file(name) ||
         (name.starts_with("model") && (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")));
}

}  // namespace

StagedFolder::StagedFolder(std::string folder, const Group& world)
    : folder_(std::move(folder)), first_(world.rank() == 0) {
  while (folder_.size() > 1 && folder_.ends_with('/')) folder_.pop_back();
  on_every_rank(world, folder_, [this] {
    if (!first_) return;
    check_replaceable();
    make_folders(folder_of(folder_));
    staging_ = fmt::format("{}.partial-{}", folder_, random_name());
    make_folders(staging_);
  });
  staging_ = agree_text(world, staging_, 0, folder_);
}

StagedFolder::~StagedFolder() {
  if (first_ && !staging_.empty()) remove(staging_);
}

std::string StagedFolder::path(const std::string& name) const { return join_path(staging_, name); }

void StagedFolder::check_replaceable() const {
  if (!exists(folder_)) return;
  if (!is_folder(folder_)) throw Error::storage(folder_, "is not a folder");
  for (const std::string& name : list_folder(folder_)) {
    if (is_part_of_a_model(name)) continue;
    throw Error::storage(folder_, fmt::format("holds \"{}\", which is no part of a model", name))
        .remedy("name another folder");
  }
}

void StagedFolder::commit() {
  fsync_folder(staging_);
  if (::rename(staging_.c_str(), folder_.c_str()) != 0) {
    if (errno != ENOTEMPTY && errno != EEXIST) throw system_error(Error::Kind::storage, folder_, "put in place");
    // An earlier model is exchanged for the new one, so that there is a whole one at any time.
    if (::renameat2(AT_FDCWD, staging_.c_str(), AT_FDCWD, folder_.c_str(), RENAME_EXCHANGE) != 0) {
      throw system_error(Error::Kind::storage, folder_, "replace");
    }
    remove(staging_);
  }
  staging_.clear();
  fsync_folder(folder_of(folder_));
}

}  // namespace echelon
