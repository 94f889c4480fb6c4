// Convolution and its transpose as one operation: each pixel of a grid sums filter taps over source
// pixels. Forward is one such job on x; dgrad has one on dy for each phase of the stride, so that
// no zero is multiplied.
#pragma once

#include <cstdint>
#include <vector>

#include "conv_params.h"

namespace rnk::cpu {

// A filter row (or column) and the source row that it meets: grid row * stride + offset.
struct GatherTap {
  int64_t offset;
  int64_t index;
};

struct GatherJob {
  int64_t n, grid_h, grid_w;
  int64_t source_h, source_w;
  int64_t source_pixel;                   // floats from one source pixel to the next
  int64_t channels;                       // of one group
  int64_t stride_h, stride_w;             // source pixels from one grid pixel to the next
  std::vector<GatherTap> taps_h, taps_w;  // by ascending offset
  // Grid pixel (i, j) is pixel (first_h + i * step_h, first_w + j * step_w) of the output.
  int64_t out_h, out_w, first_h, first_w, step_h, step_w;

  int64_t rows() const { return n * grid_h * grid_w; }
  int64_t depth() const { return static_cast<int64_t>(taps_h.size() * taps_w.size()) * channels; }
  // Whether the taps of a row read one run of memory.
  bool contiguous_taps() const;
};

// The depth of the product is cut into pieces that lie in one chunk of the packed rows and in one
// run of the source.
struct PackPiece {
  int tap_h, tap_w;  // of the run's first pixel
  int64_t first;     // place in the run
  int64_t depth;
  int length;
  int64_t inside_begin, inside_end;  // grid columns for which all of it lies inside a source line
};

// Whether every grid pixel is the source pixel and the output pixel.
bool rows_are_pixels(const GatherJob& job);
// Where it is so: sees all images as one line.
void flatten(GatherJob& job);

GatherJob gather_fwd(const ConvShape& shape);
std::vector<GatherJob> gather_dgrad(const ConvShape& shape);

// Pieces of at most `longest`, none across a multiple of `chunk`.
std::vector<PackPiece> pack_pieces(const GatherJob& job, int chunk, int longest);

// Calls f(image, grid row, first column, end column, row) for each line in rows [begin, end); row
// counts from begin.
template <typename F>
inline void for_each_line(const GatherJob& job, int64_t begin, int64_t end, F&& f) {
  int64_t line = begin / job.grid_w, j = begin % job.grid_w;
  int64_t image = line / job.grid_h, i = line % job.grid_h;
  for (int64_t row = begin; row < end; j = 0) {
    const int64_t stop = j + (end - row < job.grid_w - j ? end - row : job.grid_w - j);
    f(image, i, j, stop, row - begin);
    row += stop - j;
    if (++i == job.grid_h) i = 0, ++image;
  }
}

// The pixel of the output that a grid pixel is.
inline int64_t output_pixel(const GatherJob& job, int64_t image, int64_t i, int64_t j) {
  const int64_t line = image * job.out_h + job.first_h + i * job.step_h;
  return line * job.out_w + job.first_w + j * job.step_w;
}

}  // namespace rnk::cpu
