// Copies of chunks of pixels into shared memory. A thread brings one piece of columns, always the
// same, of every kPixelStep-th pixel.
#pragma once

#include "async_copy.cuh"
#include "igemm_prologue.cuh"
#include "igemm_wgrad_params.h"
#include "igemm_wgrad_tile.cuh"

namespace rnk::cuda {

// A thread's place in an operand of kColumns columns.
template <class Tile, int kColumns>
struct WgradLane {
  static constexpr int kRowPieces = kColumns / Tile::kElements;
  static constexpr int kPixelStep = Tile::kThreads / kRowPieces;
  static constexpr int kPasses = Tile::kPixels / kPixelStep;
  static_assert(kPasses * kPixelStep == Tile::kPixels);

  __device__ static int piece() { return threadIdx.x % kRowPieces; }
  __device__ static int pixel(int pass) { return threadIdx.x / kRowPieces + pass * kPixelStep; }
  __device__ static uint32_t offset(int pass) { return panel_offset<Tile>(pixel(pass), piece()); }
};

// dy's channels from first_row on. kWhole: in whole pieces.
template <class Tile, typename Element, bool kWhole>
class WgradRows {
 public:
  using Lane = WgradLane<Tile, Tile::kM>;

  __device__ WgradRows(const IgemmWgrad& p, int group, int first_row, int first_pixel)
      : pixel_(first_pixel), count_(p.rows - first_row - Lane::piece() * Tile::kElements) {
    from_ = static_cast<const Element*>(p.dy) + group * p.rows + first_row +
            Lane::piece() * Tile::kElements;
  }

  // end: the first pixel that is another block's.
  __device__ void start(const IgemmWgrad& p, uint32_t stage, int end) {
#pragma unroll
    for (int i = 0; i < Lane::kPasses; ++i) {
      const int pixel = pixel_ + Lane::pixel(i);
      const Element* from = from_ + pixel * p.dy_pitch;
      if constexpr (kWhole) {
        copy_async_16(stage + Lane::offset(i), from, pixel < end && count_ > 0);
      } else {
        auto* elements = reinterpret_cast<Element*>(&pieces_[i]);
#pragma unroll
        for (int e = 0; e < Tile::kElements; ++e) {
          elements[e] = from_compute<Element>(0.0f);
          if (pixel < end && e < count_) elements[e] = from[e];
        }
      }
    }
    pixel_ += Tile::kPixels;
  }

  __device__ void finish(unsigned char* stage) const {
    if constexpr (!kWhole) {
#pragma unroll
      for (int i = 0; i < Lane::kPasses; ++i) {
        *reinterpret_cast<int4*>(stage + Lane::offset(i)) = pieces_[i];
      }
    }
  }

 private:
  const Element* from_;
  int pixel_, count_;
  int4 pieces_[kWhole ? 1 : Lane::kPasses];
};

// Where an output pixel's filter window starts in the input.
struct WgradWindow {
  int h, w;
  int64_t at;

  __device__ WgradWindow(const IgemmWgrad& p, int pixel) {
    uint32_t in_image, column;
    const uint32_t image = p.by_image.divide(static_cast<uint32_t>(pixel), in_image);
    const uint32_t row = p.by_width.divide(in_image, column);
    h = static_cast<int>(row) * p.in.stride_h - p.in.padding_h;
    w = static_cast<int>(column) * p.in.stride_w - p.in.padding_w;
    at = image * p.in.image_pitch + (static_cast<int64_t>(h) * p.in.w + w) * p.in.pixel_pitch;
  }

  __device__ bool inside(const IgemmWgrad& p, int tap_h, int tap_w) const {
    return static_cast<unsigned>(h + tap_h) < static_cast<unsigned>(p.in.h) &&
           static_cast<unsigned>(w + tap_w) < static_cast<unsigned>(p.in.w);
  }
};

// A column of the filter gradient: its tap's distance from the window's start, and its channel.
struct WgradTap {
  int h, w, channel;
  int64_t distance;
  bool exists;

  WgradTap() = default;
  __device__ WgradTap(const IgemmWgrad& p, int column) : exists(column < p.columns) {
    uint32_t c, s;
    const uint32_t tap = p.in.by_channels.divide(static_cast<uint32_t>(column), c);
    const uint32_t r = p.in.by_taps_w.divide(tap, s);
    h = static_cast<int>(r) * p.in.step_h;
    w = static_cast<int>(s) * p.in.step_w;
    channel = static_cast<int>(c);
    distance = (static_cast<int64_t>(h) * p.in.w + w) * p.in.pixel_pitch + channel;
  }
};

// The input's taps and channels from first_column on, in pieces of one tap.
template <class Tile, typename Element, bool kPrologue>
class WgradColumns {
 public:
  static constexpr bool kEven = true;  // an even number of columns
  using Lane = WgradLane<Tile, Tile::kN>;

