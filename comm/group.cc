#include "comm/group.h"

#include <algorithm>
#include <chrono>
#include <initializer_list>

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>

#include "cluster/base/error.h"
#include "comm/backends/backend.h"
#include "comm/purpose.h"

namespace echelon {

namespace {

/// Dtypes that a collective takes, and how an error lists them.
struct Dtypes {
  std::initializer_list<at::ScalarType> all;
  const char* names;
};
constexpr auto kSummedTypes = {at::kDouble, at::kFloat, at::kBFloat16, at::kLong};
constexpr auto kMovedTypes = {at::kDouble, at::kFloat, at::kBFloat16, at::kLong, at::kInt, at::kByte};
constexpr Dtypes kSummed = {kSummedTypes, "float64, float32, bfloat16 or int64"};
constexpr Dtypes kMoved = {kMovedTypes, "float64, float32, bfloat16, int64, int32 or uint8"};

using Clock = std::chrono::steady_clock;

/// The one place where logical bytes are rounded: of `total` bytes sent by all ranks together, the share of this one.
/// The shares of all ranks add up to `total`, and are equal where it is divisible.
int64_t share_of(int64_t total, const Backend& backend) {
  auto up_to = [&](int ranks) { return static_cast<int64_t>(static_cast<__int128>(total) * ranks / backend.size()); };
  return up_to(backend.rank() + 1) - up_to(backend.rank());
}

bool overlap(const at::Tensor& a, const at::Tensor& b) {
  auto* a_begin = static_cast<const char*>(a.const_data_ptr());
  auto* b_begin = static_cast<const char*>(b.const_data_ptr());
  return a.nbytes() > 0 && b.nbytes() > 0 && a_begin < b_begin + b.nbytes() && b_begin < a_begin + a.nbytes();
}

/// In a profile; the bytes are those that this rank sends.
std::string span_name(const std::string& what, Purpose purpose, int64_t bytes) {
  return fmt::format("collective: {}, {}, {} bytes", what, name_of(purpose), bytes);
}

/// One collective on its way from the caller to the backend.
class Passage {
 public:
  Passage(std::shared_ptr<Backend> backend, const std::string& group, Op op, const Call& call, at::ScalarType dtype,
          int64_t count)
      : backend_(std::move(backend)), group_(group), purpose_(call.purpose) {
    collective_ = {.op = op,
                   .name = call.name,
                   .dtype = dtype,
                   .count = count,
                   .reduce = call.reduce,
                   .accumulate = call.accumulate};
  }

  Collective& collective() { return collective_; }

  /// Errors: Error::shape when `tensor` cannot take part.
  void check(const at::Tensor& tensor, const Dtypes& dtypes) const {
    if (!tensor.defined()) throw wrong("no tensor", "a tensor");
    if (tensor.layout() != at::kStrided || !tensor.is_contiguous()) {
      throw wrong(fmt::format("strides {} for shape {}", tensor.strides(), tensor.sizes()), "a contiguous tensor");
    }
    if (std::find(dtypes.all.begin(), dtypes.all.end(), tensor.scalar_type()) == dtypes.all.end()) {
      throw wrong(name_of(tensor.scalar_type()), dtypes.names);
    }
    if (tensor.scalar_type() != collective_.dtype) {
      throw wrong(name_of(tensor.scalar_type()), fmt::format("{} as of the other tensor", name_of(collective_.dtype)));
    }
    if (backend_->size() > 1 && tensor.device().type() != backend_->device().type()) {
      throw wrong(fmt::format("a tensor on {}", tensor.device().str()), backend_->device().str());
    }
  }

  /// `whole` must hold `size` times the elements of `part`.
  void check_counts(const at::Tensor& part, const at::Tensor& whole) const {
    if (whole.numel() == part.numel() * backend_->size()) return;
    throw wrong(fmt::format("{} for a shard {}", whole.sizes(), part.sizes()),
                fmt::format("{} elements, {} for each of {} ranks", part.numel() * backend_->size(), part.numel(),
                            backend_->size()));
  }

  /// `part` may be this rank's slice of `whole`, and share memory with it in no other way.
  void check_place(const at::Tensor& part, const at::Tensor& whole) const {
    if (!overlap(part, whole)) return;
    auto* slice =
        static_cast<const char*>(whole.const_data_ptr()) + part.nbytes() * static_cast<size_t>(backend_->rank());
    if (part.const_data_ptr() != slice)
      throw wrong("a shard that overlaps other slices", "its own slice, or other memory");
  }

  void check_is_rank(int rank) const {
    if (rank >= 0 && rank < backend_->size()) return;
    throw wrong(fmt::format("rank {}", rank), fmt::format("a rank below {}", backend_->size()));
  }

