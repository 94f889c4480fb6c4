// Forward convolutions of few channels, such as a stem's three: the input under a tile's filters
// comes to shared memory once, and fragments are read from there at any offset. In NHWC the S * C
// elements that a row of the filter meets lie side by side; in the depth they are followed by zeros
// up to whole pieces of 16 bytes.
#pragma once

#include <cstring>

#include "act.cuh"
#include "igemm_math.cuh"
#include "igemm_operands.cuh"
#include "igemm_pipeline.cuh"
#include "vec.cuh"

namespace rnk::cuda {

// Brings the window of the tile that starts at `first_row`. Line j * taps_h + r of it is what the
// tile's pixels in its j-th output row meet at row r of the filter: from the first pixel's first
// tap on, zeros outside the image and in the piece behind the end.
template <class Tile, typename Element>
class WindowCopy {
 public:
  static constexpr int kWord = 4 / sizeof(Element);  // elements

  __device__ WindowCopy(const Igemm& p, int first_row, Element* window)
      : p_(p),
        data_(static_cast<const Element*>(p.in.data)),
        window_(window),
        first_row_(first_row),
        rows_(min(p.rows - first_row, Tile::kM)) {
    p.by_width.divide(static_cast<uint32_t>(first_row), column_);
  }

  // A warp a line.
  __device__ void run() const {
    const int output_rows = static_cast<int>(p_.by_width.divide(column_ + rows_ - 1)) + 1;
    const int lines = output_rows * p_.in.taps_h;
    int j = 0, r = static_cast<int>(threadIdx.x) / 32;
    for (int line = r; line < lines; line += Tile::kThreads / 32, r += Tile::kThreads / 32) {
      for (; r >= p_.in.taps_h; r -= p_.in.taps_h) ++j;
      copy_line(j, r, window_ + line * p_.window.pitch);
    }
  }

 private:
  static constexpr int kLine = 32 * kWord;  // elements of 128 bytes: what a warp reads at once
  static constexpr int kAtOnce = 4;         // reads under way

  __device__ void copy_line(int j, int r, Element* to) const {
    const IgemmInput& in = p_.in;
    const int width = static_cast<int>(p_.by_width.divisor());
    const int row_start = first_row_ - static_cast<int>(column_) + j * width;
    const int first = max(row_start, first_row_);
    const int pixels = min(row_start + width, first_row_ + rows_) - first;
    uint32_t pixel, q;
    const int image = static_cast<int>(p_.by_image.divide(static_cast<uint32_t>(first), pixel));
    const int i = static_cast<int>(p_.by_width.divide(pixel, q));
    const int y = i * in.stride_h - in.padding_h + r * in.step_h;
    const int x = static_cast<int>(q) * in.stride_w - in.padding_w;
    const int begin = (image * in.h + y) * in.w * in.channels;  // of the image's row
    const int start = begin + x * in.channels;
    const int elements = ((pixels - 1) * in.stride_w + in.taps_w) * in.channels;
    const int low = max(begin, start);
    const int high = y >= 0 && y < in.h ? min(begin + in.w * in.channels, start + elements) : low;

    // From the 128 bytes on in which the line starts, so that no sector is asked for twice.
    const int misaligned =
        static_cast<int>(reinterpret_cast<uintptr_t>(data_) % 128 / sizeof(Element));
    const int skipped = (misaligned + start) & (kLine - 1);
    const int end = elements + kPieceBytes / static_cast<int>(sizeof(Element));
    const int lane = static_cast<int>(threadIdx.x) % 32 * kWord;
#pragma unroll 1
    for (int at = lane - skipped; at - lane < end; at += kAtOnce * kLine) {
      Element values[kAtOnce][kWord];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) read(values[k], start + at + k * kLine, low, high);
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
#pragma unroll
        for (int e = 0; e < kWord; ++e) {
          const int slot = at + k * kLine + e;
          if (slot >= 0 && slot < end) to[slot] = values[k][e];
        }
      }
    }
    if (in.scale == nullptr) return;
    // Each thread what it has written.
#pragma unroll 1
    for (int at = lane - skipped; at < high - start; at += kLine) {
#pragma unroll 1
      for (int e = 0; e < kWord; ++e) {
        if (start + at + e >= low && start + at + e < high) {
          apply(to[at + e], start + at + e - begin);
        }
      }
    }
  }

  // Elements of data_ from `at` on, which is a word's; zeros outside low to high.
  __device__ void read(Element (&values)[kWord], int at, int low, int high) const {
    if (at >= low && at + kWord <= high) {
      const uint32_t word = __ldg(reinterpret_cast<const uint32_t*>(data_ + at));
      memcpy(values, &word, sizeof word);
      return;
    }
#pragma unroll
    for (int e = 0; e < kWord; ++e) {
      values[e] = from_compute<Element>(0.0f);
      if (at + e >= low && at + e < high) values[e] = data_[at + e];
    }
  }

  // The prologue on element `at` of an image's row.
  __device__ void apply(Element& element, int at) const {
    const IgemmInput& in = p_.in;
    uint32_t channel;
    in.by_channels.divide(static_cast<uint32_t>(at), channel);
    const float t = in.scale[channel] * to_compute(element) + in.bias[channel];
    element = from_compute<Element>(apply_act(t, in.act, in.slope));
  }

  const Igemm& p_;
  const Element* data_;
  Element* window_;
  int first_row_, rows_;
  uint32_t column_;  // of the tile's first pixel in its output row
};