  __device__ WgradColumns(const IgemmWgrad& p, int group, int first_column, int first_pixel)
      : tap_(p, first_column + Lane::piece() * Tile::kElements), pixel_(first_pixel) {
    first_channel_ = group * p.in.channels;
    from_ = static_cast<const Element*>(p.in.data) + first_channel_ + tap_.distance;
  }

  __device__ void start(const IgemmWgrad& p, uint32_t stage, int end) {
    uint32_t copied = 0;
#pragma unroll
    for (int i = 0; i < Lane::kPasses; ++i) {
      const int pixel = pixel_ + Lane::pixel(i);
      const WgradWindow window(p, min(pixel, end - 1));
      const bool valid = pixel < end && tap_.exists && window.inside(p, tap_.h, tap_.w);
      copy_async_16(stage + Lane::offset(i), from_ + window.at, valid);
      copied |= (valid ? 1u : 0u) << i;
    }
    if constexpr (kPrologue) copied_ = copied_ << Lane::kPasses | copied;
    pixel_ += Tile::kPixels;
  }

  // See IgemmInputCopy::finish().
  template <int kAhead>
  __device__ void finish(const IgemmWgrad& p, unsigned char* stage) const {
    static_assert((kAhead + 1) * Lane::kPasses <= 32);
    if constexpr (kPrologue) {
      const PiecePrologue<Element> prologue(p.in,
                                            first_channel_ + (tap_.exists ? tap_.channel : 0));
      prologue.template apply<Lane::kPasses>(
          [&](int i) { return stage + Lane::offset(i); },
          [&](int i) { return all_or_none(copied_ >> (kAhead * Lane::kPasses + i) & 1); });
    }
  }

 private:
  WgradTap tap_;
  const Element* from_;
  int pixel_, first_channel_;
  uint32_t copied_ = 0;
};

// The same with any number of channels: each element on its own, through registers.
template <class Tile, typename Element>
class WgradColumnGather {
 public:
  static constexpr bool kEven = false;
  using Lane = WgradLane<Tile, Tile::kN>;

  __device__ WgradColumnGather(const IgemmWgrad& p, int group, int first_column, int first_pixel)
      : pixel_(first_pixel), first_channel_(group * p.in.channels) {
    from_ = static_cast<const Element*>(p.in.data) + first_channel_;
#pragma unroll
    for (int e = 0; e < Tile::kElements; ++e) {
      taps_[e] = WgradTap(p, first_column + Lane::piece() * Tile::kElements + e);
    }
  }

  __device__ void start(const IgemmWgrad& p, uint32_t /*stage*/, int end) {
    inside_ = 0;
#pragma unroll
    for (int i = 0; i < Lane::kPasses; ++i) {
      const int pixel = pixel_ + Lane::pixel(i);
      const WgradWindow window(p, min(pixel, end - 1));
#pragma unroll
      for (int e = 0; e < Tile::kElements; ++e) {
        const WgradTap& tap = taps_[e];
        const bool valid = pixel < end && tap.exists && window.inside(p, tap.h, tap.w);
        Element value = from_compute<Element>(0.0f);
        if (valid) value = from_[window.at + tap.distance];
        reinterpret_cast<Element*>(&pieces_[i])[e] = value;
        inside_ |= (valid ? 1u : 0u) << (i * Tile::kElements + e);
      }
    }
    pixel_ += Tile::kPixels;
  }

  template <int kAhead>
  __device__ void finish(const IgemmWgrad& p, unsigned char* stage) const {
    static_assert(kAhead == 0 && Lane::kPasses * Tile::kElements <= 32);
    const auto at = [&](int i) { return stage + Lane::offset(i); };
#pragma unroll
    for (int i = 0; i < Lane::kPasses; ++i) *reinterpret_cast<int4*>(at(i)) = pieces_[i];
    if (p.in.scale == nullptr) return;
    const PiecePrologue<Element> prologue(
        p.in, [&](int e) { return taps_[e].exists ? first_channel_ + taps_[e].channel : -1; });
    prologue.template apply<Lane::kPasses>(at,
                                           [&](int i) { return inside_ >> (i * Tile::kElements); });
  }

 private:
  const Element* from_;
  int pixel_, first_channel_;
  WgradTap taps_[Tile::kElements];
  uint32_t inside_;  // kElements bits a piece
  int4 pieces_[Lane::kPasses];
};

}  // namespace rnk::cuda
