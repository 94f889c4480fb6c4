#include "huge_pages.h"

#include <algorithm>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rnk::cpu {
namespace {

constexpr size_t kLine = 64, kHugePage = size_t{2} << 20;
constexpr int64_t kLineFloats = kLine / sizeof(float);
constexpr int64_t kSlabFloats = 8 * kHugePage / sizeof(float);

}  // namespace

Pages allocate_pages(int64_t floats) {
  size_t bytes = floats * sizeof(float);
  const size_t alignment = bytes >= kHugePage ? kHugePage : kLine;
  bytes = (bytes + alignment - 1) / alignment * alignment;
  Pages pages(static_cast<float*>(std::aligned_alloc(alignment, bytes)));
  if (!pages) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == kHugePage) madvise(pages.get(), bytes, MADV_HUGEPAGE);
#endif
  return pages;
}

struct Slabs::Slab {
  explicit Slab(int64_t floats) : data(allocate_pages(floats)), size(floats) {}
  Pages data;
  int64_t size, used = 0;
};

std::shared_ptr<float> Slabs::allocate(int64_t floats) {
  floats = (floats + kLineFloats - 1) / kLineFloats * kLineFloats;
  if (last_ && last_.use_count() == 1) last_->used = 0;  // all of its pieces are gone
  if (!last_ || last_->size - last_->used < floats)
    last_ = std::make_shared<Slab>(std::max(floats, kSlabFloats));
  float* at = last_->data.get() + last_->used;
  last_->used += floats;
  return {last_, at};
}

}  // namespace rnk::cpu
