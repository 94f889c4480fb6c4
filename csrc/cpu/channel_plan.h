// How per-channel work is laid over memory, the same for every thread count and instruction set.
#pragma once

#include <numeric>

#include "vec_common.h"

namespace rnk::cpu {

// channels_last memory seen as rows of `width` elements, a whole number of copies of the channels
// and of packs: every row starts at a pack and a byte of a mask, also where the channel count is
// odd.
struct RowShape {
  int64_t width;
  int64_t copies;
};

inline RowShape row_shape(int64_t channels) {
  constexpr int64_t kMinWidth = 256;  // amortises a row's start where there are few channels
  int64_t copies = kPack / std::gcd<int64_t>(channels, kPack);
  while (channels * copies < kMinWidth) copies *= 2;
  return {channels * copies, copies};
}

// A per-channel vector repeated to fill a row; the vector itself where one copy does.
template <typename A>
class RowVector {
 public:
  RowVector(const void* vector, int64_t channels, int64_t copies)
      : data_(static_cast<const A*>(vector)) {
    if (vector == nullptr || copies == 1) return;
    copy_.reset(new A[channels * copies]);
    for (int64_t j = 0; j < copies; ++j) {
      std::copy_n(data_, channels, copy_.get() + j * channels);
    }
    data_ = copy_.get();
  }
  const A* data() const { return data_; }

 private:
  const A* data_;
  std::unique_ptr<A[]> copy_;
};

// How a reduction is cut: into chunks of the elements of a channel, from the shape alone, so that
// the order of every sum is the same whatever the threads do.
struct ReductionPlan {
  int64_t chunks;  // of full rows (channels_last) or of units (contiguous)
  int64_t blocks;  // of columns (channels_last) or channels (contiguous)
  int64_t grain;   // tasks = chunks * blocks worth a thread
};

constexpr int64_t kMaxChunks = 64;
constexpr int64_t kBlockColumns = 256;  // columns of one task: their sums stay in the L1 cache

inline ReductionPlan plan_rows(int64_t rows, int64_t width) {
  constexpr int64_t kMinRows = 128;  // a chunk costs a partial sum in memory per column
  const int64_t wanted = std::min(rows / kMinRows, rows * width / kGrain);
  const int64_t chunks = std::clamp<int64_t>(wanted, 1, kMaxChunks);
  const int64_t blocks = (width + kBlockColumns - 1) / kBlockColumns;
  const int64_t task = rows * std::min(width, kBlockColumns) / chunks;
  return {chunks, blocks, std::max<int64_t>(1, kGrain / 2 / std::max<int64_t>(task, 1))};
}

// A plane is cut in units of at most kUnit elements; a chunk is a range of a channel's units.
constexpr int64_t kUnit = 16384;

inline ReductionPlan plan_planes(int64_t outer, int64_t channels, int64_t inner) {
  const int64_t units = outer * ((inner + kUnit - 1) / kUnit);
  const int64_t wanted = std::min(units, outer * channels * inner / kGrain / channels);
  const int64_t chunks = std::clamp<int64_t>(wanted, 1, kMaxChunks);
  const int64_t task = outer * inner / chunks;
  return {chunks, channels, std::max<int64_t>(1, kGrain / 2 / std::max<int64_t>(task, 1))};
}

// The units of one channel in one chunk, in memory order.
struct UnitRange {
  int64_t outer, channels, inner;
  int64_t channel;
  int64_t chunk, chunks;

  // Calls f(offset, size) for each unit.
  template <typename F>
  void visit(F&& f) const {
    const int64_t tiles = (inner + kUnit - 1) / kUnit, units = outer * tiles;
    for (int64_t u = units * chunk / chunks; u < units * (chunk + 1) / chunks; ++u) {
      const int64_t begin = u % tiles * kUnit;
      f((u / tiles * channels + channel) * inner + begin, std::min(inner - begin, kUnit));
    }
  }
};

}  // namespace rnk::cpu
