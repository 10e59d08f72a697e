#include "runtime/recipe/parts.h"
#include "runtime/recipe/fields.h"

#include <algorithm>
#include <array>

#include <google/protobuf/descriptor_database.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "cluster/base/error.h"
#include "cluster/base/registry.h"
#include "cluster/base/text.h"
#include "runtime/recipe/fields.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

constexpr std::array kKinds = {
    PartKind{"objective", "models/objectives/"}, PartKind{"adapter", "models/adapters/"},
    PartKind{"source", "runtime/sources/"},      PartKind{"optimizer", "runtime/optimizers/"},
    PartKind{"schedule", "runtime/schedules/"},  PartKind{"exchange", "sharding/exchange/"},
    PartKind{"weight op", "models/weight_ops/"},
};

const PartKind* kind_of_file(const std::string& file) {
  auto found =
      std::find_if(kKinds.begin(), kKinds.end(), [&](const PartKind& kind) { return file.starts_with(kind.folder); });
  return found == kKinds.end() ? nullptr : &*found;
}

// A Part folder's file may declare helper messages; the Part is the one that is named like the file.
bool is_named_like_its_file(const pb::Descriptor& options) {
  std::string file = options.file()->name();
  std::string stem = file.substr(file.rfind('/') + 1);
  std::erase(stem, '_');
  std::string name = options.name() + ".proto";
  return std::equal(stem.begin(), stem.end(), name.begin(), name.end(),
                    [](char a, char b) { return std::tolower(a) == std::tolower(b); });
}

void add_parts_of_file(const std::string& file_name, std::vector<Part>& parts) {
  const PartKind* kind = kind_of_file(file_name);
  if (!kind) return;
  const pb::FileDescriptor* file = pb::DescriptorPool::generated_pool()->FindFileByName(file_name);
  for (int i = 0; file && i < file->message_type_count(); ++i) {
    const pb::Descriptor* options = file->message_type(i);
    if (is_named_like_its_file(*options)) parts.push_back({options->name(), *kind, options});
  }
}

}  // namespace

std::vector<Part> all_parts() {
  std::vector<std::string> files;
  pb::DescriptorPool::internal_generated_database()->FindAllFileNames(&files);
  std::vector<Part> parts;
  for (const std::string& file : files) add_parts_of_file(file, parts);
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    return std::pair(std::string(a.kind.word), a.name) < std::pair(std::string(b.kind.word), b.name);
  });
  return parts;
}

std::vector<std::string> part_names(const std::string& kind_word) {
  std::vector<std::string> names;
  for (const Part& part : all_parts()) {
    if (kind_word.empty() || kind_word == part.kind.word) names.push_back(part.name);
  }
  return names;
}

const pb::Descriptor* find_part(const std::string& name) {
  std::string full_name = name.starts_with("echelon.") ? name : "echelon." + name;
  const pb::Descriptor* options = pb::DescriptorPool::generated_pool()->FindMessageTypeByName(full_name);
  return options && !kind_of(*options).empty() ? options : nullptr;
}

std::string kind_of(const pb::Descriptor& options) {
  const PartKind* kind = kind_of_file(options.file()->name());
  return kind && is_named_like_its_file(options) ? kind->word : "";
}

std::string kind_of_slot(const pb::FieldDescriptor& field) {
  return field.containing_type()->name() == "DataConfig" ? "source" : field.name();
}

bool is_part_slot(const pb::FieldDescriptor& field) {
  return field.cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE && field.message_type() == pb::Any::descriptor();
}

std::string unknown_part(const std::string& name, const std::string& kind_word) {
  std::vector<std::string> names = part_names(kind_word);
  std::string near = did_you_mean(name, names);
  if (near.empty()) near = fmt::format("there are {}", fmt::join(names, ", "));
  return fmt::format("no {} is named \"{}\"; {}", kind_word.empty() ? "Part" : kind_word, name, near);
}

std::unique_ptr<pb::Message> new_part(const pb::Descriptor& options) {
  return std::unique_ptr<pb::Message>(pb::MessageFactory::generated_factory()->GetPrototype(&options)->New());
}

std::unique_ptr<pb::Message> unpack_part(const pb::Any& any) {
  const pb::Descriptor* descriptor = find_part(part_name(any));
  if (!descriptor) throw Error::recipe(part_name(any), unknown_part(part_name(any)));
  std::unique_ptr<pb::Message> options = new_part(*descriptor);
  if (!options->ParseFromString(any.value())) throw Error::recipe(part_name(any), "options are damaged");
  return options;
}

void pack_part(const pb::Message& options, pb::Any& any) {
  any.set_type_url("echelon/" + options.GetDescriptor()->full_name());
  any.clear_value();
  pb::io::StringOutputStream bytes(any.mutable_value());
  pb::io::CodedOutputStream coded(&bytes);
  coded.SetSerializationDeterministic(true);
  options.SerializePartialToCodedStream(&coded);
}

void each_part(pb::Message& message, const std::function<void(pb::Any&)>& visit) {
  if (auto* any = dynamic_cast<pb::Any*>(&message)) {
    std::unique_ptr<pb::Message> options = unpack_part(*any);
    each_part(*options, visit);
    pack_part(*options, *any);
    visit(*any);
    return;
  }
  const pb::Reflection* reflection = message.GetReflection();
  for (const pb::FieldDescriptor* field : fields_of(message)) {
    if (!is_message(*field)) continue;
    for (int i = 0; i < (field->is_repeated() ? reflection->FieldSize(message, field) : 1); ++i) {
      each_part(field->is_repeated() ? *reflection->MutableRepeatedMessage(&message, field, i)
                                     : *reflection->MutableMessage(&message, field),
                visit);
    }
  }
}

}  // namespace echelon
