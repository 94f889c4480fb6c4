// Gather jobs with groups of few channels: vectors of output channels, a whole number of groups
// each. The source is expanded first: to one vector for each of a group's channels, so that a tap
// is a plain product of vectors. Depthwise convolutions are the case of one.
RNK_ISA_BEGIN

// Matrix products would leave half of the tile's columns empty.
inline bool suits_channels(int64_t groups, int64_t channels, int64_t columns) {
  return groups > 1 && channels <= kLanes && columns <= kLanes;
}

// Floats of expanded source that a task aims at: 256 KiB.
constexpr int64_t kExpandedFloats = 65536;

// out[i] = x[lane[i]].
RNK_INLINE FloatVec permute_lanes(FloatVec x, IntVec lane) {
#if RNK_ISA_LEVEL == 2
  return (FloatVec)_mm512_permutexvar_ps((__m512i)lane, (__m512)x);
#elif RNK_ISA_LEVEL == 1
  return (FloatVec)_mm256_permutevar8x32_ps((__m256)x, (__m256i)lane);
#else
  FloatVec out;
  for (int i = 0; i < kLanes; ++i) out[i] = x[lane[i]];
  return out;
#endif
}

// Which channels the vectors hold.
struct ChannelVectors {
  ChannelVectors(int64_t all_groups, int64_t group_channels, int64_t group_columns)
      : groups(all_groups),
        channels(group_channels),
        columns(group_columns),
        each(kLanes / std::max(channels, columns)),
        count((groups + each - 1) / each) {}
  int64_t groups, channels, columns;
  int64_t each;  // groups in a vector
  int64_t count;

  int64_t first_group(int64_t vector) const { return vector * each; }
  int64_t groups_of(int64_t vector) const { return std::min(each, groups - vector * each); }
};

// One vector's share of a band of the source: [line][column][channel of the group][kLanes].
template <PackIn kIn>
float* expand_band(const GatherJob& job, const ConvPrologue& in, const float* source,
                   const ChannelVectors& vectors, int64_t vector, const Band& band) {
  const int64_t channels = job.channels, line = job.source_w * channels * kLanes;
  const int64_t first = vectors.first_group(vector) * channels;
  const int count = static_cast<int>(vectors.groups_of(vector) * channels);
  float* expanded = scratch(Scratch::kInput, (band.source_end - band.source_begin) * line);
  FloatVec scale = {}, bias = {};
  if constexpr (kIn != PackIn::kPlain) {
    scale = load_lanes(in.scale + first, count);
    bias = load_lanes(in.bias + first, count);
  }
  IntVec lane = {};
  for (int64_t i = 0; i < vectors.each * vectors.columns; ++i) {
    lane[i] = static_cast<int>(i / vectors.columns * channels);
  }
  float* to = expanded;
  for (int64_t h = band.source_begin; h < band.source_end; ++h) {
    const float* from = source + (band.image * job.source_h + h) * job.source_w * job.source_pixel;
    for (int64_t w = 0; w < job.source_w; ++w, from += job.source_pixel) {
      const FloatVec v = pack_value<kIn>(load_lanes(from + first, count), scale, bias, in);
      for (int c = 0; c < channels; ++c, to += kLanes) store_vec(to, permute_lanes(v, lane + c));
    }
  }
  return expanded;
}

// The taps of one vector: [filter row][filter column][channel of the group][kLanes].
inline void expand_filter(const FilterMatrix& f, int64_t group_stride, const GatherJob& job,
                          const ChannelVectors& vectors, int64_t vector, float* to) {
  const int64_t lanes = vectors.groups_of(vector) * vectors.columns;
  for (const GatherTap& r : job.taps_h) {
    for (const GatherTap& s : job.taps_w) {
      for (int64_t c = 0; c < job.channels; ++c, to += kLanes) {
        const float* from = f.w + r.index * f.r + s.index * f.s + c * f.channel +
                            vectors.first_group(vector) * group_stride;
        for (int64_t i = 0; i < kLanes; ++i) {
          to[i] = i < lanes
                      ? from[i / vectors.columns * group_stride + i % vectors.columns * f.column]
                      : 0;
        }
      }
    }
  }
}

