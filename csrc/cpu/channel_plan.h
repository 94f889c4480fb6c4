// How per-channel work is laid over memory, the same for every thread count and instruction set.
#pragma once

#include <numeric>

#include "vec_common.h"

namespace rnk::cpu {

// channels_last memory seen as rows of `width` elements, a whole number of copies of the channels and
// of packs: every row starts at a pack and a byte of a mask, also where the channel count is odd.
struct RowShape {
  int64_t width;
  int64_t copies;
};

inline RowShape row_shape(int64_t channels) {
  constexpr int64_t kMinWidth = 128;  // amortises a row's start where there are few channels
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

}  // namespace rnk::cpu
