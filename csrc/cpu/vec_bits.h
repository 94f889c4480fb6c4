// Packs to and from bits, bit i of a pack's kPack bits belonging to lane i.
RNK_ISA_BEGIN

// Bit i: x[i] > 0.
RNK_INLINE unsigned positive_bits_of(FloatVec x) {
#if RNK_ISA_LEVEL == 2
  return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_GT_OQ);
#elif RNK_ISA_LEVEL == 1
  return static_cast<unsigned>(_mm256_movemask_ps((__m256)(x > 0)));
#elif defined(__x86_64__)
  return static_cast<unsigned>(_mm_movemask_ps((__m128)(x > 0)));
#else
  const IntVec lane_bits = {1, 2, 4, 8};
  const IntVec bits = (x > 0) & lane_bits;
  return static_cast<unsigned>(bits[0] | bits[1] | bits[2] | bits[3]);
#endif
}

RNK_INLINE unsigned positive_bits_of(DoubleVec x) {
  const LongVec positive = x > 0;
  unsigned bits = 0;
  RNK_UNROLL for (int i = 0; i < Pack<double>::kLanes; ++i) bits |= (positive[i] & 1) << i;
  return bits;
}

template <typename A>
RNK_INLINE unsigned positive_bits(Pack<A> x) {
  unsigned bits = 0;
  RNK_UNROLL for (int i = 0; i < Pack<A>::kParts; ++i) {
    bits |= positive_bits_of(x.part[i]) << (i * Pack<A>::kLanes);
  }
  return bits;
}

// bit i ? a : b.
template <typename A>
RNK_INLINE Pack<A> where_bits(unsigned bits, Pack<A> a, Pack<A> b) {
  pin(a);
#if RNK_ISA_LEVEL == 2
  if constexpr (std::is_same_v<A, float>) {
    const auto mask = static_cast<__mmask16>(bits);
    a.part[0] = (FloatVec)_mm512_mask_mov_ps((__m512)b.part[0], mask, (__m512)a.part[0]);
    return a;
  }
#endif
  using Ints = typename Pack<A>::IntLanes;
  Ints lane_bits;
  for (int i = 0; i < Pack<A>::kLanes; ++i) lane_bits[i] = 1 << i;
  RNK_UNROLL for (int i = 0; i < Pack<A>::kParts; ++i) {
    const Ints here = (Ints){} + static_cast<int>(bits >> (i * Pack<A>::kLanes));
    a.part[i] = (here & lane_bits) != 0 ? a.part[i] : b.part[i];
  }
  return a;
}

// x, with zero in the lanes that do not exist.
template <typename A>
RNK_INLINE Pack<A> first_lanes(Pack<A> x, Part n) {
  return where_bits((1u << n.count) - 1, x, broadcast(A(0)));
}

template <typename A>
RNK_INLINE Pack<A> first_lanes(Pack<A> x, Full) {
  return x;
}

// In fp64 and in the order of the lanes, for every instruction set the same.
template <typename A>
__attribute__((noinline)) double sum_of_lanes(const Pack<A>& x) {
  alignas(64) A lane[kPack];
  store_compute(lane, x);
  double sum = 0;
  for (A value : lane) sum += value;
  return sum;
}

RNK_ISA_END
