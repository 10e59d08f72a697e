#include "comm/backends/signature.h"

#include <algorithm>
#include <cstring>

#include "cluster/base/error.h"

namespace echelon {

std::string_view name_of(Op op) {
  switch (op) {
    case Op::none: return "none";
    case Op::split: return "split";
    case Op::allocate: return "allocate";
    case Op::all_reduce: return "all_reduce";
    case Op::all_gather: return "all_gather";
    case Op::reduce_scatter: return "reduce_scatter";
    case Op::all_to_all: return "all_to_all";
    case Op::broadcast: return "broadcast";
    case Op::send: return "send";
    case Op::recv: return "recv";
    case Op::barrier: return "barrier";
  }
  return "unknown";
}

std::string_view name_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble: return "float64";
    case at::kFloat: return "float32";
    case at::kBFloat16: return "bfloat16";
    case at::kLong: return "int64";
    case at::kInt: return "int32";
    case at::kByte: return "uint8";
    default: return c10::toString(dtype);
  }
}

namespace {

std::string_view name_of(Reduce reduce) {
  switch (reduce) {
    case Reduce::sum: return "sum";
    case Reduce::max: return "max";
    case Reduce::min: return "min";
  }
  return "unknown";
}

bool reduces(Op op) { return op == Op::all_reduce || op == Op::reduce_scatter; }

}  // namespace

uint64_t text_hash(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (unsigned char c : text) hash = (hash ^ c) * 0x100000001b3;
  return hash;
}

Signature Signature::of(const Collective& collective) {
  Signature signature;
  signature.sequence = collective.sequence;
  signature.count = collective.count;
  signature.name_hash = text_hash(collective.name);
  signature.op = collective.op;
  signature.dtype = collective.dtype;
  signature.root = collective.root;
  signature.reduce = collective.reduce;
  size_t length = std::min(collective.name.size(), sizeof signature.name - 1);
  std::memcpy(signature.name, collective.name.data(), length);
  signature.name[length] = '\0';
  return signature;
}

bool Signature::agrees(const Signature& other) const {
  return sequence == other.sequence && count == other.count && name_hash == other.name_hash && op == other.op &&
         dtype == other.dtype && root == other.root && reduce == other.reduce;
}

std::string Signature::text() const {
  std::string_view shown(name, strnlen(name, sizeof name));
  std::string text = fmt::format("{} \"{}\"", echelon::name_of(op), shown);
  if (op == Op::split || op == Op::barrier) return text + fmt::format(" (number {})", sequence);
  text += fmt::format(" of {} {}", count, echelon::name_of(dtype));
  if (reduces(op) && reduce != Reduce::sum) text += fmt::format(", {}", name_of(reduce));
  if (op == Op::broadcast) text += fmt::format(" from rank {}", root);
  return text + fmt::format(" (number {})", sequence);
}

bool same_message(const Signature& one, const Signature& other) {
  Signature as_other = one;
  as_other.op = other.op;
  as_other.root = other.root;
  return one.op != other.op && as_other.agrees(other);
}

Error disagreement(int rank, const Signature& mine, int other_rank, const Signature& theirs) {
  return Error::comm("", fmt::format("ranks disagree: rank {} in {}, rank {} in {}", rank, mine.text(), other_rank,
                                     theirs.text()))
      .remedy("every rank of a group must make the same collectives in the same order");
}

}  // namespace echelon
