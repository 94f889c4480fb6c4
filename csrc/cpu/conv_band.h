// Gather jobs cut in bands of grid lines, and a band's source as kernels with few channels read it.
RNK_ISA_BEGIN

// Of a band: its statistics add them up one by one.
constexpr int64_t kBandPixels = 448;

// Source lines that a grid line's taps reach over; a job without taps counts as one.
inline int64_t tap_span(const GatherJob& job) {
  return job.taps_h.empty() ? 1 : job.taps_h.back().offset - job.taps_h[0].offset + 1;
}

// Source columns that the taps of all grid columns reach over, where they lie side by side.
inline int64_t padded_columns(const GatherJob& job) {
  return (job.grid_w - 1) * job.stride_w + std::max<int64_t>(1, job.taps_w.size());
}

// A job cut in bands of grid lines of one image.
struct BandPlan {
  // floats: of source that a band aims at; pixel: those that it keeps of each; pixels: at most.
  BandPlan(const GatherJob& of, int64_t first, int64_t floats, int64_t pixel, int64_t pixels)
      : job(&of), first_block(first) {
    if (of.rows() == 0) return;
    const int64_t line = std::max<int64_t>(1, of.source_w) * pixel;
    const int64_t fitting = (floats / line - tap_span(of)) / of.stride_h + 1;
    lines = std::clamp<int64_t>(std::min(fitting, pixels / of.grid_w), 1, of.grid_h);
    bands = (of.grid_h + lines - 1) / lines;
    blocks = bands * of.n;
  }
  const GatherJob* job;
  int64_t first_block;
  int64_t lines = 0, bands = 0, blocks = 0;
};

inline std::vector<BandPlan> plan_bands(const std::vector<GatherJob>& jobs, int64_t floats,
                                        int64_t pixel) {
  std::vector<BandPlan> plans;
  for (const GatherJob& job : jobs) {
    const int64_t first = plans.empty() ? 0 : plans.back().first_block + plans.back().blocks;
    plans.emplace_back(job, first, floats, pixel, kBandPixels);
  }
  return plans;
}

struct Band {
  int64_t image, begin, end;  // grid lines
  int64_t source_begin, source_end;
};

inline Band band_of(const BandPlan& plan, int64_t block) {
  const GatherJob& job = *plan.job;
  Band b{block / plan.bands, block % plan.bands * plan.lines, 0, 0, 0};
  b.end = std::min(job.grid_h, b.begin + plan.lines);
  if (job.taps_h.empty()) return b;
  const int64_t first = b.begin * job.stride_h + job.taps_h[0].offset;
  const int64_t last = (b.end - 1) * job.stride_h + job.taps_h.back().offset;
  b.source_begin = std::clamp<int64_t>(first, 0, job.source_h);
  b.source_end = std::clamp(last + 1, b.source_begin, job.source_h);
  return b;
}

// Floats of padded source that a band aims at: with what a tile writes it stays in an L1 cache.
constexpr int64_t kPaddedFloats = 8192;

// Whether padded bands suit a job: with more channels packed rows are as fast, and the lines that
// one grid line reads should stay in a level-2 cache.
inline bool suits_padded(const GatherJob& job, int64_t groups) {
  constexpr int64_t kMostChannels = 32, kMostFloats = 65536;
  if (groups > 1 || job.channels > kMostChannels || !job.contiguous_taps()) return false;
  return tap_span(job) * padded_columns(job) * job.channels <= kMostFloats;
}

// The source lines of a band [line][column][channel] with the prologue applied and zeros where taps
// lie outside: of one group, taps side by side. Grid pixel (band.begin + i, j) meets tap (r, s) at
// line i * stride_h + r.offset - first r.offset, column j * stride_w + s.
template <PackIn kIn>
class PaddedBands {
 public:
  PaddedBands(const GatherJob& job, const ConvPrologue& in)
      : job_(job),
        in_(in),
        left_(job.taps_w.empty() ? 0 : job.taps_w[0].offset),
        columns_(padded_columns(job)) {
    if constexpr (kIn == PackIn::kPlain) return;
    for (int64_t column = 0; column < job.source_w; ++column) {
      scale_.insert(scale_.end(), in.scale, in.scale + job.channels);
      bias_.insert(bias_.end(), in.bias, in.bias + job.channels);
    }
  }

  int64_t line_floats() const { return columns_ * job_.channels; }

  // Where tap row r begins for the first line.
  int64_t tap_row(size_t r) const {
    return (job_.taps_h[r].offset - job_.taps_h[0].offset) * line_floats();
  }

  // In this thread's scratch, with `slack` more zeros.
  const float* copy(const float* source, const Band& band, int64_t slack) const {
    if (job_.taps_h.empty() || job_.taps_w.empty()) return scratch(Scratch::kInput, 1);
    const int64_t lines = (band.end - 1 - band.begin) * job_.stride_h + tap_span(job_);
    const int64_t top = band.begin * job_.stride_h + job_.taps_h[0].offset;
    float* padded = scratch(Scratch::kInput, lines * line_floats() + slack);
    float* to = padded;
    for (int64_t h = top; h < top + lines; ++h, to += line_floats()) {
      const int64_t line = band.image * job_.source_h + h;
      if (h < 0 || h >= job_.source_h) {
        std::fill_n(to, line_floats(), 0.0f);
      } else {
        copy_line(source + line * job_.source_w * job_.channels, to);
      }
    }
    std::fill_n(to, slack, 0.0f);
    return padded;
  }

 private:
  void copy_line(const float* from, float* to) const {
    const int64_t begin = std::clamp<int64_t>(left_, 0, job_.source_w);
    const int64_t end = std::clamp(left_ + columns_, begin, job_.source_w);
    const int64_t first = begin == end ? 0 : (begin - left_) * job_.channels;
    const int64_t count = (end - begin) * job_.channels;
    std::fill_n(to, first, 0.0f);
    std::fill(to + first + count, to + line_floats(), 0.0f);
    from += begin * job_.channels;
    for (int64_t i = 0; i < count; i += kLanes) {
      const int lanes = static_cast<int>(std::min<int64_t>(kLanes, count - i));
      FloatVec v = load_lanes(from + i, lanes);
      if constexpr (kIn != PackIn::kPlain) {
        v = pack_value<kIn>(v, load_lanes(scale_.data() + i, lanes),
                            load_lanes(bias_.data() + i, lanes), in_);
      }
      store_lanes(to + first + i, v, lanes);
    }
  }

  const GatherJob& job_;
  const ConvPrologue in_;
  const int64_t left_, columns_;
  std::vector<float> scale_, bias_;  // [column][channel] of a source line
};

RNK_ISA_END