template <EpilogueKind kKind, PackIn kIn>
class ChannelsConvolution {
 public:
  ChannelsConvolution(const GatherProblem& p, const std::vector<BandPlan>& plans, float* partial)
      : p_(p),
        plans_(plans),
        partial_(partial),
        vectors_(p.groups, p.jobs[0].channels, p.columns) {}

  void run(ParallelFor parallel_for) const {
    const int64_t blocks = plans_.back().first_block + plans_.back().blocks;
    parallel_tasks(parallel_for, blocks * vectors_.count, [&](int64_t begin, int64_t end) {
      auto plan = plans_.begin();
      for (int64_t t = begin; t < end; ++t) {
        const int64_t block = t / vectors_.count;
        while (block >= plan->first_block + plan->blocks) ++plan;
        sum_band(*plan, block, t % vectors_.count);
      }
    });
  }

 private:
  void sum_band(const BandPlan& plan, int64_t block, int64_t vector) const {
    const GatherJob& job = *plan.job;
    const Band band = band_of(plan, block - plan.first_block);
    const float* source = expand_band<kIn>(job, p_.in, p_.source, vectors_, vector, band);
    float* filter = scratch(Scratch::kOutput, job.depth() * kLanes);
    expand_filter(p_.filter, p_.filter_group, job, vectors_, vector, filter);
    const int64_t channel = vectors_.first_group(vector) * p_.columns;
    const int64_t end = channel + vectors_.groups_of(vector) * p_.columns;
    float* partial = partial_ ? partial_ + block * kPartialRows * p_.out.channels : nullptr;
    with_epilogue<kKind>(p_.out, channel, end, partial, [&](auto& epilogue) {
      for (int64_t i = band.begin; i < band.end; ++i) {
        sum_line(job, band, i, source, filter, epilogue);
      }
    });
  }

  // Pixels that share a load of the filter, and hide the latency of the sums.
  static constexpr int kPixels = 8;

  template <typename Epilogue>
  void sum_line(const GatherJob& job, const Band& band, int64_t i, const float* source,
                const float* filter, Epilogue& epilogue) const {
    const bool taps = !job.taps_w.empty();
    const int64_t left = taps ? job.taps_w[0].offset : 0;
    const int64_t right = taps ? job.taps_w.back().offset : 0;
    const int64_t pixel = output_pixel(job, band.image, i, 0);
    for (int64_t j = 0; j < job.grid_w;) {
      const bool inside = j * job.stride_w + left >= 0 && j + kPixels <= job.grid_w &&
                          (j + kPixels - 1) * job.stride_w + right < job.source_w;
      if (inside) {
        sum_pixels<kPixels>(job, band, i, j, source, filter, pixel, epilogue);
        j += kPixels;
      } else {
        sum_pixels<1>(job, band, i, j, source, filter, pixel, epilogue);
        ++j;
      }
    }
  }

  // kCount > 1: all taps' columns are inside the source.
  template <int kCount, typename Epilogue>
  RNK_INLINE void sum_pixels(const GatherJob& job, const Band& band, int64_t i, int64_t j,
                             const float* source, const float* filter, int64_t pixel,
                             Epilogue& epilogue) const {
    FloatVec acc[kCount] = {};
    const int64_t floats = job.channels * kLanes, step = job.stride_w * floats;
    for (const GatherTap& r : job.taps_h) {
      const int64_t h = i * job.stride_h + r.offset;
      for (const GatherTap& s : job.taps_w) {
        const int64_t w = j * job.stride_w + s.offset;
        const float* taps = filter;
        filter += floats;
        if (h < 0 || h >= job.source_h) continue;
        if (kCount == 1 && (w < 0 || w >= job.source_w)) continue;
        const float* from = source + ((h - band.source_begin) * job.source_w + w) * floats;
        for (int64_t c = 0; c < floats; c += kLanes) {
          const FloatVec tap = load_vec(taps + c);
          RNK_UNROLL for (int u = 0; u < kCount; ++u) acc[u] += load_vec(from + u * step + c) * tap;
        }
      }
    }
    RNK_UNROLL for (int u = 0; u < kCount; ++u) {
      epilogue.put(pixel + (j + u) * job.step_w, acc[u]);
    }
  }

  const GatherProblem& p_;
  const std::vector<BandPlan>& plans_;
  float* const partial_;
  const ChannelVectors vectors_;
};

RNK_ISA_END
