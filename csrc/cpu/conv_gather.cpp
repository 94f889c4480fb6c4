#include "conv_gather.h"

#include <algorithm>

namespace rnk::cpu {
namespace {

std::vector<GatherTap> fwd_taps(int64_t count, int64_t padding, int64_t dilation) {
  std::vector<GatherTap> taps;
  for (int64_t t = 0; t < count; ++t) taps.push_back({t * dilation - padding, t});
  return taps;
}

// Taps through which input row phase + i * stride gives to output row i + offset.
std::vector<GatherTap> dgrad_taps(int64_t count, int64_t phase, int64_t stride, int64_t padding,
                                  int64_t dilation) {
  std::vector<GatherTap> taps;
  for (int64_t t = count - 1; t >= 0; --t) {
    const int64_t distance = phase + padding - t * dilation;
    if (distance % stride == 0) taps.push_back({distance / stride, t});
  }
  return taps;
}

void set_inside(const GatherJob& job, PackPiece& piece) {
  const int64_t offset = job.taps_w[piece.tap_w].offset;
  const int64_t left = -offset - piece.first / job.channels;
  const int64_t last = (piece.first + piece.length - 1) / job.channels;
  const int64_t right = job.source_w - 1 - last - offset;
  piece.inside_begin = left <= 0 ? 0 : (left + job.stride_w - 1) / job.stride_w;
  piece.inside_end = right < 0 ? 0 : right / job.stride_w + 1;
}

}  // namespace

bool GatherJob::contiguous_taps() const {
  if (channels != source_pixel) return false;
  for (size_t t = 1; t < taps_w.size(); ++t) {
    if (taps_w[t].offset != taps_w[t - 1].offset + 1) return false;
  }
  return true;
}

bool rows_are_pixels(const GatherJob& job) {
  const bool same = job.source_h == job.grid_h && job.source_w == job.grid_w &&
                    job.out_h == job.grid_h && job.out_w == job.grid_w;
  const bool one_tap = job.taps_h.size() == 1 && job.taps_w.size() == 1;
  return same && one_tap && job.taps_h[0].offset == 0 && job.taps_w[0].offset == 0;
}

void flatten(GatherJob& job) {
  if (!rows_are_pixels(job)) return;
  job.grid_w = job.source_w = job.out_w = job.rows();
  job.n = job.grid_h = job.source_h = job.out_h = 1;
  job.stride_h = job.stride_w = job.step_h = job.step_w = 1;
}

GatherJob gather_fwd(const ConvShape& s) {
  GatherJob job{};
  job.n = s.n, job.grid_h = s.p, job.grid_w = s.q;
  job.source_h = s.h, job.source_w = s.w;
  job.source_pixel = s.c, job.channels = s.c / s.groups;
  job.stride_h = s.stride_h, job.stride_w = s.stride_w;
  job.taps_h = fwd_taps(s.r, s.padding_h, s.dilation_h);
  job.taps_w = fwd_taps(s.s, s.padding_w, s.dilation_w);
  job.out_h = s.p, job.out_w = s.q;
  job.first_h = job.first_w = 0;
  job.step_h = job.step_w = 1;
  return job;
}

std::vector<GatherJob> gather_dgrad(const ConvShape& s) {
  std::vector<GatherJob> jobs;
  for (int64_t phase_h = 0; phase_h < std::min(s.stride_h, s.h); ++phase_h) {
    for (int64_t phase_w = 0; phase_w < std::min(s.stride_w, s.w); ++phase_w) {
      GatherJob job{};
      job.n = s.n;
      job.grid_h = (s.h - phase_h + s.stride_h - 1) / s.stride_h;
      job.grid_w = (s.w - phase_w + s.stride_w - 1) / s.stride_w;
      job.source_h = s.p, job.source_w = s.q;
      job.source_pixel = s.k, job.channels = s.k / s.groups;
      job.stride_h = job.stride_w = 1;
      job.taps_h = dgrad_taps(s.r, phase_h, s.stride_h, s.padding_h, s.dilation_h);
      job.taps_w = dgrad_taps(s.s, phase_w, s.stride_w, s.padding_w, s.dilation_w);
      job.out_h = s.h, job.out_w = s.w;
      job.first_h = phase_h, job.first_w = phase_w;
      job.step_h = s.stride_h, job.step_w = s.stride_w;
      jobs.push_back(std::move(job));
    }
  }
  return jobs;
}

std::vector<PackPiece> pack_pieces(const GatherJob& job, int chunk, int longest) {
  const bool merged = job.contiguous_taps();
  const int taps_h = static_cast<int>(job.taps_h.size());
  const int taps_w = static_cast<int>(job.taps_w.size());
  const int64_t run = merged ? taps_w * job.channels : job.channels;
  std::vector<PackPiece> pieces;
  int64_t depth = 0;
  for (int r = 0; r < taps_h; ++r) {
    for (int s = 0; s < (merged ? std::min(taps_w, 1) : taps_w); ++s) {
      for (int64_t first = 0; first < run;) {
        const int64_t room = std::min<int64_t>(chunk - depth % chunk, longest);
        const int length = static_cast<int>(std::min(room, run - first));
        pieces.push_back({r, s, first, depth, length, 0, 0});
        set_inside(job, pieces.back());
        first += length;
        depth += length;
      }
    }
  }
  return pieces;
}

}  // namespace rnk::cpu
