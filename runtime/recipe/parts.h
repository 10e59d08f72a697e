// Parts as data: which there are, of which kind, and their options inside an Any.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <google/protobuf/any.pb.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

namespace echelon {

/// One kind of Part: the word in messages, and the folder whose protos declare its options.
struct PartKind {
  const char* word;    ///< "objective"
  const char* folder;  ///< "models/objectives/"
};

struct Part {
  std::string name;  ///< "AdamW"
  PartKind kind;
  const google::protobuf::Descriptor* options;
};

/// Every Part whose options are linked into this program, by kind and then by name.
std::vector<Part> all_parts();
/// Names of the Parts of a kind ("optimizer"); of every Part when `kind_word` is empty.
std::vector<std::string> part_names(const std::string& kind_word = "");

/// The options of the Part `name` ("AdamW" or "echelon.AdamW"), or null.
const google::protobuf::Descriptor* find_part(const std::string& name);
/// The word for the kind of a Part's options, or "" when the message is no Part.
std::string kind_of(const google::protobuf::Descriptor& options);
/// The kind that belongs into an Any field of the recipe: "optimizer" for Recipe.optimizer, "source" for
/// DataConfig.train.
std::string kind_of_slot(const google::protobuf::FieldDescriptor& field);

/// Whether the field holds a Part.
bool is_part_slot(const google::protobuf::FieldDescriptor& field);

/// The sentence for a name that is no Part: not built yet, or the nearest names.
std::string unknown_part(const std::string& name, const std::string& kind_word = "");

/// The options inside `any`. Errors: Error::recipe when the Part is unknown or its bytes are damaged.
std::unique_ptr<google::protobuf::Message> unpack_part(const google::protobuf::Any& any);
/// Options at their defaults.
std::unique_ptr<google::protobuf::Message> new_part(const google::protobuf::Descriptor& options);
/// Stores `options` under the type url that recipes use. The same options give the same bytes.
void pack_part(const google::protobuf::Message& options, google::protobuf::Any& any);

/// Calls `visit` for every Part inside a message, a Part's own Parts first. Each is stored anew, under its full name.
void each_part(google::protobuf::Message& message, const std::function<void(google::protobuf::Any&)>& visit);

}  // namespace echelon
