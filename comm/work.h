// A collective under way.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <utility>

namespace echelon {

/// A collective that may still be running. Its tensors must not be touched before wait(); dropping it waits, unless an
/// exception is on its way up: then the transfer is given up, since the rank is about to fail.
class [[nodiscard]] Work {
 public:
  Work() = default;                                   ///< done already
  explicit Work(std::function<void()> finish) : finish_(std::move(finish)) {}
  Work(Work&& other) noexcept : finish_(std::exchange(other.finish_, nullptr)) {}
  Work& operator=(Work&& other) noexcept {
    std::swap(finish_, other.finish_);
    return *this;
  }
  // May throw: an error of the transfer must not get lost with a Work that nobody waited for.
  ~Work() noexcept(false) {
    if (std::uncaught_exceptions() == 0) wait();
  }

  /// Errors: those of the collective.
  void wait() {
    if (auto finish = std::exchange(finish_, nullptr)) finish();
  }
  bool done() const { return !finish_; }

 private:
  std::function<void()> finish_;
};

/// `work`, and `what` after it: at once where it is done already. Both keep what they use.
inline Work then(Work work, std::function<void()> what) {
  if (work.done()) {
    what();
    return {};
  }
  auto first = std::make_shared<Work>(std::move(work));
  return Work([first, what = std::move(what)] {
    first->wait();
    what();
  });
}

}  // namespace echelon
