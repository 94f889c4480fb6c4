// Activations and their derivatives on packs. NaN stays NaN, as in torch.
RNK_ISA_BEGIN

// t = act(t), in place and never inlined: one copy serves all kernels, and these are not memory
// bound.
template <typename A>
__attribute__((noinline)) void apply_act_any(Pack<A>& t, Act act, A slope) {
  switch (act) {
    case Act::kRelu:
      t = positive_part(t);
      return;
    case Act::kLeakyRelu:
      t = where_positive(t, t, t * broadcast(slope));
      return;
    case Act::kGelu:
      RNK_EACH_PART(t, t.part[i] * normal(t.part[i]).cdf);
      return;
    case Act::kSilu:
      RNK_EACH_PART(t, t.part[i] * sigmoid(t.part[i]));
      return;
    default:
      return;
  }
}

// dz *= act'(t).
template <typename A>
__attribute__((noinline)) void act_grad_any(Pack<A>& dz, const Pack<A>& t, Act act, A slope) {
  switch (act) {
    case Act::kRelu:
      dz = where_positive(t, dz, broadcast(A(0)));
      return;
    case Act::kLeakyRelu:
      dz = where_positive(t, dz, dz * broadcast(slope));
      return;
    case Act::kGelu:
      for (int i = 0; i < Pack<A>::kParts; ++i) {
        const auto at = normal(t.part[i]);
        dz.part[i] *= at.cdf + t.part[i] * at.density;
      }
      return;
    case Act::kSilu:
      for (int i = 0; i < Pack<A>::kParts; ++i) {
        const auto s = sigmoid(t.part[i]);
        dz.part[i] *= s * (1 + t.part[i] * (1 - s));
      }
      return;
    default:
      return;
  }
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
