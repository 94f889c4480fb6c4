// Copies of the operands' chunks into shared memory. Thread t brings piece t % 8 of the rows t / 8,
// t / 8 + kRowStep, ...
#pragma once

#include "async_copy.cuh"
#include "igemm_params.h"
#include "igemm_prologue.cuh"
#include "igemm_tile.cuh"

namespace rnk::cuda {

// The rows of the output grid that a thread copies: where in the input their filter windows start,
// and which taps fall inside the image: bit r for the filter's row r, bit 16 + s for its column s.
// Offset: int64_t, or int where the whole input has fewer elements.
template <class Tile, typename Offset, bool kPointwise>
struct IgemmRows {
  Offset window[Tile::kRowsM];
  uint32_t inside[Tile::kRowsM];

  __device__ IgemmRows(const Igemm& p, int first_row) {
    const IgemmInput& in = p.in;
#pragma unroll
    for (int i = 0; i < Tile::kRowsM; ++i) {
      const int m = first_row + static_cast<int>(threadIdx.x) / kPieces + i * Tile::kRowStep;
      const bool exists = m < p.rows;
      if constexpr (kPointwise) {
        window[i] = static_cast<Offset>(exists ? m : 0) * in.pixel_pitch;
        inside[i] = exists ? 1u | 1u << 16 : 0u;
        continue;
      }
      uint32_t pixel, column;
      const uint32_t image = p.by_image.divide(static_cast<uint32_t>(exists ? m : 0), pixel);
      const uint32_t row = p.by_width.divide(pixel, column);
      const int y = static_cast<int>(row) * in.stride_h - in.padding_h;
      const int x = static_cast<int>(column) * in.stride_w - in.padding_w;
      window[i] = static_cast<Offset>(image * in.image_pitch) +
                  (static_cast<Offset>(y) * in.w + x) * in.pixel_pitch;
      inside[i] = exists ? taps(y, in.step_h, in.taps_h, in.h) | taps(x, in.step_w, in.taps_w, in.w)
                                                                     << 16
                         : 0u;
    }
  }

 private:
  // Bit t: at + t * step is in [0, size).
  __device__ static uint32_t taps(int at, int step, int count, int size) {
    uint32_t bits = 0;
    for (int t = 0; t < count; ++t, at += step) bits |= (at >= 0 && at < size ? 1u : 0u) << t;
    return bits;
  }
};

// Where depth index k points: the distance from a window's start, and the bits that rows need for
// it. No row has all bits.
struct Tap {
  int distance;
  uint32_t needs;
  int channel;

  template <bool kPointwise>
  __device__ static Tap at(const Igemm& p, uint32_t k) {
    constexpr uint32_t kNone = ~0u;
    const bool exists = k < static_cast<uint32_t>(p.depth);
    if constexpr (kPointwise) {
      return {static_cast<int>(k), exists ? 1u : kNone, static_cast<int>(k)};
    }
    uint32_t channel, s;
    const uint32_t tap = p.in.by_channels.divide(k, channel);
    const uint32_t r = p.in.by_taps_w.divide(tap, s);
    const int pixels =
        static_cast<int>(r) * p.in.step_h * p.in.w + static_cast<int>(s) * p.in.step_w;
    return {pixels * p.in.pixel_pitch + static_cast<int>(channel),
            exists ? 1u << r | 1u << (16 + s) : kNone, static_cast<int>(channel)};
  }
};

// Channels in whole pieces: by cp.async. kPointwise: 1 x 1, stride 1, no padding, where the input's
// pixels are the rows of a matrix.
template <class Tile, typename Element, bool kPointwise, bool kPrologue>
class IgemmInputCopy {
 public:
  static constexpr int kElements = kPieceBytes / sizeof(Element);

