#include "runtime/recipe/recipe_file.h"

#include <algorithm>
#include <filesystem>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "cluster/base/text.h"
#include "runtime/recipe/merge.h"
#include "runtime/recipe/overrides.h"
#include "runtime/recipe/resolve.h"

namespace echelon {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kLargestFileBytes = 4 << 20;
constexpr size_t kDeepestParents = 16;
constexpr std::string_view kSuffix = ".textproto";

bool is_file(const std::string& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

std::string by_name(const std::string& name, const RecipeFolders& folders) {
  for (const std::string& folder : folders) {
    std::string file = join_path(folder, name + std::string(kSuffix));
    if (is_file(file)) return file;
  }
  return "";
}

// A parent is written by whoever wrote the file: it stays inside the folders we know, and beside that file.
bool stays_inside(const std::string& parent) {
  fs::path path(parent);
  return path.is_relative() && std::find(path.begin(), path.end(), "..") == path.end();
}

class Reader {
 public:
  explicit Reader(const RecipeFolders& folders) : folders_(folders) {}

  Recipe read(const std::string& file, Places& places) {
    enter(file);
    Places own;
    Recipe child = parse_recipe(read_file(file, Error::Kind::recipe, kLargestFileBytes), file, &own);
    Recipe merged;
    if (child.has_parent()) {
      merged = read(parent_file(child.parent(), file, own.of("parent")), places);
      merged.clear_description();  // a child is not its parent
      merged.clear_name();
    }
    merge_over(merged, child);
    places.add(own);
    return merged;
  }

 private:
  void enter(const std::string& file) {
    std::string same = fs::weakly_canonical(file).string();
    bool seen = std::find(seen_.begin(), seen_.end(), same) != seen_.end();
    chain_.push_back(file);
    if (seen) throw Error::recipe(chain_.front(), fmt::format("parents form a circle: {}", fmt::join(chain_, " -> ")));
    if (chain_.size() > kDeepestParents) {
      throw Error::recipe(chain_.front(),
                          fmt::format("more than {} parents: {}", kDeepestParents, fmt::join(chain_, " -> ")));
    }
    seen_.push_back(same);
  }

  std::string parent_file(const std::string& parent, const std::string& child, const std::string& place) const {
    if (!stays_inside(parent))
      throw Error::recipe(place, fmt::format("parent \"{}\" leaves the recipe's folder", printable(parent)));
    std::string beside = join_path(folder_of(child), parent);
    if (std::string named = by_name(parent, folders_); !named.empty()) return named;
    if (is_file(beside)) return beside;
    if (is_file(beside + std::string(kSuffix))) return beside + std::string(kSuffix);
    Error error = Error::recipe(place, fmt::format("no parent \"{}\" (chain: {} -> {})", printable(parent),
                                                   fmt::join(chain_, " -> "), printable(parent)));
    std::string near = did_you_mean(parent, recipe_names(folders_));
    throw near.empty() ? error : error.remedy(near);
  }

  const RecipeFolders& folders_;
  std::vector<std::string> chain_, seen_;
};

std::string find_recipe(const std::string& name_or_file, const RecipeFolders& folders) {
  if (is_file(name_or_file)) return name_or_file;
  if (std::string named = by_name(name_or_file, folders); !named.empty()) return named;
  Error error = Error::recipe(name_or_file, "no file and no recipe of that name");
  std::string near = did_you_mean(name_or_file, recipe_names(folders));
  throw error.remedy(near.empty() ? "`echelon recipes` lists them" : near);
}

}  // namespace

LoadedRecipe read_recipe(const std::string& name_or_file, const std::vector<std::string>& overrides,
                         const RecipeFolders& folders) {
  std::string file = find_recipe(name_or_file, folders);
  Places places(file);
  Recipe recipe = Reader(folders).read(file, places);
  if (!recipe.has_name()) recipe.set_name(fs::path(file).stem().string());
  for (const std::string& override : overrides) apply_override(recipe, override, places);
  resolve(recipe);
  return {recipe, places, file};
}

Recipe load_recipe(const std::string& name_or_file, const std::vector<std::string>& overrides,
                   const RecipeFolders& folders) {
  return read_recipe(name_or_file, overrides, folders).recipe;
}

std::vector<std::string> recipe_names(const RecipeFolders& folders) {
  std::vector<std::string> names;
  for (const std::string& folder : folders) {
    std::error_code ignored;
    for (auto at = fs::recursive_directory_iterator(folder, ignored); at != fs::recursive_directory_iterator();
         at.increment(ignored)) {
      if (at->path().extension() != kSuffix || !at->is_regular_file(ignored)) continue;
      std::string relative = fs::relative(at->path(), folder, ignored).string();
      names.push_back(relative.substr(0, relative.size() - kSuffix.size()));
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

}  // namespace echelon
