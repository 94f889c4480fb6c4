// exp, the logistic function and the normal distribution on packs: fp32 to a relative error of a
// few eps; fp64 by libm.
RNK_ISA_BEGIN

// exp(high + low), |low| <= 0.03, high <= 89 after clamping; NaN stays NaN. Cephes' expf
// polynomial.
RNK_INLINE FloatVec exp_sum(FloatVec high, FloatVec low) {
  high = high < -104.0f ? (FloatVec){} - 104.0f : high;
  high = high > 89.0f ? (FloatVec){} + 89.0f : high;
  const FloatVec shifted = high * 1.44269504088896341f + 0x1.8p23f;  // rounds to an integer
  const FloatVec n = shifted - 0x1.8p23f;
  const FloatVec r = (high - n * 0.693359375f) + n * 2.12194440e-4f + low;
  FloatVec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // 2^n in two factors, so that denormal results and 2^128 come out.
  const IntVec exponent = (IntVec)as_bits(shifted) - 0x4b400000;
  const IntVec half = exponent >> 1;
  p *= as_float((UintVec)((half + 127) << 23));
  return p * as_float((UintVec)((exponent - half + 127) << 23));
}

template <typename F>
RNK_INLINE DoubleVec each_lane(DoubleVec x, F f) {
  for (int i = 0; i < Pack<double>::kLanes; ++i) x[i] = f(x[i]);
  return x;
}

RNK_INLINE FloatVec magnitude(FloatVec x) { return as_float(as_bits(x) & 0x7fffffffu); }

// 1 / (1 + exp(-x)).
RNK_INLINE FloatVec sigmoid(FloatVec x) {
  const FloatVec e = exp_sum(-magnitude(x), (FloatVec){});
  return (x >= 0 ? (FloatVec){} + 1.0f : e) / (e + 1.0f);
}

RNK_INLINE DoubleVec sigmoid(DoubleVec x) {
  return each_lane(x, [](double v) { return 1.0 / (1.0 + std::exp(-v)); });
}

// Distribution function and density of the standard normal.
template <typename Vec>
struct Normal {
  Vec cdf, density;
};

// The upper tail is exp(-x^2/2) times a polynomial in 1/(1 + 0.3 |x|), fitted to a relative error
// of 6e-8. x^2 is split so that its rounding does not reach the exponential.
RNK_INLINE Normal<FloatVec> normal(FloatVec x) {
  FloatVec t = magnitude(x);
  t = t > 15.0f ? (FloatVec){} + 15.0f : t;
  const FloatVec short_t = as_float(as_bits(t) & 0xfffff000u);
  const FloatVec e = exp_sum(short_t * short_t * -0.5f, (t - short_t) * (t + short_t) * -0.5f);
  const FloatVec u = 1.0f / (t * 0.3f + 1.0f);
  FloatVec p = u * 0.038407571613788605f - 0.16930828988552094f;
  p = p * u + 0.22895340621471405f;
  p = p * u - 0.07684142887592316f;
  p = p * u + 0.14276641607284546f;
  p = p * u + 0.09458541125059128f;
  p = p * u + 0.12194537371397018f;
  p = p * u + 0.11948419362306595f;
  p = p * u + 7.3731321208470035e-06f;
  const FloatVec tail = e * p;
  return {x > 0 ? 1.0f - tail : tail, e * 0.398942280401432678f};
}

RNK_INLINE Normal<DoubleVec> normal(DoubleVec x) {
  constexpr double kInvSqrt2 = 0.707106781186547524401, kInvSqrt2Pi = 0.398942280401432677940;
  return {each_lane(x, [](double v) { return 0.5 * std::erfc(-v * kInvSqrt2); }),
          each_lane(x, [](double v) { return kInvSqrt2Pi * std::exp(-0.5 * v * v); })};
}

RNK_ISA_END
