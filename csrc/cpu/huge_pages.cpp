#include "huge_pages.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rnk::cpu {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kSlab = 8 * kHugePage;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

struct Free {
  void operator()(void* p) const { std::free(p); }
};

}  // namespace

void* allocate_pages(size_t bytes) {
  const size_t alignment = bytes >= kHugePage ? kHugePage : kLine;
  bytes = round_up(bytes, alignment);
  void* p = std::aligned_alloc(alignment, bytes);
  if (p == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
#endif
  return p;
}

struct Slabs::Slab {
  explicit Slab(size_t bytes) : data(allocate_pages(bytes)), size(bytes) {}
  std::unique_ptr<void, Free> data;
  size_t size, used = 0;
};

std::shared_ptr<float> Slabs::allocate(int64_t floats) {
  const size_t bytes = round_up(floats * sizeof(float), kLine);
  if (last_ && last_.use_count() == 1) last_->used = 0;  // all of its pieces are gone
  if (!last_ || last_->size - last_->used < bytes)
    last_ = std::make_shared<Slab>(std::max(bytes, kSlab));
  char* at = static_cast<char*>(last_->data.get()) + last_->used;
  last_->used += bytes;
  return {last_, reinterpret_cast<float*>(at)};
}

}  // namespace rnk::cpu
