#include "suspicions.h"

#include "error.h"

namespace rnk::emu {

void Suspicions::add(uint32_t uid, uint32_t lane, const void* word, std::string message) {
  std::lock_guard<std::mutex> hold(mutex_);
  open_.emplace(std::make_tuple(uid, lane, word), std::move(message));
  any_ = true;
}

void Suspicions::forgive(uint32_t uid, uint32_t lane, const void* word) {
  std::lock_guard<std::mutex> hold(mutex_);
  open_.erase(std::make_tuple(uid, lane, word));
  any_ = !open_.empty();
}

void Suspicions::report() {
  if (any()) throw Error("race", open_.begin()->second);
}

}  // namespace rnk::emu
