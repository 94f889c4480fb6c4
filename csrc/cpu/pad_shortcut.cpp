// pad_shortcut_fwd, pad_shortcut_bwd: each writes its output once, pieces of the input with zeros
// around them. Bytes are moved as they are, whatever they stand for. Memory bound.
#include "pad_shortcut.h"

#include <algorithm>
#include <cstring>

namespace rnk::cpu {
namespace {

// A row of output: `count` pieces of the input, `step` bytes apart there, and zeros in front of
// them, between them and behind them.
struct SpreadRow {
  int64_t count, piece, step;
  int64_t front, between, behind;

  int64_t bytes() const { return front + count * piece + (count - 1) * between + behind; }

  void write(const char* from, char* to) const {
    std::memset(to, 0, front);
    to += front;
    for (int64_t i = 0; i < count; ++i, from += step) {
      std::memcpy(to, from, piece);
      to += piece;
      const int64_t zeros = i + 1 < count ? between : behind;
      std::memset(to, 0, zeros);
      to += zeros;
    }
  }
};

// Calls body(row) for the rows [0, count) of `bytes` each, on several threads.
template <typename Body>
void for_each_row(int64_t count, int64_t bytes, ParallelFor parallel_for, const Body& body) {
  constexpr int64_t kGrainBytes = kGrain * 4;
  const int64_t grain = std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, bytes));
  parallel(parallel_for, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace

void pad_shortcut_fwd(const PadShortcutParams& s, const void* x, void* z,
                      ParallelFor parallel_for) {
  const int64_t pixel = s.c * s.element_size;
  const int64_t front = s.front * s.element_size, back = s.back * s.element_size;
  const SpreadRow row{s.q, pixel, s.stride * pixel, front, back + front, back};
  for_each_row(s.n * s.p, row.bytes(), parallel_for, [&](int64_t i) {
    const int64_t from = i / s.p * s.h + i % s.p * s.stride;
    row.write(static_cast<const char*>(x) + from * s.w * pixel,
              static_cast<char*>(z) + i * row.bytes());
  });
}

void pad_shortcut_bwd(const PadShortcutParams& s, const void* dz, void* dx,
                      ParallelFor parallel_for) {
  const int64_t pixel = s.c * s.element_size, front = s.front * s.element_size;
  const int64_t step = pixel + front + s.back * s.element_size;
  const int64_t last = (s.q - 1) * s.stride;
  const SpreadRow row{s.q, pixel, step, 0, (s.stride - 1) * pixel, (s.w - 1 - last) * pixel};
  for_each_row(s.n * s.h, row.bytes(), parallel_for, [&](int64_t i) {
    const int64_t n = i / s.h, h = i % s.h;
    char* to = static_cast<char*>(dx) + i * row.bytes();
    if (h % s.stride) {
      std::memset(to, 0, row.bytes());
      return;
    }
    const int64_t from = (n * s.p + h / s.stride) * s.q;
    row.write(static_cast<const char*>(dz) + from * step + front, to);
  });
}

}  // namespace rnk::cpu
