// A model folder that appears, or takes another's place, by one rename.
#pragma once

#include <string>

#include "comm/group.h"

namespace echelon {

/// Everything is written below path(); without commit() nothing remains of it.
class StagedFolder {
 public:
  /// Collective. Errors: Error::storage when `folder` exists and holds anything that is no part of a model.
  StagedFolder(std::string folder, const Group& world);
  ~StagedFolder();
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const std::string& path() const { return staging_; }
  std::string path(const std::string& name) const;
  /// On rank 0, when every rank has written. Errors: Error::storage.
  void commit();

 private:
  void check_replaceable() const;

  std::string folder_, staging_;
  bool first_;
};

}  // namespace echelon
