// Activations and their derivatives on packs. NaN stays NaN, as in torch.
RNK_ISA_BEGIN

template <typename A>
RNK_INLINE Pack<A> apply_act_any(Pack<A> t, Act act, A slope) {
  switch (act) {
    case Act::kRelu:
      return positive_part(t);
    case Act::kLeakyRelu:
      return where_positive(t, t, t * broadcast(slope));
    case Act::kGelu:
      RNK_EACH_PART(t, t.part[i] * normal(t.part[i]).cdf);
      return t;
    case Act::kSilu:
      RNK_EACH_PART(t, t.part[i] * sigmoid(t.part[i]));
      return t;
    default:
      return t;
  }
}

// dz * act'(t).
template <typename A>
RNK_INLINE Pack<A> act_grad_any(Pack<A> dz, Pack<A> t, Act act, A slope) {
  switch (act) {
    case Act::kRelu:
      return where_positive(t, dz, broadcast(A(0)));
    case Act::kLeakyRelu:
      return where_positive(t, dz, dz * broadcast(slope));
    case Act::kGelu:
      RNK_UNROLL for (int i = 0; i < Pack<A>::kParts; ++i) {
        const auto at = normal(t.part[i]);
        dz.part[i] *= at.cdf + t.part[i] * at.density;
      }
      return dz;
    case Act::kSilu:
      RNK_UNROLL for (int i = 0; i < Pack<A>::kParts; ++i) {
        const auto s = sigmoid(t.part[i]);
        dz.part[i] *= s * (1 + t.part[i] * (1 - s));
      }
      return dz;
    default:
      return dz;
  }
}

// Whether the kernels' inner loops know the activation at compile time. The others share one path.
enum class ActPath { kRelu, kAny };

template <ActPath kPath, typename A>
RNK_INLINE Pack<A> apply_act(Pack<A> t, Act act, A slope) {
  if constexpr (kPath == ActPath::kRelu) return positive_part(t);
  return apply_act_any(t, act, slope);
}

template <ActPath kPath, typename A>
RNK_INLINE Pack<A> act_grad(Pack<A> dz, Pack<A> t, Act act, A slope) {
  if constexpr (kPath == ActPath::kRelu) return where_positive(t, dz, broadcast(A(0)));
  return act_grad_any(dz, t, act, slope);
}

RNK_ISA_END