  // base: of the stages.
  __device__ IgemmInputCopy(const Igemm& p, int first_row, int first_channel, uint32_t base)
      : first_channel_(first_channel),
        to_(piece_offset(threadIdx.x / kPieces, threadIdx.x % kPieces)),
        k_(threadIdx.x % kPieces * kElements) {
    const IgemmRows<Tile, int64_t, kPointwise> rows(p, first_row);
    const auto* data = static_cast<const Element*>(p.in.data) + first_channel;
#pragma unroll
    for (int i = 0; i < Tile::kRowsM; ++i) {
      windows_[i] = data + rows.window[i];
      inside_[i] = rows.inside[i];
    }
    if constexpr (kPrologue) start_vectors(p, base, 0);
  }

  // Starts copying the next chunk to `stage`, and the vectors of the one after it to `next`: they
  // are other threads' too, so they must have landed a barrier before `finish` reads them.
  __device__ void start(const Igemm& p, uint32_t stage, uint32_t next) {
    if constexpr (kPrologue) start_vectors(p, next, (k_ / kChunk + 1) * kChunk);
    const Tap tap = Tap::at<kPointwise>(p, k_);
    uint32_t copied = 0;
#pragma unroll
    for (int i = 0; i < Tile::kRowsM; ++i) {
      const bool valid = (inside_[i] & tap.needs) == tap.needs;
      copy_async_16(stage + to_ + i * Tile::kRowStep * kChunkBytes, windows_[i] + tap.distance,
                    valid);
      copied |= (valid ? 1u : 0u) << i;
    }
    if constexpr (kPrologue) copied_ = copied_ << Tile::kRowsM | copied;
    k_ += kPieces * kElements;
  }

  // Applies the prologue to this thread's pieces of the chunk that `start` was given kAhead calls
  // ago; they have landed.
  template <int kAhead>
  __device__ void finish(const Igemm& p, unsigned char* stage) {
    static_assert((kAhead + 1) * Tile::kRowsM <= 32);
    if constexpr (kPrologue) {
      const bool first = k_ / kChunk == kAhead + 1;
      if (first) __syncthreads();
      const PiecePrologue<Element> prologue(p.in, stage + Tile::kVectorOffset,
                                            threadIdx.x % kPieces);
      // Four pieces at a time: eight take more registers than there are on sm_100.
      constexpr int kAtOnce = Tile::kRowsM < 4 ? Tile::kRowsM : 4;
#pragma unroll
      for (int row = 0; row < Tile::kRowsM; row += kAtOnce) {
        prologue.template apply<kAtOnce>(
            [&](int i) { return stage + to_ + (row + i) * Tile::kRowStep * kChunkBytes; },
            [&](int i) { return all_or_none(copied_ >> (kAhead * Tile::kRowsM + row + i) & 1); });
      }
    }
  }

 private:
  static constexpr uint32_t kChunk = kPieces * kElements;

  // The prologue's vectors of the chunk that starts at depth `first`, four floats a thread.
  __device__ void start_vectors(const Igemm& p, uint32_t stage, uint32_t first) const {
    using Vectors = ChunkVectors<Element>;
    if (threadIdx.x >= 2 * Vectors::kSlots) return;
    const uint32_t slot = threadIdx.x % Vectors::kSlots;
    const bool is_bias = threadIdx.x >= Vectors::kSlots;
    const Tap tap = Tap::at<kPointwise>(p, first + slot * 4);
    const uint32_t to = (is_bias ? Vectors::kSlots * 16 : 0) + Vectors::offset(slot);
    copy_async_16(stage + Tile::kVectorOffset + to,
                  (is_bias ? p.in.bias : p.in.scale) + first_channel_ + tap.channel,
                  tap.needs != ~0u);
  }

  const Element* windows_[Tile::kRowsM];
  uint32_t inside_[Tile::kRowsM];
  int first_channel_;
  uint32_t to_, k_;
  uint32_t copied_ = 0;  // the newest chunk's rows in the lowest bits
};

// Any number of channels: each element on its own, through registers. The input has fewer than 2^31
// elements.
template <class Tile, typename Element, bool kPrologue>
class IgemmInputGather {
 public:
  static constexpr int kElements = kPieceBytes / sizeof(Element);

