// Native vectors of floats in memory: whole, in part, or spread out, for one instruction set.
RNK_ISA_BEGIN

constexpr int kLanes = RNK_VECTOR_BYTES / sizeof(float);

typedef float LooseVec __attribute__((vector_size(RNK_VECTOR_BYTES), aligned(4), may_alias));

RNK_INLINE FloatVec load_vec(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
RNK_INLINE void store_vec(float* p, FloatVec x) { *reinterpret_cast<LooseVec*>(p) = x; }
RNK_INLINE FloatVec splat(float x) { return x - (FloatVec){}; }

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
#else
  float copy[kLanes] = {};
  for (int i = 0; i < count; ++i) copy[i] = p[i];
  return load_vec(copy);
#endif
}

RNK_INLINE void store_lanes(float* p, FloatVec x, int count) {
  if (count == kLanes) return store_vec(p, x);
#if RNK_ISA_LEVEL == 2
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), (__m512)x);
#elif RNK_ISA_LEVEL == 1
  _mm256_maskstore_ps(p, (__m256i)first_lanes_mask(count), (__m256)x);
#else
  float copy[kLanes];
  store_vec(copy, x);
  for (int i = 0; i < count; ++i) p[i] = copy[i];
#endif
}

// The bits of `count` bf16 of kLanes.
RNK_INLINE ShortVec load_bits(const BFloat16* p, int count) {
  ShortVec bits = {};
  if (count == kLanes) {
    std::memcpy(&bits, p, sizeof(bits));
    return bits;
  }
#if RNK_ISA_LEVEL == 2
  return (ShortVec)_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), p);
#else
  uint16_t copy[kLanes] = {};
  for (int i = 0; i < count; ++i) copy[i] = p[i].bits;
  std::memcpy(&bits, copy, sizeof(bits));
  return bits;
#endif
}

RNK_INLINE void store_bits(BFloat16* p, ShortVec bits, int count) {
  if (count == kLanes) {
    std::memcpy(p, &bits, sizeof(bits));
    return;
  }
#if RNK_ISA_LEVEL == 2
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << count) - 1), (__m256i)bits);
#else
  uint16_t copy[kLanes];
  std::memcpy(copy, &bits, sizeof(bits));
  for (int i = 0; i < count; ++i) p[i].bits = copy[i];
#endif
}

RNK_INLINE FloatVec load_lanes(const BFloat16* p, int count) {
  return from_element(load_bits(p, count), BFloat16());
}
RNK_INLINE FloatVec load_vec(const BFloat16* p) { return load_lanes(p, kLanes); }

RNK_INLINE void store_lanes(BFloat16* p, FloatVec x, int count) {
  store_bits(p, to_element(x, BFloat16()), count);
}
RNK_INLINE void store_vec(BFloat16* p, FloatVec x) { store_lanes(p, x, kLanes); }

RNK_INLINE void copy_lanes(const float* from, float* to, int count) {
  store_lanes(to, load_lanes(from, count), count);
}
RNK_INLINE void copy_lanes(const BFloat16* from, BFloat16* to, int count) {
  store_bits(to, load_bits(from, count), count);
}

// x as it would be read back after a store.
template <typename Element>
RNK_INLINE FloatVec round_lanes(FloatVec x) {
  if constexpr (std::is_same_v<Element, BFloat16>) {
    return from_element(to_element(x, BFloat16()), BFloat16());
  }
  return x;
}

// The first `count` of kLanes floats that lie `stride` apart.
RNK_INLINE FloatVec gather_lanes(const float* p, int64_t stride, int count) {
  if (stride == 1) return load_lanes(p, count);
  float copy[kLanes] = {};
  for (int i = 0; i < count; ++i) copy[i] = p[i * stride];
  return load_vec(copy);
}

template <typename Element>
RNK_INLINE void scatter_lanes(Element* p, int64_t stride, FloatVec x, int count) {
  if (stride == 1) return store_lanes(p, x, count);
  Element copy[kLanes];
  store_vec(copy, x);
  for (int i = 0; i < count; ++i) p[i * stride] = copy[i];
}

// Lanes kLane... of a followed by b. GCC has __builtin_shufflevector from version 12 on.
template <int... kLane, typename Vec>
RNK_INLINE Vec shuffle(Vec a, Vec b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, kLane...);
#else
  typedef int32_t Lanes __attribute__((vector_size(sizeof(Vec))));
  return __builtin_shuffle(a, b, Lanes{kLane...});
#endif
}

// Every second lane from a, the others from b: of their first halves, or of their second ones.
template <int kHalf, int... kLane>
RNK_INLINE FloatVec interleave(FloatVec a, FloatVec b, std::integer_sequence<int, kLane...>) {
  constexpr int kFirst = kHalf * kLanes / 2;
  return shuffle<(kFirst + kLane / 2 + kLane % 2 * kLanes)...>(a, b);
}

// Rows to columns: v[i][j] = v[j][i], by as many perfect shuffles as kLanes has bits.
RNK_INLINE void transpose_lanes(FloatVec (&v)[kLanes]) {
  constexpr auto kAll = std::make_integer_sequence<int, kLanes>();
  RNK_UNROLL for (int width = 1; width < kLanes; width *= 2) {
    FloatVec next[kLanes];
    RNK_UNROLL for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave<0>(v[i], v[i + kLanes / 2], kAll);
      next[2 * i + 1] = interleave<1>(v[i], v[i + kLanes / 2], kAll);
    }
    RNK_UNROLL for (int i = 0; i < kLanes; ++i) v[i] = next[i];
  }
}

RNK_ISA_END
