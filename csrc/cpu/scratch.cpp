#include "scratch.h"

#include <cstdlib>
#include <memory>

#include "huge_pages.h"

namespace rnk::cpu {
namespace {

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
    kept.data.reset();
    kept.floats = 0;
    kept.data.reset(static_cast<float*>(allocate_pages(floats * sizeof(float))));
    kept.floats = floats;
  }
  return kept.data.get();
}

}  // namespace rnk::cpu
