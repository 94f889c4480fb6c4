// Activations and their derivatives on packs. NaN stays NaN, as in torch.
RNK_ISA_BEGIN

// max(x, 0) that keeps NaN.
template <typename Vec>
RNK_INLINE Vec relu(Vec x) {
  return x < 0 ? (Vec){} : x;
}

// act(t) and dz * act'(t) of one native vector.
template <typename Vec, typename A>
RNK_INLINE Vec act_value(Vec t, Act act, A slope) {
  if (act == Act::kIdentity) return t;
  if (act == Act::kRelu) return relu(t);
  if (act == Act::kLeakyRelu) return t > 0 ? t : t * slope;
  if (act == Act::kGelu) return t * normal(t).cdf;
  return t * sigmoid(t);
}

template <typename Vec, typename A>
RNK_INLINE Vec act_slope(Vec dz, Vec t, Act act, A slope) {
  if (act == Act::kIdentity) return dz;
  if (act == Act::kRelu) return t > 0 ? dz : (Vec){};
  if (act == Act::kLeakyRelu) return t > 0 ? dz : dz * slope;
  if (act == Act::kGelu) {
    const auto at = normal(t);
    return dz * (at.cdf + t * at.density);
  }
  const Vec s = sigmoid(t);
  return dz * (s * (1 + t * (1 - s)));
}

// The same for inner loops that mostly meet identity and relu: the others are called, not inlined.
template <typename Vec, typename A>
__attribute__((noinline)) void act_value_call(Vec& t, Act act, A slope) {
  t = act_value(t, act, slope);
}

template <typename Vec, typename A>
RNK_INLINE Vec act_value_mostly_relu(Vec t, Act act, A slope) {
  if (act == Act::kRelu) return relu(t);
  if (act != Act::kIdentity) act_value_call(t, act, slope);
  return t;
}

template <typename Vec, typename A>
__attribute__((noinline)) void act_slope_call(Vec& dz, const Vec& t, Act act, A slope) {
  dz = act_slope(dz, t, act, slope);
}

template <typename Vec, typename A>
RNK_INLINE Vec act_slope_mostly_relu(Vec dz, Vec t, Act act, A slope) {
  if (act == Act::kRelu) return t > 0 ? dz : (Vec){};
  if (act != Act::kIdentity) act_slope_call(dz, t, act, slope);
  return dz;
}

// t = act(t), in place and never inlined: one copy serves all kernels, and these are not memory
// bound.
template <typename A>
__attribute__((noinline)) void apply_act_any(Pack<A>& t, Act act, A slope) {
  RNK_EACH_PART(t, act_value(t.part[i], act, slope));
}

// dz *= act'(t).
template <typename A>
__attribute__((noinline)) void act_grad_any(Pack<A>& dz, const Pack<A>& t, Act act, A slope) {
  RNK_EACH_PART(dz, act_slope(dz.part[i], t.part[i], act, slope));
}

// Whether the kernels' inner loops know the activation at compile time. The others share one path.
enum class ActPath { kRelu, kAny };

template <ActPath kPath, typename A>
RNK_INLINE Pack<A> apply_act(Pack<A> t, Act act, A slope) {
  if constexpr (kPath == ActPath::kRelu) return positive_part(t);
  if (act != Act::kIdentity) apply_act_any(t, act, slope);
  return t;
}

template <ActPath kPath, typename A>
RNK_INLINE Pack<A> act_grad(Pack<A> dz, Pack<A> t, Act act, A slope) {
  if constexpr (kPath == ActPath::kRelu) return where_positive(t, dz, broadcast(A(0)));
  if (act != Act::kIdentity) act_grad_any(dz, t, act, slope);
  return dz;
}

RNK_ISA_END
