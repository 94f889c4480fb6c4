// What happens to the sums of a convolution before they are stored, for one vector of channels at a
// time, and what blocks of rows leave for the statistics, which are of the values as stored.
RNK_ISA_BEGIN

enum class EpilogueKind {
  kStore,   // out = v
  kStats,   // out = v, and per block mean and M2
  kAffine,  // out = act(scale * v + bias + residual)
  kBnGrad   // out = (v + residual) * act'(...) and per block the sums of it and of it * (y - mean)
};

// Tensors [rows, channels] of Element and vectors [channels]; null where the kind or the op has
// none.
template <typename Element>
struct EpilogueTensorsOf {
  Element* out;
  int64_t channels;
  const Element* residual;
  const float *scale, *bias;
  Act act;
  float slope;
  const Element* y;
  const float* mean;
  const uint8_t* mask;
};
using EpilogueTensors = EpilogueTensorsOf<float>;

// The usual case, for which the inner loops have no calls: whole vectors, relu or nothing, no mask.
template <typename Element>
RNK_INLINE bool is_simple(const EpilogueTensorsOf<Element>& t, int64_t channel, int64_t end) {
  const bool plain_act = t.act == Act::kIdentity || t.act == Act::kRelu;
  return channel + kLanes <= end && plain_act && t.mask == nullptr;
}

// Handles the values of channels [channel, channel + kLanes), row by row in any order; `end` ends
// the channels of a group.
template <EpilogueKind kKind, bool kSimple, typename Element = float>
class ColumnEpilogue {
 public:
  RNK_INLINE ColumnEpilogue(const EpilogueTensorsOf<Element>& t, int64_t channel, int64_t end)
      : t_(t),
        channel_(channel),
        lanes_(static_cast<int>(std::clamp<int64_t>(end - channel, 0, kLanes))) {
    if constexpr (kKind == EpilogueKind::kAffine || kKind == EpilogueKind::kBnGrad) {
      scale_ = t.scale ? load(t.scale + channel) : splat(1);
      bias_ = t.bias ? load(t.bias + channel) : splat(0);
    }
    if constexpr (kKind == EpilogueKind::kBnGrad) pivot_ = load(t.mean + channel);
  }

  RNK_INLINE void put(int64_t row, FloatVec v) {
    const int64_t at = row * t_.channels + channel_;
    if constexpr (kKind == EpilogueKind::kStats) {
      v = round_lanes<Element>(v);
      // M2 loses the pivot's distance to the mean in standard deviations, squared, times eps: the
      // first value serves until there is a mean of some.
      if (count_ == 0) pivot_ = v;
      if (count_ == kPivotRows) move_pivot();
      const FloatVec d = v - pivot_;
      sum_ += d;
      dot_ += d * d;
      ++count_;
    }
    if constexpr (kKind == EpilogueKind::kAffine) {
      v = v * scale_ + bias_;
      if (t_.residual) v += load(t_.residual + at);
      v = act(v);
    }
    if constexpr (kKind == EpilogueKind::kBnGrad) {
      if (t_.residual) v += load(t_.residual + at);
      const FloatVec y = load(t_.y + at);
      v = round_lanes<Element>(act_gradient(v, y, at));
      sum_ += v;
      dot_ += v * (y - pivot_);
    }
    store(t_.out + at, v);
  }

  // Leaves what the rows of a block add up to in partial [kPartialRows, channels].
  RNK_INLINE void finish(float* partial) const {
    if constexpr (kKind == EpilogueKind::kStats) {
      const FloatVec shift = sum_ / static_cast<float>(count_);
      const FloatVec m2 = dot_ - sum_ * shift;
      store(partial + channel_, pivot_);
      store(partial + t_.channels + channel_, shift);
      store(partial + 2 * t_.channels + channel_, m2 < 0 ? (FloatVec){} : m2);
    }
    if constexpr (kKind == EpilogueKind::kBnGrad) {
      store(partial + channel_, sum_);
      store(partial + t_.channels + channel_, dot_);
    }
  }

 private:
  template <typename T>
  RNK_INLINE FloatVec load(const T* p) const {
    return kSimple ? load_vec(p) : load_lanes(p, lanes_);
  }
  template <typename T>
  RNK_INLINE void store(T* p, FloatVec x) const {
    kSimple ? store_vec(p, x) : store_lanes(p, x, lanes_);
  }

  RNK_INLINE FloatVec act(FloatVec v) const {
    if constexpr (kSimple) return t_.act == Act::kRelu ? relu(v) : v;
    return act_value_mostly_relu(v, t_.act, t_.slope);
  }

  RNK_INLINE FloatVec act_gradient(FloatVec v, FloatVec y, int64_t at) const {
    if constexpr (kSimple) {
      if (t_.act == Act::kIdentity) return v;
      return y * scale_ + bias_ > 0 ? v : (FloatVec){};
    }
    const FloatVec pre = t_.mask ? mask_sign(at) : y * scale_ + bias_;
    return act_slope_mostly_relu(v, pre, t_.act, t_.slope);
  }

  static constexpr int kPivotRows = 16;

  // The sums as differences from the mean so far.
  RNK_INLINE void move_pivot() {
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

  const EpilogueTensorsOf<Element> t_;  // a copy: the stores may not change it
  const int64_t channel_;
  const int lanes_;
  FloatVec scale_, bias_, pivot_;
  FloatVec sum_ = {}, dot_ = {};
  int count_ = 0;
};

// Calls f(epilogue) with the epilogue of a column of channels and finishes it.
template <EpilogueKind kKind, typename F>
RNK_INLINE void with_epilogue(const EpilogueTensors& t, int64_t channel, int64_t end,
                              float* partial, const F& f) {
  if (is_simple(t, channel, end)) {
    ColumnEpilogue<kKind, true> epilogue(t, channel, end);
    f(epilogue);
    return epilogue.finish(partial);
  }
  ColumnEpilogue<kKind, false> epilogue(t, channel, end);
  f(epilogue);
  epilogue.finish(partial);
}

RNK_ISA_END
