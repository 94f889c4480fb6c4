#include "scratch.h"

#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rnk::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

struct Free {
  void operator()(float* p) const { std::free(p); }
};

struct Piece {
  std::unique_ptr<float, Free> data;
  int64_t floats = 0;
};

}  // namespace

float* scratch(Scratch piece, int64_t floats) {
  thread_local Piece pieces[static_cast<int>(Scratch::kCount)];
  Piece& kept = pieces[static_cast<int>(piece)];
  if (floats > kept.floats) {
    const size_t alignment = floats * sizeof(float) >= kHugePage ? kHugePage : 64;
    const size_t bytes = (floats * sizeof(float) + alignment - 1) / alignment * alignment;
    kept.data.reset();
    kept.floats = 0;
    kept.data.reset(static_cast<float*>(std::aligned_alloc(alignment, bytes)));
    if (!kept.data) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == kHugePage) madvise(kept.data.get(), bytes, MADV_HUGEPAGE);
#endif
    kept.floats = static_cast<int64_t>(bytes / sizeof(float));
  }
  return kept.data.get();
}

}  // namespace rnk::cpu
