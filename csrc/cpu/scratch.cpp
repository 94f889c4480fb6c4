#include "scratch.h"

#include "huge_pages.h"

namespace rnk::cpu {
namespace {

struct Piece {
  Pages data;
  int64_t floats = 0;
};

}  // namespace

float* scratch(Scratch piece, int64_t floats) {
  thread_local Piece pieces[static_cast<int>(Scratch::kCount)];
  Piece& kept = pieces[static_cast<int>(piece)];
  if (floats > kept.floats) {
    kept.data.reset();
    kept.floats = 0;
    kept.data = allocate_pages(floats);
    kept.floats = floats;
  }
  return kept.data.get();
}

}  // namespace rnk::cpu
