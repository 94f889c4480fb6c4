// Threads over rows and channels. An activation [outer, channels, inner] has outer * inner rows;
// the row r of a channel c is element (r / inner * channels + c) * inner + r % inner. A thread
// keeps kWidth neighbouring channels, and with them their coefficients, and strides down the rows.
// Blocks are [x: channel groups, y: rows]: neighbours in a warp are neighbours in memory, as
// channels where inner = 1, else as rows.
#pragma once

#include <algorithm>

#include "launch.h"
#include "vec.cuh"

namespace rnk::cuda {

constexpr int kRowThreads = 256;

// Elements of one 16-byte access.
template <typename Element>
constexpr int kAccess = 16 / static_cast<int>(sizeof(Element));

struct RowPlan {
  dim3 grid, block;
  int64_t channels, inner;
  int64_t turns;        // rows that every thread has
  unsigned extra;       // threads, from the first, that have one more
  int64_t jump;         // elements from a row to the one a step further, but for offset_step
  int64_t offset_step;  // step % inner
  int64_t step;         // rows from one turn to the next
};

// blocks: about as many as are worth starting; at least `rows_each` rows a thread where that leaves
// enough blocks of them.
inline RowPlan plan_rows(int64_t outer, int64_t channels, int64_t inner, int width, int64_t blocks,
                         int64_t rows_each) {
  // 8 accesses of 16 bytes are a cache line, 32 elements a warp.
  const int64_t most = inner > 1 ? 1 : width > 1 ? 8 : 32;
  const int64_t groups = std::max<int64_t>(channels / width, 1);
  const int64_t x = ceil_div(groups, ceil_div(groups, most)), y = kRowThreads / x;
  const int64_t tiles = ceil_div(groups, x), rows = outer * inner;
  const int64_t useful = ceil_div(rows, y * rows_each);
  const int64_t chunks =
      std::clamp<int64_t>(ceil_div(blocks, tiles), 1, std::max<int64_t>(useful, 1));
  RowPlan plan;
  plan.grid =
      dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(std::min<int64_t>(chunks, 65535)));
  plan.block = dim3(static_cast<unsigned>(x), static_cast<unsigned>(y));
  const int64_t step = int64_t{plan.grid.y} * y;
  plan.channels = channels;
  plan.inner = inner;
  plan.turns = rows / step;
  plan.extra = static_cast<unsigned>(rows % step);
  plan.jump = step / inner * channels * inner;
  plan.offset_step = step % inner;
  plan.step = step;
  return plan;
}

// The rows of one thread: for (RowWalk<kWidth> walk(plan); walk.left > 0; walk.next()).
template <int kWidth>
struct RowWalk {
  int64_t channel;  // the first of kWidth
  int64_t row;
  int64_t left;  // rows to come, the present one included; 0 where there is no channel
  int64_t at;    // element index of the present row and first channel

  __device__ explicit RowWalk(const RowPlan& p) {
    const unsigned first = blockIdx.y * blockDim.y + threadIdx.y;
    row = first;
    step_ = p.step;
    channel = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kWidth;
    left = channel < p.channels ? p.turns + (first < p.extra ? 1 : 0) : 0;
    jump_ = p.jump;
    if (kWidth > 1) {
      at = row * p.channels + channel;
      return;
    }
    // The first row is a small number: 32-bit division will do, also where inner is huge.
    const unsigned inner = static_cast<unsigned>(p.inner < 0x7fffffff ? p.inner : 0x7fffffff);
    offset_ = first % inner;
    at = (first / inner * p.channels + channel) * p.inner + offset_;
    inner_ = p.inner;
    offset_step_ = p.offset_step;
    wrap_ = (p.channels - 1) * p.inner;
  }

  __device__ void next() {
    --left;
    row += step_;
    at += jump_;
    if (kWidth > 1) return;
    offset_ += offset_step_;
    at += offset_step_;
    if (offset_ >= inner_) {
      offset_ -= inner_;
      at += wrap_;
    }
  }

 private:
  int64_t step_, jump_, inner_, offset_, offset_step_, wrap_;
};

}  // namespace rnk::cuda