  Error wrong(std::string_view got, std::string_view expected) const {
    Error error = Error::shape(name_of(collective_.op), collective_.name);
    return error.got(got).expected(expected);
  }

  /// Numbers the collective, records it, counts `bytes`, and runs it. Work that goes on is recorded when it ends.
  template <class Run>
  Work run(int64_t bytes, const Run& run) {
    RECORD_USER_SCOPE(span_name(place(), purpose_, bytes));
    int64_t ticket = enter(bytes);
    Membership& membership = backend_->membership();
    Work work = guarded(
        membership, [this] { return place(); }, run);
    if (work.done()) {
      membership.ledger.leave(ticket);
      return work;
    }
    auto rest = std::make_shared<Work>(std::move(work));
    return Work([backend = backend_, rest, ticket, purpose = purpose_, place = place()] {
      RECORD_USER_SCOPE(span_name("wait for " + place, purpose, 0));
      guarded(
          backend->membership(), [&] { return place; }, [&] { rest->wait(); });
      backend->membership().ledger.leave(ticket);
    });
  }

  /// The same for a collective that makes something instead of moving data.
  template <class Make>
  auto make(const Make& make) {
    int64_t ticket = enter(0);
    auto made = guarded(
        backend_->membership(), [this] { return place(); }, make);
    backend_->membership().ledger.leave(ticket);
    return made;
  }

 private:
  int64_t enter(int64_t bytes) {
    bool pairwise = collective_.op == Op::send || collective_.op == Op::recv;  // numbered by pair, in the backend
    if (!pairwise) collective_.sequence = backend_->next_sequence();
    Membership& membership = backend_->membership();
    membership.bytes_sent[static_cast<size_t>(purpose_)] += bytes;
    return membership.ledger.enter({.sequence = collective_.sequence,
                                    .group = group_,
                                    .op = name_of(collective_.op),
                                    .name = collective_.name,
                                    .dtype = name_of(collective_.dtype),
                                    .count = collective_.count,
                                    .bytes = bytes});
  }

  std::string place() const {
    return fmt::format("{} \"{}\" in group {}", name_of(collective_.op), collective_.name, group_);
  }

  /// Runs a part of a collective: its seconds are counted, its errors get its `place`.
  template <class Place, class Part>
  static auto guarded(Membership& membership, const Place& place, const Part& part) {
    struct Timer {
      Membership& membership;
      Clock::time_point start = Clock::now();
      ~Timer() { membership.seconds += std::chrono::duration<double>(Clock::now() - start).count(); }
    } timer{membership};
    try {
      return part();
    } catch (Error& error) {
      throw error.within(place());
    }
  }

  std::shared_ptr<Backend> backend_;
  const std::string& group_;
  Purpose purpose_;
  Collective collective_;
};

void copy_alone(const at::Tensor& from, at::Tensor& to, bool accumulate) {
  if (!accumulate && from.const_data_ptr() == to.const_data_ptr()) return;
  c10::AutoGradMode no_gradients(false);
  at::Tensor flat = to.view(-1);
  accumulate ? flat.add_(from.view(-1)) : flat.copy_(from.view(-1));
}

int64_t bytes_of(const at::Tensor& tensor) { return static_cast<int64_t>(tensor.nbytes()); }

at::ScalarType dtype_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.scalar_type() : at::kByte; }

int64_t count_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.numel() : 0; }

}  // namespace

Group::Group(std::shared_ptr<Backend> backend, std::string name)
    : backend_(std::move(backend)), name_(std::move(name)) {}
Group::~Group() = default;
Group::Group(Group&&) noexcept = default;
Group& Group::operator=(Group&&) noexcept = default;

int Group::rank() const { return backend_->rank(); }
int Group::size() const { return backend_->size(); }
at::Device Group::device() const { return backend_->device(); }

Group Group::split(int color, int key, std::string name) const {
  Call call{.name = "group"};  // the new groups may have different names
  Passage passage(backend_, name_, Op::split, call, at::kByte, 0);
  auto backend = passage.make([&] { return backend_->split(passage.collective(), color, key); });
  return {std::move(backend), std::move(name)};
}

Window Group::allocate(int64_t elements, at::ScalarType dtype) const {
  Call call{.name = "window"};
  Passage passage(backend_, name_, Op::allocate, call, dtype, elements);
  if (elements < 0) throw passage.wrong(fmt::format("{} elements", elements), "0 or more");
  return passage.make([&] { return backend_->allocate(passage.collective(), elements); });
}

