// A collective under way.
#pragma once

#include <functional>
#include <utility>

namespace echelon {

/// A collective that may still be running. Its tensors must not be touched before wait(); dropping it waits.
class [[nodiscard]] Work {
 public:
  Work() = default;                                   ///< done already
  explicit Work(std::function<void()> finish) : finish_(std::move(finish)) {}
  Work(Work&& other) noexcept : finish_(std::exchange(other.finish_, nullptr)) {}
  Work& operator=(Work&& other) noexcept {
    std::swap(finish_, other.finish_);
    return *this;
  }
  ~Work() {
    if (finish_) finish_();
  }

  void wait() {
    if (auto finish = std::exchange(finish_, nullptr)) finish();
  }

 private:
  std::function<void()> finish_;
};

}  // namespace echelon
