// Loads and stores of packs of elements: fp32, fp64, and fp16 and bf16 rounded to nearest even.
RNK_ISA_BEGIN

RNK_INLINE FloatVec as_float(UintVec bits) { return (FloatVec)bits; }
RNK_INLINE UintVec as_bits(FloatVec x) { return (UintVec)x; }

RNK_INLINE UintVec widen(ShortVec x) {
#if RNK_ISA_LEVEL == 2
  return (UintVec)_mm512_cvtepu16_epi32((__m256i)x);
#elif RNK_ISA_LEVEL == 1
  return (UintVec)_mm256_cvtepu16_epi32((__m128i)x);
#else
  return __builtin_convertvector(x, UintVec);
#endif
}

// The low halves, which hold the whole value.
RNK_INLINE ShortVec narrow(UintVec x) {
#if RNK_ISA_LEVEL == 2
  return (ShortVec)_mm512_cvtepi32_epi16((__m512i)x);
#elif RNK_ISA_LEVEL == 1
  const __m256i packed = _mm256_packus_epi32((__m256i)x, (__m256i)x);
  return (ShortVec)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#elif defined(__x86_64__)
  // SSE2 packs with signed saturation only: move the values to the signed range and back.
  const __m128i signed_values = _mm_srai_epi32(_mm_slli_epi32((__m128i)x, 16), 16);
  ShortVec out;
  _mm_storel_epi64((__m128i*)&out, _mm_packs_epi32(signed_values, signed_values));
  return out;
#else
  return __builtin_convertvector(x, ShortVec);
#endif
}

RNK_INLINE FloatVec from_element(ShortVec bits, BFloat16) { return as_float(widen(bits) << 16); }

#if RNK_BF16_UNITS > 0
// Denormals become zero, as in the products of this instruction set.
RNK_INLINE ShortVec to_element(FloatVec x, BFloat16) {
  return (ShortVec)_mm512_cvtneps_pbh((__m512)x);
}
#else
RNK_INLINE ShortVec to_element(FloatVec x, BFloat16) {
  const UintVec bits = as_bits(x);
  const UintVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const UintVec quiet = ((bits >> 16) & 0x8000u) | 0x7fc0u;
  return narrow(x == x ? rounded : quiet);
}
#endif

#if RNK_ISA_LEVEL == 2
RNK_INLINE FloatVec from_element(ShortVec bits, Half) {
  return (FloatVec)_mm512_cvtph_ps((__m256i)bits);
}
RNK_INLINE ShortVec to_element(FloatVec x, Half) {
  return (ShortVec)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif RNK_ISA_LEVEL == 1
RNK_INLINE FloatVec from_element(ShortVec bits, Half) {
  return (FloatVec)_mm256_cvtph_ps((__m128i)bits);
}
RNK_INLINE ShortVec to_element(FloatVec x, Half) {
  return (ShortVec)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif defined(__aarch64__)
typedef __fp16 HalfVec __attribute__((vector_size(RNK_VECTOR_BYTES / 2)));
RNK_INLINE FloatVec from_element(ShortVec bits, Half) {
  return __builtin_convertvector((HalfVec)bits, FloatVec);
}
RNK_INLINE ShortVec to_element(FloatVec x, Half) {
  return (ShortVec) __builtin_convertvector(x, HalfVec);
}
#else
// Without conversion instructions, and too long to inline. A multiplication by 2^112 moves the
// exponent and is exact for denormals too; inf and NaN then need their exponent filled up.
inline __attribute__((noinline)) FloatVec half_to_float(ShortVec half) {
  const UintVec bits = widen(half);
  const FloatVec magnitude = as_float((bits & 0x7fffu) << 13) * 0x1p112f;
  const UintVec special = (bits & 0x7fffu) >= 0x7c00u ? (UintVec){} + 0x7f800000u : (UintVec){};
  return as_float(as_bits(magnitude) | special | (bits & 0x8000u) << 16);
}
inline __attribute__((noinline)) ShortVec float_to_half(FloatVec x) {
  const UintVec bits = as_bits(x);
  const UintVec magnitude = bits & 0x7fffffffu;
  // Normal: round off 13 bits of the mantissa, move the exponent by 112.
  const UintVec normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  // Denormal: adding 0.5 lets the addition round at 2^-24.
  const UintVec denormal = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000u;
  UintVec out = magnitude < (113u << 23) ? denormal : normal;
  out = magnitude >= (143u << 23) ? (UintVec){} + 0x7c00u : out;
  out = magnitude > 0x7f800000u ? (UintVec){} + 0x7e00u : out;
  return narrow(out | ((bits >> 16) & 0x8000u));
}
RNK_INLINE FloatVec from_element(ShortVec bits, Half) { return half_to_float(bits); }
RNK_INLINE ShortVec to_element(FloatVec x, Half) { return float_to_half(x); }
#endif

template <typename Element>
RNK_INLINE Pack<Compute<Element>> load(const Element* p, Full) {
  if constexpr (sizeof(Element) == 2) {
    using A = float;
    Pack<A> out;
    ShortVec bits[Pack<A>::kParts];
    std::memcpy(bits, p, sizeof(bits));
    RNK_EACH_PART(out, from_element(bits[i], Element()));
    return out;
  } else {
    return load_compute(p);
  }
}

template <typename Element>
RNK_INLINE void store(Element* p, const Pack<Compute<Element>>& x, Full) {
  if constexpr (sizeof(Element) == 2) {
    ShortVec bits[Pack<float>::kParts];
    RNK_UNROLL for (int i = 0; i < Pack<float>::kParts; ++i) {
      bits[i] = to_element(x.part[i], Element());
    }
    std::memcpy(p, bits, sizeof(bits));
  } else {
    store_compute(p, x);
  }
}

// Parts end rows and tensors: called, not inlined, to keep the loops small. Missing elements read
// as zero.
template <typename Element>
__attribute__((noinline)) void load_part(const Element* p, int count, Pack<Compute<Element>>& x) {
  Element copy[kPack] = {};
  for (int i = 0; i < count; ++i) copy[i] = p[i];
  x = load(copy, Full());
}

template <typename Element>
__attribute__((noinline)) void store_part(Element* p, int count, const Pack<Compute<Element>>& x) {
  Element copy[kPack];
  store(copy, x, Full());
  for (int i = 0; i < count; ++i) p[i] = copy[i];
}

template <typename Element>
RNK_INLINE Pack<Compute<Element>> load(const Element* p, Part n) {
  Pack<Compute<Element>> x;
  load_part(p, n.count, x);
  return x;
}

template <typename Element>
RNK_INLINE void store(Element* p, const Pack<Compute<Element>>& x, Part n) {
  store_part(p, n.count, x);
}

// x as it would be read back after a store.
template <typename Element>
RNK_INLINE Pack<Compute<Element>> round_to(Pack<Compute<Element>> x) {
  if constexpr (sizeof(Element) == 2) {
    using A = float;
    RNK_EACH_PART(x, from_element(to_element(x.part[i], Element()), Element()));
  }
  return x;
}

RNK_ISA_END