// Tensor cores on a window: the filter's fragments come from a chunk in shared memory, the input's
// from wherever the depth points in the window. Eight rows of four words lie within 128 bytes where
// a pixel's step is at most 6 words, so that they meet no bank twice.
template <typename T, typename Element, class Tile>
class WindowCores : public TensorCores<T, Tile> {
 public:
  using Base = TensorCores<T, Tile>;
  using typename Base::Fragments;
  static constexpr int kWord = 4 / sizeof(Element);

  // window: its address in the shared window.
  __device__ WindowCores(const Igemm& p, int first_row, uint32_t window)
      : Base(threadIdx.x),
        left_(p.window.row_elements),
        row_elements_(p.window.row_elements),
        row_(0),
        taps_h_(p.in.taps_h),
        line_bytes_(p.window.pitch * static_cast<int>(sizeof(Element))),
        even_(p.in.stride_w * p.in.channels % kWord == 0) {
    uint32_t column;
    p.by_width.divide(static_cast<uint32_t>(first_row), column);
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < Base::kTilesM * 2; ++i) {
      int row = static_cast<int>(this->warp_m_) + i * 8 + lane / 4;
      if (first_row + row >= p.rows) row = 0;
      uint32_t q;
      const auto j = static_cast<int>(p.by_width.divide(column + row, q));
      const int pixel = j == 0 ? row : static_cast<int>(q);
      const int at = pixel * p.in.stride_w * p.in.channels + lane % 4 * kWord;
      windows_[i] = window + j * p.in.taps_h * line_bytes_ + at * static_cast<int>(sizeof(Element));
    }
  }

  // Called once a step, in the order of the depth.
  __device__ void load(Fragments& f, uint32_t stage, uint32_t step) {
    if (kWord == 1 || even_) {
      load_windows<true>(f);
    } else {
      load_windows<false>(f);
    }
    this->load_filter(f, stage, step);
  }

 private:
  // kEven: windows start at whole words.
  template <bool kEven>
  __device__ void load_windows(Fragments& f) {
#pragma unroll
    for (int piece = 0; piece < 2; ++piece) {
      const uint32_t mask = inside();
#pragma unroll
      for (int i = 0; i < Base::kTilesM * 2; ++i) {
        f.a[i / 2][piece * 2 + i % 2] = word<kEven>(windows_[i] + offset_) & mask;
      }
      advance();
    }
  }

  // The bits of this thread's elements of the piece that belong to the filter's row.
  __device__ uint32_t inside() const {
    const int first = static_cast<int>(threadIdx.x) % 4 * kWord;
    if constexpr (kWord == 1) return first < left_ ? ~0u : 0u;
    return (first < left_ ? 0xffffu : 0u) | (first + 1 < left_ ? 0xffff0000u : 0u);
  }

  template <bool kEven>
  __device__ static uint32_t word(uint32_t address) {
    if constexpr (kEven) return load_word(address);
    return load_half(address) | load_half(address + 2) << 16;
  }

  // To the next piece; past the filter's last row nothing is left.
  __device__ void advance() {
    left_ -= kPieceBytes / static_cast<int>(sizeof(Element));
    offset_ += kPieceBytes;
    if (left_ > 0) return;
    const bool exists = ++row_ < taps_h_;
    left_ = exists ? row_elements_ : 0;
    offset_ = exists ? row_ * line_bytes_ : 0;
  }

  uint32_t windows_[Base::kTilesM * 2];  // rows in steps of eight
  uint32_t offset_ = 0;                  // of the piece from a window's start
  int left_, row_elements_, row_, taps_h_, line_bytes_;
  bool even_;
};

// As igemm, of one group. Shared memory: the filter's stages, then the window.
template <class Tile, typename Element, typename T, class Output>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    igemm_window(const __grid_constant__ Igemm p,
                 const __grid_constant__ typename Output::Params out) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int row_tile = static_cast<int>(p.by_column_tiles.divide(blockIdx.x));
  const int first_row = row_tile * Tile::kM;
  const int first_column = (static_cast<int>(blockIdx.x) - row_tile * p.column_tiles) * Tile::kN;
  const int columns = min(p.columns - first_column, Tile::kN);
  const int chunks = (p.depth * static_cast<int>(sizeof(Element)) + kChunkBytes - 1) / kChunkBytes;

  const uint32_t base = shared_address(shared);
  IgemmFilterCopy<Tile, Element> filter(p, first_column, columns);
  auto* window = reinterpret_cast<Element*>(shared + Tile::kSharedBytes);
  WindowCopy<Tile, Element>(p, first_row, window).run();
  WindowCores<T, Element, Tile> math(p, first_row, shared_address(window));
  run_pipeline<Tile::kStages, Tile::kStageBytes>(
      math, chunks, base, [&](int stage) { filter.start(p, base + stage * Tile::kStageBytes); },
      [](int) {});

  auto* staged = reinterpret_cast<float*>(shared);
  math.store(staged);
  __syncthreads();
  Output output(p, out, first_row, first_column, columns, staged);
  output.write(row_tile);
}

}  // namespace rnk::cuda
