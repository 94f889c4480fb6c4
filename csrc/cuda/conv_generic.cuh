// What the generic forward convolution and input gradient share: both are sums over the taps of a
// filter, for a tile of 32 pixels and 32 channels, with the filter staged in shared memory. Lanes
// are channels; all lanes of a warp have the same pixels, so borders do not diverge.
#pragma once

#include "act.cuh"
#include "conv_params.h"
#include "vec.cuh"

namespace rnk::cuda {

constexpr int kLanes = 32;       // channels of a block, one a lane
constexpr int kRows = 8;         // warps of a block
constexpr int kRowPixels = 4;    // neighbouring pixels of a thread
constexpr int kDepth = kLanes;   // filter values of a channel that are staged at a time
constexpr int kBlocksPerSm = 2;  // without it ptxas aims at 3 and spills for sm_90
constexpr int kTilePixels = kRows * kRowPixels;

// Rows or columns: output position o meets tap t at (o * scale + offset + t * step) / divisor,
// where that is whole and inside the image.
struct GatherAxis {
  int64_t out_size, in_size, taps;
  int64_t scale, offset, step, divisor;

  __device__ int64_t source(int64_t out, int64_t tap) const {
    int64_t at = out * scale + offset + tap * step;
    if (divisor != 1) {
      if (at % divisor != 0) return -1;
      at /= divisor;
    }
    return at < in_size ? at : -1;
  }
};

// out[n, oh, ow, channel] = sum over taps (r, s) and depth d of in[n, ih, iw, group * depth + d]
// times filter[group * group_stride + (channel in its group) * lane_stride + d * depth_stride
// + r * stride_r + s * stride_s].
struct Gather {
  const void* in;      // [N, in_h, in_w, groups * depth]
  const void* filter;  // in any strides
  GatherAxis h, w;
  int64_t pixels;    // N * out_h * out_w
  int64_t channels;  // of the output
  int64_t width;     // of them in a group
  int64_t depth;
  int64_t in_channels;
  int64_t group_stride, lane_stride, depth_stride, stride_r, stride_s;

  int64_t channel_tiles() const { return (channels + kLanes - 1) / kLanes; }
  int64_t pixel_tiles() const { return (pixels + kTilePixels - 1) / kTilePixels; }
};

// Values of x as they are, or act(scale * x + bias) rounded to Element.
template <typename Element>
struct Plain {
  __device__ Compute<Element> operator()(Element x, int64_t /*channel*/) const {
    return to_compute(x);
  }
};

template <typename Element>
struct Activated {
  using T = Compute<Element>;
  Prologue in;

  __device__ T operator()(Element x, int64_t channel) const {
    const T value = to_compute(x);
    if (in.scale == nullptr) return value;
    const T scale = static_cast<const T*>(in.scale)[channel];
    const T t = scale * value + static_cast<const T*>(in.bias)[channel];
    return to_compute(from_compute<Element>(apply_act(t, in.act, static_cast<T>(in.slope))));
  }
};

// Where the calling thread works: blocks of one tile of pixels follow each other.
struct GatherThread {
  int64_t tile;         // of pixels
  int64_t first_pixel;  // of the thread's kRowPixels
  int64_t first_channel, channel;

  __device__ explicit GatherThread(const Gather& g) {
    const int64_t channel_tiles = (g.channels + kLanes - 1) / kLanes;
    tile = blockIdx.x / channel_tiles;
    first_pixel = tile * kTilePixels + threadIdx.y * kRowPixels;
    first_channel = blockIdx.x % channel_tiles * kLanes;
    channel = first_channel + threadIdx.x;
  }
};

// Copies filter values [rest, kLanes] of one tap into `staged`, lanes reading neighbours where the
// filter has them.
template <typename Element>
class FilterStage {
 public:
  using T = Compute<Element>;
  static constexpr int kCopies = kLanes / kRows;

