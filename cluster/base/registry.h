// Parts by name: swappable pieces made from typed options.
#pragma once

#include <any>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <typeindex>
#include <vector>

#include <google/protobuf/any.pb.h>
#include <google/protobuf/message.h>

#include "cluster/base/error.h"

namespace echelon {

/// The full message name inside an Any: "echelon.AdamW".
inline std::string part_name(const google::protobuf::Any& options) {
  return options.type_url().substr(options.type_url().find('/') + 1);
}

/// Makes Parts from their options. A Part kind (Objective, Optimizer, …) names what its makers are given in
/// `Kind::Context`. Every `<stem>.cc` in a Part folder defines `void register_<stem>(Registry&)`, which calls add():
///
///     void register_adamw(Registry& registry) {
///       registry.add<Optimizer, AdamW>([](const AdamW& options, const Optimizer::Context& context) { … });
///     }
class Registry {
 public:
  template <class Kind, class Options, class Maker>
  void add(Maker maker) {
    makers_[{typeid(Kind), Options::descriptor()->full_name()}] =
        Make<Kind>([maker](const google::protobuf::Any& any, const typename Kind::Context& context) {
          Options options;
          if (!options.ParseFromString(any.value())) throw Error::recipe(part_name(any), "options are damaged");
          return std::unique_ptr<Kind>(maker(options, context));
        });
  }

  /// A fact that belongs to a Part, under a name of its own ("LORA" of a PeftType).
  template <class Fact>
  void add_fact(const std::string& name, Fact fact) {
    makers_[{typeid(Fact), name}] = fact;
  }
  /// Null: there is none of that name.
  template <class Fact>
  const Fact* find_fact(const std::string& name) const {
    auto found = makers_.find({typeid(Fact), name});
    return found == makers_.end() ? nullptr : std::any_cast<Fact>(&found->second);
  }
  template <class Fact>
  std::vector<std::string> fact_names() const {
    std::vector<std::string> names;
    for (const auto& [key, fact] : makers_) {
      if (key.first == std::type_index(typeid(Fact))) names.push_back(key.second);
    }
    return names;
  }

  /// Errors: Error::recipe when no Part of this kind has that name.
  template <class Kind>
  std::unique_ptr<Kind> make(const google::protobuf::Any& options, const typename Kind::Context& context) const {
    auto found = makers_.find({typeid(Kind), part_name(options)});
    if (found == makers_.end()) throw Error::recipe(part_name(options), "no such Part where it stands in the recipe");
    return std::any_cast<const Make<Kind>&>(found->second)(options, context);
  }

 private:
  template <class Kind>
  using Make = std::function<std::unique_ptr<Kind>(const google::protobuf::Any&, const typename Kind::Context&)>;
  std::map<std::pair<std::type_index, std::string>, std::any> makers_;
};

}  // namespace echelon
