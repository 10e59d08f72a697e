// Model folders for tests: small models of every family, written, changed and read.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/base/files.h"
#include "cluster/base/safetensors.h"
#include "comm/session.h"
#include "models/interchange/config_writer.h"
#include "models/interchange/interchange.h"
#include "models/interchange/tensor_list.h"

namespace echelon::testing {

using Tensors = std::map<std::string, at::Tensor>;

/// A folder of its own for each test.
class ModelFolders : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  std::string path(const std::string& name) const { return join_path(folder_, name); }

  std::string folder_;
};

Json config_of(const std::string& family, std::optional<bool> tied = {});
Json with(Json config, const std::string& key, Json value);
/// Of every family: tied and not, bare, with biases that others lack.
std::vector<Json> all_configs();
ModelSource source_of(const Json& config);

/// What `action` throws; "no error".
std::string sentence_of(const std::function<void()>& action);

/// Every tensor, those that start at a constant too, gets its own values: a swap of two must show.
class Distinct : public TensorReader {
 public:
  explicit Distinct(const Architecture& architecture);
  bool has(const std::string& name) const override { return sizes_.contains(name); }
  at::Tensor read(const std::string& name, const Slice& slice) override;

 private:
  std::map<std::string, std::vector<int64_t>> sizes_;
};

/// Writes a model with distinct values from `world`. Collective.
void write(const Group& world, const std::string& folder, const Json& config, MeshShape shape,
           const FolderOptions& options = {});
void write_alone(const std::string& folder, const Json& config, const FolderOptions& options = {});

Tensors read_tensors(const std::string& folder);
/// Reads a folder's tensors, lets `change` change them, writes them back.
void change_tensors(const std::string& folder, const std::function<void(Tensors&)>& change);
/// A discarded value: the key goes.
void change_config(const std::string& folder, const std::string& key, Json value);

}  // namespace echelon::testing
