// What happens to the sums of a convolution before they are stored, for one vector of channels at a
// time, and what blocks of rows leave for the statistics.
RNK_ISA_BEGIN

enum class EpilogueKind {
  kStore,   // out = v
  kStats,   // out = v, and per block mean and M2
  kAffine,  // out = act(scale * v + bias + residual)
  kBnGrad   // out = (v + residual) * act'(...) and per block the sums of it and of it * (y - mean)
};

// Tensors [rows, channels] and vectors [channels]; null where the kind or the op has none.
struct EpilogueTensors {
  float* out;
  int64_t channels;
  const float* residual;
  const float *scale, *bias;
  Act act;
  float slope;
  const float *y, *mean;
  const uint8_t* mask;
};

#if RNK_ISA_LEVEL == 1
RNK_INLINE IntVec first_lanes_mask(int count) {
  return (IntVec){0, 1, 2, 3, 4, 5, 6, 7} < (IntVec){} + count;
}
#endif

// The first `count` of kLanes floats.
RNK_INLINE FloatVec load_lanes(const float* p, int count) {
  if (count == kLanes) return load_vec(p);
#if RNK_ISA_LEVEL == 2
  return (FloatVec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
#elif RNK_ISA_LEVEL == 1
  return (FloatVec)_mm256_maskload_ps(p, (__m256i)first_lanes_mask(count));
#endif
  float copy[kLanes] = {};
  for (int i = 0; i < count; ++i) copy[i] = p[i];
  return load_vec(copy);
}

RNK_INLINE void store_lanes(float* p, FloatVec x, int count) {
  if (count == kLanes) return store_vec(p, x);
#if RNK_ISA_LEVEL == 2
  return _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), (__m512)x);
#elif RNK_ISA_LEVEL == 1
  return _mm256_maskstore_ps(p, (__m256i)first_lanes_mask(count), (__m256)x);
#endif
  float copy[kLanes];
  store_vec(copy, x);
  for (int i = 0; i < count; ++i) p[i] = copy[i];
}

// Handles the values of channels [channel, channel + lanes), row by row in any order; `end` ends
// the channels of a group.
template <EpilogueKind kKind>
class ColumnEpilogue {
 public:
  RNK_INLINE ColumnEpilogue(const EpilogueTensors& t, int64_t channel)
      : ColumnEpilogue(t, channel, t.channels) {}

  RNK_INLINE ColumnEpilogue(const EpilogueTensors& t, int64_t channel, int64_t end)
      : t_(t),
        channel_(channel),
        lanes_(static_cast<int>(std::clamp<int64_t>(end - channel, 0, kLanes))) {
    if constexpr (kKind == EpilogueKind::kAffine || kKind == EpilogueKind::kBnGrad) {
      scale_ = t.scale ? load_lanes(t.scale + channel, lanes_) : splat(1);
      bias_ = t.bias ? load_lanes(t.bias + channel, lanes_) : splat(0);
    }
    if constexpr (kKind == EpilogueKind::kBnGrad) pivot_ = load_lanes(t.mean + channel, lanes_);
  }

  RNK_INLINE void put(int64_t row, FloatVec v) {
    const int64_t at = row * t_.channels + channel_;
    if constexpr (kKind == EpilogueKind::kStats) {
      // M2 loses the pivot's distance to the mean in standard deviations, squared, times eps: the
      // first value serves until there is a mean of some.
      if (count_ == 0) pivot_ = v;
      if (count_ == kPivotRows) move_pivot();
      const FloatVec d = v - pivot_;
      sum_ += d;
      dot_ += d * d;
    }
    if constexpr (kKind == EpilogueKind::kAffine) {
      v = v * scale_ + bias_;
      if (t_.residual) v += load_lanes(t_.residual + at, lanes_);
      v = act_value_mostly_relu(v, t_.act, t_.slope);
    }
    if constexpr (kKind == EpilogueKind::kBnGrad) {
      if (t_.residual) v += load_lanes(t_.residual + at, lanes_);
      const FloatVec y = load_lanes(t_.y + at, lanes_);
      const FloatVec pre = t_.mask ? mask_sign(at) : y * scale_ + bias_;
      v = act_slope_mostly_relu(v, pre, t_.act, t_.slope);
      sum_ += v;
      dot_ += v * (y - pivot_);
    }
    ++count_;
    store_lanes(t_.out + at, v, lanes_);
  }

  // Leaves what the rows of a block add up to in partial [2, channels].
  RNK_INLINE void finish(float* partial) const {
    if constexpr (kKind == EpilogueKind::kStats) {
      const FloatVec shift = sum_ / static_cast<float>(count_);
      const FloatVec m2 = dot_ - sum_ * shift;
      store_lanes(partial + channel_, pivot_ + shift, lanes_);
      store_lanes(partial + t_.channels + channel_, m2 < 0 ? (FloatVec){} : m2, lanes_);
    }
    if constexpr (kKind == EpilogueKind::kBnGrad) {
      store_lanes(partial + channel_, sum_, lanes_);
      store_lanes(partial + t_.channels + channel_, dot_, lanes_);
    }
  }

 private:
  static constexpr int kPivotRows = 16;

  void move_pivot() {
    const FloatVec moved = (pivot_ + sum_ / static_cast<float>(count_)) - pivot_;
    const FloatVec all = moved * static_cast<float>(count_);
    dot_ += moved * (all - 2 * sum_);
    sum_ -= all;
    pivot_ += moved;
  }

  // 1 where the mask's bit is set, -1 where it is not.
  RNK_INLINE FloatVec mask_sign(int64_t at) const {
    const unsigned bits = read_bits(t_.mask, at, lanes_);
    FloatVec sign;
    for (int i = 0; i < kLanes; ++i) sign[i] = (bits >> i & 1) ? 1.0f : -1.0f;
    return sign;
  }

  const EpilogueTensors& t_;
  const int64_t channel_;
  const int lanes_;
  FloatVec scale_, bias_, pivot_;
  FloatVec sum_ = {}, dot_ = {};
  int count_ = 0;
};

RNK_ISA_END
