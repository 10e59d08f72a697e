#include "models/interchange/tensor_matcher.h"

#include <cstring>
#include <set>

#include "models/interchange/tensor_list.h"

namespace echelon {

namespace {

constexpr size_t kMostNames = 20;  // a wrong folder may differ in thousands

std::string listed(const std::set<std::string>& names) {
  auto end = names.size() > kMostNames ? std::next(names.begin(), kMostNames) : names.end();
  std::string text = fmt::format("{}", fmt::join(names.begin(), end, ", "));
  return end == names.end() ? text : fmt::format("{} and {} more", text, names.size() - kMostNames);
}

bool same_bytes(const ModelFolder& folder, const TensorEntry& a, const TensorEntry& b) {
  return a.dtype == b.dtype && a.shape == b.shape &&
         std::memcmp(folder.tensors().data(a), folder.tensors().data(b), a.size()) == 0;
}

class Matcher {
 public:
  Matcher(const ModelFolder& folder, const Architecture& architecture) : folder_(folder), architecture_(architecture) {}

  Match run() {
    for (const NamedShape& tensor : tensors_of(architecture_)) find(tensor);
    if (architecture_.head && architecture_.tied) note_copies_of_tied_head();
    std::set<std::string> unexpected = unexpected_tensors();
    if (!missing_.empty()) throw missing_tensors(unexpected);
    if (!unexpected.empty())
      match_.warnings.push_back(folder_.path() + ": tensors that are not used: " + listed(unexpected));
    return std::move(match_);
  }

 private:
  void find(const NamedShape& tensor) {
    std::vector<TensorPlace> places = folder_.family().places(tensor.name);
    StoredTensor stored{.place = places.front(), .sizes = tensor.sizes};
    for (const TensorPlace& place : places) {
      const TensorEntry* entry = folder_.find(place.name);
      if (!entry) continue;
      if (stored.entry && !same_bytes(folder_, *stored.entry, *entry)) {
        match_.warnings.push_back(
            fmt::format("{}: {} and {} differ; the latter is used", folder_.path(), stored.entry->name, entry->name));
      }
      stored.entry = entry;
      used_.insert(entry->name);
    }
    if (!stored.entry && tensor.name == "embeddings.tokens.weight" && architecture_.head && architecture_.tied) {
      stored.entry = folder_.find(folder_.family().places("head.weight").front().name);
    }
    if (stored.entry) {
      check(stored);
      match_.stored.emplace(tensor.name, std::move(stored));
    } else {
      note_missing(tensor);
    }
  }

  void check(const StoredTensor& stored) const {
    weight_type(*stored.entry, folder_.path());
    std::vector<int64_t> expected = stored.place.stored_sizes(stored.sizes);
    if (stored.entry->shape == expected) return;
    throw Error::input(folder_.path(), fmt::format("tensor \"{}\" has the wrong shape", stored.entry->name))
        .got(stored.entry->shape)
        .expected(fmt::format("{}, as config.json says", expected));
  }

  void note_missing(const NamedShape& tensor) {
    TensorPlace place = folder_.family().places(tensor.name).front();
    std::string shown = fmt::format("{} {}", place.name, place.stored_sizes(tensor.sizes));
    if (!is_head_tensor(tensor.name)) {
      missing_.insert(shown);  // several of ours may be parts of it
      return;
    }
    match_.drawn.push_back(tensor.name);
    match_.warnings.push_back(fmt::format("{}: {} is missing; it starts {}", folder_.path(), shown, start_of(tensor)));
  }

  std::string start_of(const NamedShape& tensor) const {
    if (tensor.name.ends_with(".bias")) return "at 0";
    if (tensor.sizes.size() == 1) return "at 1";
    return fmt::format("normally distributed with standard deviation {}", architecture_.initializer_range);
  }

  void note_copies_of_tied_head() {
    for (const TensorPlace& place : folder_.family().places("head.weight")) {
      if (const TensorEntry* entry = folder_.find(place.name)) used_.insert(entry->name);
    }
  }

  std::set<std::string> unexpected_tensors() const {
    std::set<std::string> names;
    for (const TensorEntry* entry : folder_.tensors().entries()) {
      if (used_.contains(entry->name) || folder_.family().is_ignored(entry->name)) continue;
      names.insert(fmt::format("{} {}", entry->name, entry->shape));
    }
    return names;
  }

  Error missing_tensors(const std::set<std::string>& unexpected) const {
    std::string text = "tensors are missing: " + listed(missing_);
    if (!unexpected.empty()) text += "; and not expected: " + listed(unexpected);
    return Error::input(folder_.path(), text);
  }

  const ModelFolder& folder_;
  const Architecture& architecture_;
  Match match_;
  std::set<std::string> missing_;
  std::set<std::string> used_;
};

}  // namespace

Match match_tensors(const ModelFolder& folder, const Architecture& architecture) {
  return Matcher(folder, architecture).run();
}

bool stored_as_tied(const ModelFolder& folder, std::vector<std::string>& warnings) {
  const TensorEntry* tokens = folder.find(folder.family().places("embeddings.tokens.weight").front().name);
  const TensorEntry* head = folder.find(folder.family().places("head.weight").front().name);
  if (!tokens || !head || same_bytes(folder, *tokens, *head)) return true;
  warnings.push_back(fmt::format("{}: config.json ties {} to {}, but they differ; both are kept, apart", folder.path(),
                                 head->name, tokens->name));
  return false;
}

bool has_head_tensors(const ModelFolder& folder) {
  for (const NameRule& rule : folder.family().names) {
    if (!rule.ours.starts_with("head")) continue;
    for (const char* suffix : {"", ".weight", ".bias"}) {
      if (folder.find(std::string(rule.theirs) + suffix)) return true;
    }
  }
  return false;
}

bool has_pooler_tensors(const ModelFolder& folder) {
  for (const NameRule& rule : folder.family().names) {
    if (rule.ours == "pooler" && folder.find(std::string(rule.theirs) + ".weight")) return true;
  }
  return false;
}

}  // namespace echelon
