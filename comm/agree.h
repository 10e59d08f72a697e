// Decisions that every rank takes alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/group.h"

namespace echelon {

/// True when `mine` is true on every rank.
bool agree_all(const Group& group, bool mine, const std::string& decision);
/// True when `mine` is true on any rank.
bool agree_any(const Group& group, bool mine, const std::string& decision);
/// For each of `mine`: true when it is true on any rank. One reduction for all.
std::vector<bool> agree_any(const Group& group, const std::vector<bool>& mine, const std::string& decisions);
/// Sum, largest, over the ranks.
int64_t agree_sum(const Group& group, int64_t mine, const std::string& quantity);
double agree_sum(const Group& group, double mine, const std::string& quantity);
int64_t agree_max(const Group& group, int64_t mine, const std::string& quantity);
double agree_max(const Group& group, double mine, const std::string& quantity);
/// Throws Error::comm naming two ranks and their values unless `mine` is the same text on every rank.
void agree_same(const Group& group, const std::string& mine, const std::string& what);
/// `text` of rank `root`, on every rank.
std::string agree_text(const Group& group, const std::string& text, int root, const std::string& what);

}  // namespace echelon
