// Where a pooling window lies: the valid taps of an output, and the outputs that use an input.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "../common/pool_params.h"
#include "vec_common.h"

namespace rnk::cpu {

struct Range {
  int64_t begin, end;
};

// One spatial dimension of a pooling.
struct PoolAxis {
  int64_t in, out, kernel, stride, padding, dilation;

  // Input coordinate of tap 0 of an output; may be negative.
  int64_t start(int64_t output) const { return output * stride - padding; }

  // The taps of an output that lie inside the input.
  Range taps(int64_t output) const {
    const int64_t first = start(output);
    const int64_t begin = first < 0 ? (-first + dilation - 1) / dilation : 0;
    const int64_t end = first < in ? (in - 1 - first) / dilation + 1 : 0;
    return {std::min(begin, kernel), std::min(end, kernel)};
  }

  // The output that sees input coordinate `at` under `tap`, or -1.
  int64_t output_of(int64_t at, int64_t tap) const {
    const int64_t moved = at + padding - tap * dilation;
    if (moved < 0 || moved % stride != 0 || moved / stride >= out) return -1;
    return moved / stride;
  }

  // Length of an output's window inside the padded input.
  int64_t padded_length(int64_t output) const {
    return std::min(start(output) + kernel, in + padding) - start(output);
  }
};

inline PoolAxis pool_rows(const PoolShape& s) {
  return {s.h, s.p, s.kernel_h, s.stride_h, s.padding_h, s.dilation_h};
}

inline PoolAxis pool_columns(const PoolShape& s) {
  return {s.w, s.q, s.kernel_w, s.stride_w, s.padding_w, s.dilation_w};
}

// The outputs whose window, without dilation, covers input coordinate `at`.
inline Range outputs_over(const PoolAxis& axis, int64_t at) {
  const int64_t first = at + axis.padding - axis.kernel + 1;
  const int64_t begin = first > 0 ? (first + axis.stride - 1) / axis.stride : 0;
  return {begin, std::min(axis.out, (at + axis.padding) / axis.stride + 1)};
}

// What torch divides the sum of a window by.
inline double pool_divisor(const PoolAxis& rows, const PoolAxis& columns, int64_t p, int64_t q,
                           bool count_include_pad) {
  if (count_include_pad) {
    return static_cast<double>(rows.padded_length(p) * columns.padded_length(q));
  }
  const Range r = rows.taps(p), s = columns.taps(q);
  return static_cast<double>((r.end - r.begin) * (s.end - s.begin));
}

// A per-channel vector that can be read in whole packs.
template <typename A>
class PackedVector {
 public:
  PackedVector(const void* vector, int64_t channels) : data_(static_cast<const A*>(vector)) {
    if (vector == nullptr || channels % kPack == 0) return;
    copy_.reset(new A[channels + kPack]());
    std::copy_n(data_, channels, copy_.get());
    data_ = copy_.get();
  }
  const A* data() const { return data_; }

 private:
  const A* data_;
  std::unique_ptr<A[]> copy_;
};

// channels_last: f(n, row, first channel, last channel) for every row of `rows` per image.
template <typename F>
void for_each_pool_row(const PoolShape& s, int64_t rows, int64_t work_per_row, ParallelFor pf,
                       F&& f) {
  constexpr int64_t kChannels = 256;  // a task's share of the channels: work for many threads
  const int64_t blocks = (s.c + kChannels - 1) / kChannels;
  const int64_t task = std::max<int64_t>(1, work_per_row * std::min(s.c, kChannels));
  parallel(pf, s.n * rows * blocks, std::max<int64_t>(1, kGrain / task), [&](int64_t i, int64_t e) {
    for (; i < e; ++i) {
      const int64_t block = i % blocks, row = i / blocks;
      f(row / rows, row % rows, block * kChannels, std::min(s.c, (block + 1) * kChannels));
    }
  });
}

// contiguous: f(plane) for the N * C planes, with scratch space of `size` numbers that is kept.
template <typename A, typename F>
void for_each_pool_plane(const PoolShape& s, int64_t size, ParallelFor pf, F&& f) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.h * s.w));
  parallel(pf, s.n * s.c, grain, [&](int64_t plane, int64_t end) {
    const std::unique_ptr<A[]> scratch(new A[size + kPack]);
    for (; plane < end; ++plane) f(plane, scratch.get());
  });
}

}  // namespace rnk::cpu
