#include "comm/agree.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include <ATen/ATen.h>

#include "cluster/base/error.h"
#include "comm/backends/signature.h"

namespace echelon {

namespace {

template <class T>
T reduced(const Group& group, T mine, Reduce reduce, const std::string& name) {
  at::Tensor value =
      at::scalar_tensor(mine, at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value)).to(group.device());
  group.all_reduce(value, {.name = name, .reduce = reduce}).wait();
  return value.item<T>();
}

/// The bytes of `text` as a tensor of `size`, cut or padded with zeroes.
at::Tensor bytes_of(const std::string& text, int64_t size, at::Device device) {
  at::Tensor bytes = at::zeros({size}, at::kByte);
  std::copy_n(text.data(), std::min<int64_t>(size, std::ssize(text)), static_cast<char*>(bytes.data_ptr()));
  return bytes.to(device);
}

std::string text_of(const at::Tensor& bytes, int64_t size) {
  at::Tensor here = bytes.cpu();
  return {static_cast<const char*>(here.const_data_ptr()), static_cast<size_t>(std::min(size, here.numel()))};
}

/// `mine` of every rank.
std::vector<int64_t> gathered(const Group& group, int64_t mine, const std::string& name) {
  at::Tensor value = at::scalar_tensor(mine, at::kLong).to(group.device());
  at::Tensor all = at::empty({group.size()}, value.options());
  group.all_gather(value, all, {.name = name}).wait();
  at::Tensor here = all.cpu();
  const auto* begin = here.const_data_ptr<int64_t>();
  return {begin, begin + here.numel()};
}

}  // namespace

bool agree_all(const Group& group, bool mine, const std::string& decision) {
  return reduced<int64_t>(group, mine, Reduce::min, decision) != 0;
}

bool agree_any(const Group& group, bool mine, const std::string& decision) {
  return reduced<int64_t>(group, mine, Reduce::max, decision) != 0;
}

std::vector<bool> agree_any(const Group& group, const std::vector<bool>& mine, const std::string& decisions) {
  at::Tensor flags = at::tensor(std::vector<int64_t>(mine.begin(), mine.end()), at::kLong).to(group.device());
  group.all_reduce(flags, {.name = decisions, .reduce = Reduce::max}).wait();
  at::Tensor any = flags.cpu();
  const auto* begin = any.const_data_ptr<int64_t>();
  return std::vector<bool>(begin, begin + any.numel());
}

int64_t agree_sum(const Group& group, int64_t mine, const std::string& quantity) {
  return reduced(group, mine, Reduce::sum, quantity);
}

double agree_sum(const Group& group, double mine, const std::string& quantity) {
  return reduced(group, mine, Reduce::sum, quantity);
}

int64_t agree_max(const Group& group, int64_t mine, const std::string& quantity) {
  return reduced(group, mine, Reduce::max, quantity);
}

double agree_max(const Group& group, double mine, const std::string& quantity) {
  return reduced(group, mine, Reduce::max, quantity);
}

void agree_same(const Group& group, const std::string& mine, const std::string& what) {
  std::vector<int64_t> hashes = gathered(group, static_cast<int64_t>(text_hash(mine)), what);
  auto other = std::find_if(hashes.begin(), hashes.end(), [&](int64_t hash) { return hash != hashes[0]; });
  if (other == hashes.end()) return;
  // All ranks are here, since all have seen the same hashes.
  constexpr int64_t shown = 200;
  at::Tensor text = bytes_of(mine, shown, group.device());
  at::Tensor texts = at::empty({group.size(), shown}, text.options());
  group.all_gather(text, texts, {.name = what}).wait();
  auto text_of_rank = [&](int64_t rank) { return std::string(text_of(texts[rank], shown).c_str()); };
  int64_t rank = other - hashes.begin();
  throw Error::comm(what, fmt::format("ranks disagree: rank 0 has \"{}\", rank {} has \"{}\"", text_of_rank(0), rank,
                                      text_of_rank(rank)));
}

std::string agree_text(const Group& group, const std::string& text, int root, const std::string& what) {
  at::Tensor size = at::scalar_tensor(static_cast<int64_t>(text.size()), at::kLong).to(group.device());
  group.broadcast(size, root, {.name = what}).wait();
  at::Tensor bytes = bytes_of(text, size.item<int64_t>(), group.device());
  group.broadcast(bytes, root, {.name = what}).wait();
  return text_of(bytes, bytes.numel());
}

}  // namespace echelon
