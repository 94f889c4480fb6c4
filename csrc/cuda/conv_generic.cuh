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

// Rows or columns: output position o meets tap t at source position o * stride - padding
// + t * dilation; transposed, the source position is that which o would be the source of. Positions
// fit 32 bits, which csrc/torch/cuda/nhwc.h checks.
struct GatherAxis {
  int out_size, in_size, taps;
  int stride, padding, dilation;

  // Negative: zero is read.
  template <bool kTransposed>
  __device__ int source(int out, int tap) const {
    int at = out * stride - padding + tap * dilation;
    if constexpr (kTransposed) {
      at = out + padding - tap * dilation;
      if (at % stride != 0) return -1;
      at /= stride;
    }
    return at < in_size ? at : -1;
  }
};

// A pixel's image, row and column, moved on without a division.
struct PixelWalk {
  int64_t image;
  int row, column;

  __device__ PixelWalk(int64_t pixel, int rows, int columns)
      : image(pixel / columns / rows),
        row(static_cast<int>(pixel / columns - image * rows)),
        column(static_cast<int>(pixel - (image * rows + row) * columns)) {}

  __device__ void advance(int pixels, int rows, int columns) {
    column += pixels;
    while (column >= columns) {
      column -= columns;
      if (++row == rows) row = 0, ++image;
    }
  }
};

// out[n, oh, ow, channel] = sum over taps (r, s) and depth d of in[n, ih, iw, group * depth + d]
// times filter[group * group_stride + (channel in its group) * lane_stride + d * depth_stride
// + r * stride_r + s * stride_s].
struct Gather {
  const void* in;      // [N, in_h, in_w, groups * depth]
  const void* filter;  // in any strides
  GatherAxis h, w;
  int64_t pixels;       // N * out_h * out_w
  int channels, width;  // of the output, of them in a group
  int in_channels, depth;
  int64_t group_stride, lane_stride, depth_stride, stride_r, stride_s;

  __host__ __device__ int channel_tiles() const { return (channels + kLanes - 1) / kLanes; }
  int64_t pixel_tiles() const { return (pixels + kTilePixels - 1) / kTilePixels; }
};

// Values of x as they are, or act(scale * x + bias) rounded to Element.
template <typename Element>
struct Plain {
  __device__ Compute<Element> operator()(Element x, int /*channel*/) const { return to_compute(x); }
};

template <typename Element>
struct Activated {
  using T = Compute<Element>;
  Prologue in;

  __device__ T operator()(Element x, int channel) const {
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
  int first_channel, channel;

  __device__ explicit GatherThread(const Gather& g) {
    const unsigned channel_tiles = g.channel_tiles();
    tile = blockIdx.x / channel_tiles;
    first_pixel = tile * kTilePixels + threadIdx.y * kRowPixels;
    first_channel = static_cast<int>(blockIdx.x % channel_tiles) * kLanes;
    channel = first_channel + static_cast<int>(threadIdx.x);
  }
};

// Copies filter values [rest, kLanes] of one tap into `staged`, lanes reading neighbours where the
// filter has them.
template <typename Element>
class FilterStage {
 public:
  using T = Compute<Element>;
  static constexpr int kCopies = kLanes / kRows;

  __device__ FilterStage(const Gather& g, int first_channel)
      : depth_first_(g.depth_stride < g.lane_stride), depth_stride_(g.depth_stride) {
    const Element* filter = static_cast<const Element*>(g.filter);
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int channel = first_channel + lane(i), group = channel / g.width;
      const int64_t at = group * g.group_stride + (channel - group * g.width) * g.lane_stride;
      from_[i] = channel < g.channels ? filter + at : nullptr;
    }
  }

  // `at`: offset of the tap and of the first depth.
  __device__ void copy(T (&staged)[kDepth][kLanes + 1], int64_t at, int rest) const {
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
template <typename Element, bool kTransposed, typename Load>
__device__ void gather_sums(const Gather& g, const Load& load, const GatherThread& thread,
                            Compute<Element> (&sums)[kRowPixels]) {
  __shared__ Compute<Element> staged[kDepth][kLanes + 1];
  const FilterStage<Element> stage(g, thread.first_channel);
  const bool inside = thread.channel < g.channels;
  const int in_channel = inside ? thread.channel / g.width * g.depth : 0;
  const Element* in = static_cast<const Element*>(g.in) + in_channel;
#pragma unroll
  for (int i = 0; i < kRowPixels; ++i) sums[i] = 0;

  const PixelWalk first_pixel(thread.first_pixel, g.h.out_size, g.w.out_size);
  for (int r = 0; r < g.h.taps; ++r) {
    for (int s = 0; s < g.w.taps; ++s) {
      int64_t source[kRowPixels];  // offset in elements; negative: zero
      PixelWalk at = first_pixel;
#pragma unroll
      for (int i = 0; i < kRowPixels; ++i, at.advance(1, g.h.out_size, g.w.out_size)) {
        const int ih = g.h.source<kTransposed>(at.row, r);
        const int iw = g.w.source<kTransposed>(at.column, s);
        const bool there = thread.first_pixel + i < g.pixels && ih >= 0 && iw >= 0;
        source[i] = there ? ((at.image * g.h.in_size + ih) * g.w.in_size + iw) * g.in_channels : -1;
      }
      const int64_t tap = r * g.stride_r + s * g.stride_s;
      for (int first = 0; first < g.depth; first += kDepth) {
        const int rest = g.depth - first < kDepth ? g.depth - first : kDepth;
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

inline GatherAxis gather_axis(int64_t out_size, int64_t in_size, int64_t taps, int64_t stride,
                              int64_t padding, int64_t dilation) {
  return {static_cast<int>(out_size), static_cast<int>(in_size), static_cast<int>(taps),
          static_cast<int>(stride),   static_cast<int>(padding), static_cast<int>(dilation)};
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
