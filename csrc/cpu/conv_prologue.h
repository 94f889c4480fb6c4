// What a convolution reads: x itself, or act(scale * x + bias), for one vector of channels.
RNK_ISA_BEGIN

template <bool kAffine>
class ColumnPrologue {
 public:
  RNK_INLINE ColumnPrologue(const ConvPrologue& in, int64_t channel, int lanes)
      : in_(in), lanes_(lanes) {
    if constexpr (kAffine) {
      scale_ = load_lanes(in.scale + channel, lanes);
      bias_ = load_lanes(in.bias + channel, lanes);
    }
  }

  RNK_INLINE FloatVec operator()(const float* x) const {
    FloatVec v = load_lanes(x, lanes_);
    if constexpr (kAffine) v = act_value_mostly_relu(v * scale_ + bias_, in_.act, in_.slope);
    return v;
  }

 private:
  const ConvPrologue in_;
  const int lanes_;
  FloatVec scale_, bias_;
};

RNK_ISA_END