Work Group::all_reduce(at::Tensor& tensor, const Call& call) const {
  Passage passage(backend_, name_, Op::all_reduce, call, dtype_of(tensor), count_of(tensor));
  passage.check(tensor, kSummed);
  if (size() == 1) return {};
  int64_t bytes = share_of(2 * (size() - 1) * bytes_of(tensor), *backend_);
  return passage.run(bytes, [&] { return backend_->all_reduce(passage.collective(), tensor); });
}

Work Group::all_gather(const at::Tensor& shard, at::Tensor& full, const Call& call) const {
  Passage passage(backend_, name_, Op::all_gather, call, dtype_of(full), count_of(full));
  passage.check(full, kMoved);
  passage.check(shard, kMoved);
  passage.check_counts(shard, full);
  passage.check_place(shard, full);
  if (size() == 1) {
    copy_alone(shard, full, false);
    return {};
  }
  return passage.run((size() - 1) * bytes_of(shard),
                     [&] { return backend_->all_gather(passage.collective(), shard, full); });
}

Work Group::reduce_scatter(const at::Tensor& full, at::Tensor& shard, const Call& call) const {
  Passage passage(backend_, name_, Op::reduce_scatter, call, dtype_of(full), count_of(full));
  passage.check(full, kSummed);
  passage.check(shard, kSummed);
  passage.check_counts(shard, full);
  passage.check_place(shard, full);
  if (size() == 1) {
    copy_alone(full, shard, call.accumulate);
    return {};
  }
  return passage.run((size() - 1) * bytes_of(shard),
                     [&] { return backend_->reduce_scatter(passage.collective(), full, shard); });
}

Work Group::all_to_all(const at::Tensor& input, at::Tensor& output, const Call& call) const {
  Passage passage(backend_, name_, Op::all_to_all, call, dtype_of(input), count_of(input));
  passage.check(input, kMoved);
  passage.check(output, kMoved);
  if (input.numel() != output.numel() || input.numel() % size() != 0) {
    throw passage.wrong(fmt::format("{} and {}", input.sizes(), output.sizes()),
                        fmt::format("as many elements in both, divisible by {} ranks", size()));
  }
  if (size() == 1) {
    copy_alone(input, output, false);
    return {};
  }
  if (overlap(input, output)) throw passage.wrong("input and output that overlap", "separate memory");
  return passage.run((size() - 1) * (bytes_of(input) / size()),
                     [&] { return backend_->all_to_all(passage.collective(), input, output); });
}

Work Group::broadcast(at::Tensor& tensor, int root, const Call& call) const {
  Passage passage(backend_, name_, Op::broadcast, call, dtype_of(tensor), count_of(tensor));
  passage.check(tensor, kMoved);
  passage.check_is_rank(root);
  passage.collective().root = root;
  if (size() == 1) return {};
  int64_t bytes = rank() == root ? (size() - 1) * bytes_of(tensor) : 0;
  return passage.run(bytes, [&] { return backend_->broadcast(passage.collective(), tensor); });
}

Work Group::send(const at::Tensor& tensor, int to, const Call& call) const {
  Passage passage(backend_, name_, Op::send, call, dtype_of(tensor), count_of(tensor));
  passage.check(tensor, kMoved);
  passage.check_is_rank(to);
  if (to == rank()) throw passage.wrong("this rank itself", "another rank");
  passage.collective().root = to;
  return passage.run(bytes_of(tensor), [&] { return backend_->send(passage.collective(), tensor); });
}

Work Group::recv(at::Tensor& tensor, int from, const Call& call) const {
  Passage passage(backend_, name_, Op::recv, call, dtype_of(tensor), count_of(tensor));
  passage.check(tensor, kMoved);
  passage.check_is_rank(from);
  if (from == rank()) throw passage.wrong("this rank itself", "another rank");
  passage.collective().root = from;
  return passage.run(0, [&] { return backend_->recv(passage.collective(), tensor); });
}

void Group::barrier(const Call& call) const {
  if (size() == 1) return;
  Passage passage(backend_, name_, Op::barrier, call, at::kByte, 0);
  passage.run(0, [&] { return backend_->barrier(passage.collective()); }).wait();
}

void Group::account(const Call& call, int64_t bytes) const {
  backend_->membership().bytes_sent[static_cast<size_t>(call.purpose)] += bytes;
  if (size() == 1) return;  // nothing to show in a profile
  RECORD_USER_SCOPE(
      span_name(fmt::format("in shared memory \"{}\" in group {}", call.name, name_), call.purpose, bytes));
}

int64_t Group::bytes_sent(Purpose purpose) const {
  return backend_->membership().bytes_sent[static_cast<size_t>(purpose)];
}

double Group::seconds() const { return backend_->membership().seconds; }

}  // namespace echelon