  __device__ IgemmInputGather(const Igemm& p, int first_row, int first_channel, uint32_t /*base*/)
      : data_(static_cast<const Element*>(p.in.data) + first_channel),
        rows_(p, first_row),
        first_channel_(first_channel),
        to_(piece_offset(threadIdx.x / kPieces, threadIdx.x % kPieces)),
        k_(threadIdx.x % kPieces * kElements) {}

  // Reads the next chunk's elements.
  __device__ void start(const Igemm& p, uint32_t /*stage*/, uint32_t /*next*/) {
    inside_ = 0;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const Tap tap = Tap::at<false>(p, k_ + e);
#pragma unroll
      for (int i = 0; i < Tile::kRowsM; ++i) {
        const bool valid = (rows_.inside[i] & tap.needs) == tap.needs;
        Element value = from_compute<Element>(0.0f);
        if (valid) value = data_[rows_.window[i] + tap.distance];
        reinterpret_cast<Element*>(&pieces_[i])[e] = value;
        inside_ |= static_cast<uint64_t>(valid) << (i * kElements + e);
      }
    }
    k_ += kPieces * kElements;
  }

  template <int kAhead>
  __device__ void finish(const Igemm& p, unsigned char* stage) const {
    static_assert(kAhead == 0 && Tile::kRowsM * kElements <= 64);
    const auto at = [&](int i) { return stage + to_ + i * Tile::kRowStep * kChunkBytes; };
#pragma unroll
    for (int i = 0; i < Tile::kRowsM; ++i) *reinterpret_cast<int4*>(at(i)) = pieces_[i];
    if constexpr (kPrologue) {
      if (p.in.scale == nullptr) return;
      const PiecePrologue<Element> prologue(p.in, [&](int e) {
        const Tap tap = Tap::at<false>(p, k_ - kPieces * kElements + e);
        return tap.needs == ~0u ? -1 : first_channel_ + tap.channel;
      });
      prologue.template apply<Tile::kRowsM>(
          at, [&](int i) { return static_cast<uint32_t>(inside_ >> (i * kElements)); });
    }
  }

 private:
  const Element* data_;
  IgemmRows<Tile, int, false> rows_;
  int first_channel_;
  uint32_t to_, k_;
  uint64_t inside_;  // kElements bits a piece
  int4 pieces_[Tile::kRowsM];
};

// The filter's rows, which end in zeros where the depth is not a whole number of pieces.
template <class Tile, typename Element>
class IgemmFilterCopy {
 public:
  static constexpr int kElements = kPieceBytes / sizeof(Element);

  // first_row: of the filter; rows: how many of them the group has from there on.
  __device__ IgemmFilterCopy(const Igemm& p, int64_t first_row, int rows)
      : to_(Tile::kFilterOffset + piece_offset(threadIdx.x / kPieces, threadIdx.x % kPieces)),
        k_(threadIdx.x % kPieces * kElements),
        rows_(rows - static_cast<int>(threadIdx.x) / kPieces),
        from_(static_cast<const Element*>(p.filter.data) +
              (first_row + threadIdx.x / kPieces) * p.filter.pitch) {}

  __device__ void start(const Igemm& p, uint32_t stage) {
    const bool inside = k_ < p.depth;
#pragma unroll
    for (int i = 0; i < Tile::kRowsN; ++i) {
      copy_async_16(stage + to_ + i * Tile::kRowStep * kChunkBytes,
                    from_ + i * Tile::kRowStep * p.filter.pitch + k_,
                    inside && i * Tile::kRowStep < rows_);
    }
    k_ += kPieces * kElements;
  }

 private:
  uint32_t to_;
  int k_, rows_;
  const Element* from_;
};

}  // namespace rnk::cuda
