// The filter gradient where groups have few channels: sums over pixels of vectors of dy times the
// expanded x of conv_channels.h.
RNK_ISA_BEGIN

template <PackIn kIn>
class WgradChannels {
 public:
  WgradChannels(const ConvWgradParams& params, const GatherJob& job)
      : p_(params),
        job_(job),
        vectors_(params.shape.groups, job.channels, params.shape.k / params.shape.groups),
        bands_(job, 0, kExpandedFloats, kLanes * job.channels, kBandPixels),
        chunks_(std::clamp<int64_t>(std::min(kWantedTasks / vectors_.count, bands_.blocks), 1,
                                    kWantedTasks)),
        size_(job.depth() * kLanes) {}

  void run(ParallelFor parallel_for) const {
    float* partial = scratch(Scratch::kPartial, chunks_ * vectors_.count * size_);
    parallel_tasks(parallel_for, chunks_ * vectors_.count, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        sum_chunk(t % vectors_.count, t / vectors_.count, partial + t * size_);
      }
    });
    for (int64_t vector = 0; vector < vectors_.count; ++vector) {
      float* sums = partial + vector * size_;
      for (int64_t chunk = 1; chunk < chunks_; ++chunk) {
        const float* more = sums + chunk * vectors_.count * size_;
        for (int64_t i = 0; i < size_; ++i) sums[i] += more[i];
      }
      store(vector, sums);
    }
  }

 private:
  void sum_chunk(int64_t vector, int64_t chunk, float* sums) const {
    std::fill_n(sums, size_, 0.0f);
    const int64_t last = bands_.blocks * (chunk + 1) / chunks_;
    for (int64_t block = bands_.blocks * chunk / chunks_; block < last; ++block) {
      const Band band = band_of(bands_, block);
      const float* x = expand_band<kIn>(job_, p_.in, p_.x, vectors_, vector, band);
      for (int64_t i = band.begin; i < band.end; ++i) {
        const float* dy = copy_line(vector, band.image * job_.grid_h + i);
        sum_line(band, i, dy, x, sums);
      }
    }
  }

  // A line of dy as [column][kLanes].
  const float* copy_line(int64_t vector, int64_t line) const {
    const int64_t filters = p_.shape.k;
    const int count = static_cast<int>(vectors_.groups_of(vector) * vectors_.columns);
    float* to = scratch(Scratch::kOutput, job_.grid_w * kLanes);
    const float* from =
        p_.dy + line * job_.grid_w * filters + vectors_.first_group(vector) * vectors_.columns;
    for (int64_t j = 0; j < job_.grid_w; ++j) {
      store_vec(to + j * kLanes, load_lanes(from + j * filters, count));
    }
    return to;
  }

  void sum_line(const Band& band, int64_t i, const float* dy, const float* x, float* sums) const {
    const int64_t floats = job_.channels * kLanes;
    for (const GatherTap& r : job_.taps_h) {
      const int64_t h = i * job_.stride_h + r.offset;
      for (const GatherTap& s : job_.taps_w) {
        float* to = sums;
        sums += floats;
        if (h < 0 || h >= job_.source_h || s.offset >= job_.source_w) continue;
        const int64_t first = std::max<int64_t>(0, (job_.stride_w - 1 - s.offset) / job_.stride_w);
        const int64_t last =
            std::min(job_.grid_w, (job_.source_w - 1 - s.offset) / job_.stride_w + 1);
        if (first >= last) continue;
        const float* from = x + (h - band.source_begin) * job_.source_w * floats +
                            (first * job_.stride_w + s.offset) * floats;
        for (int64_t c = 0; c < floats; c += kLanes) {
          const FloatVec sum = sum_products(dy + first * kLanes, from + c, last - first);
          store_vec(to + c, load_vec(to + c) + sum);
        }
      }
    }
  }

  FloatVec sum_products(const float* dy, const float* x, int64_t count) const {
    constexpr int kSums = 4;  // hide the latency of the additions
    FloatVec acc[kSums] = {};
    const int64_t step = job_.stride_w * job_.channels * kLanes;
    int64_t j = 0;
    for (; j + kSums <= count; j += kSums) {
      RNK_UNROLL for (int u = 0; u < kSums; ++u) {
        acc[u] += load_vec(dy + (j + u) * kLanes) * load_vec(x + (j + u) * step);
      }
    }
    for (; j < count; ++j) acc[0] += load_vec(dy + j * kLanes) * load_vec(x + j * step);
    return (acc[0] + acc[1]) + (acc[2] + acc[3]);
  }

  void store(int64_t vector, const float* sums) const {
    const FilterStrides& to = p_.dw_strides;
    const int64_t filters = vectors_.groups_of(vector) * vectors_.columns;
    float* dw = p_.dw + vectors_.first_group(vector) * vectors_.columns * to.k;
    for (int64_t r = 0; r < p_.shape.r; ++r) {
      for (int64_t s = 0; s < p_.shape.s; ++s) {
        for (int64_t c = 0; c < job_.channels; ++c, sums += kLanes) {
          for (int64_t k = 0; k < filters; ++k) {
            dw[k * to.k + c * to.c + r * to.r + s * to.s] = sums[k];
          }
        }
      }
    }
  }

  const ConvWgradParams& p_;
  const GatherJob& job_;
  const ChannelVectors vectors_;
  const BandPlan bands_;
  const int64_t chunks_;
  const int64_t size_;  // floats of a vector's sums
};

RNK_ISA_END