  __device__ FilterStage(const Gather& g, int64_t first_channel)
      : depth_first_(g.depth_stride < g.lane_stride), depth_stride_(g.depth_stride) {
    const Element* filter = static_cast<const Element*>(g.filter);
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int64_t channel = first_channel + lane(i);
      const int64_t group = channel / g.width;
      const int64_t at = group * g.group_stride + (channel - group * g.width) * g.lane_stride;
      from_[i] = channel < g.channels ? filter + at : nullptr;
    }
  }

  // `at`: offset of the tap and of the first depth.
  __device__ void copy(T (&staged)[kDepth][kLanes + 1], int64_t at, int64_t rest) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int depth = depth_first_ ? threadIdx.x : threadIdx.y + i * kRows;
      if (depth < rest && from_[i] != nullptr) {
        staged[depth][lane(i)] = to_compute(from_[i][at + depth * depth_stride_]);
      }
    }
  }

 private:
  __device__ int lane(int i) const { return depth_first_ ? threadIdx.y + i * kRows : threadIdx.x; }

  const bool depth_first_;
  const int64_t depth_stride_;
  const Element* from_[kCopies];
};

// The sums of the thread's pixels at its channel; zero beyond the last pixel or channel.
template <typename Element, typename Load>
__device__ void gather_sums(const Gather& g, const Load& load, const GatherThread& thread,
                            Compute<Element> (&sums)[kRowPixels]) {
  __shared__ Compute<Element> staged[kDepth][kLanes + 1];
  const FilterStage<Element> stage(g, thread.first_channel);
  const bool inside = thread.channel < g.channels;
  const int64_t in_channel = inside ? thread.channel / g.width * g.depth : 0;
  const Element* in = static_cast<const Element*>(g.in) + in_channel;

  int64_t image[kRowPixels], row[kRowPixels], column[kRowPixels];
#pragma unroll
  for (int i = 0; i < kRowPixels; ++i) {
    const int64_t pixel = thread.first_pixel + i;
    column[i] = pixel % g.w.out_size;
    row[i] = pixel / g.w.out_size % g.h.out_size;
    image[i] = pixel < g.pixels ? pixel / g.w.out_size / g.h.out_size : -1;
    sums[i] = 0;
  }

  for (int64_t r = 0; r < g.h.taps; ++r) {
    for (int64_t s = 0; s < g.w.taps; ++s) {
      int64_t source[kRowPixels];  // offset in elements; negative: zero
#pragma unroll
      for (int i = 0; i < kRowPixels; ++i) {
        const int64_t ih = g.h.source(row[i], r), iw = g.w.source(column[i], s);
        const bool there = image[i] >= 0 && ih >= 0 && iw >= 0;
        source[i] = there ? ((image[i] * g.h.in_size + ih) * g.w.in_size + iw) * g.in_channels : -1;
      }
      const int64_t tap = r * g.stride_r + s * g.stride_s;
      for (int64_t first = 0; first < g.depth; first += kDepth) {
        const int64_t rest = g.depth - first < kDepth ? g.depth - first : kDepth;
        __syncthreads();
        stage.copy(staged, tap + first * g.depth_stride, rest);
        __syncthreads();
#pragma unroll 1
        for (int d = 0; d < rest; ++d) {
          const Compute<Element> value = inside ? staged[d][threadIdx.x] : 0;
#pragma unroll
          for (int i = 0; i < kRowPixels; ++i) {
            if (source[i] < 0) continue;
            sums[i] += value * load(in[source[i] + first + d], in_channel + first + d);
          }
        }
      }
    }
  }
}

// The sum of `value` over the block's rows, lane by lane, in a fixed order; every thread gets it.
template <typename T>
__device__ T column_sum(T value) {
  __shared__ T rows[kRows][kLanes];
  __syncthreads();
  rows[threadIdx.y][threadIdx.x] = value;
  __syncthreads();
  T sum = 0;
#pragma unroll
  for (int i = 0; i < kRows; ++i) sum += rows[i][threadIdx.x];
  return sum;
}

}  // namespace rnk::cuda
