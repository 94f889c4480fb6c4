// Operands of split_tile.h from fp32.
RNK_ISA_BEGIN

// Each a bf16 followed by zeros.
struct Split {
  FloatVec high, middle, low;
};

RNK_INLINE Split split(FloatVec x) {
  Split s;
  s.high = as_float(as_bits(x) & 0xffff0000u);
  const FloatVec rest = x - s.high;
  // Rounded, so that what is left has either sign: the products left out then have no bias.
  s.middle = as_float((as_bits(rest) + 0x8000u) & 0xffff0000u);
  s.low = rest - s.middle;
  return s;
}

// Collects whether there were infinities or NaN: these alone leave a NaN as what is low.
class SplitPairs {
 public:
  // to[part][lane] = {first[lane], second[lane]}
  RNK_INLINE void put(FloatVec first, FloatVec second, BFloat16* to) {
    const Split a = split(first), b = split(second);
    put_part(a.high, second, to);
    put_part(a.middle, b.middle, to + kSplitPart);
    put_part(a.low, b.low, to + 2 * kSplitPart);
    low_ += a.low + b.low;
  }
  bool special() const {
    return _mm512_cmp_ps_mask((__m512)low_, (__m512)low_, _CMP_UNORD_Q) != 0;
  }

 private:
  RNK_INLINE static void put_part(FloatVec first, FloatVec second, BFloat16* to) {
    constexpr __mmask32 kSecond = 0xaaaaaaaau;
    const __m512i pairs = _mm512_mask_mov_epi16(_mm512_srli_epi32((__m512i)first, 16), kSecond,
                                                (__m512i)second);
    _mm512_storeu_si512(to, pairs);
  }

  FloatVec low_ = {};
};

// A chunk of rows from `from` on, `step` floats apart, or act(scale * x + bias) of them.
template <PackIn kIn>
RNK_INLINE void split_chunk(const float* from, int64_t step, int64_t rows,
                                const ConvPrologue& in, int64_t channel, SplitPairs& pairs,
                                BFloat16* to) {
  FloatVec scale[2] = {}, bias[2] = {};
  if constexpr (kIn != PackIn::kPlain) {
    RNK_UNROLL for (int v = 0; v < 2; ++v) {
      scale[v] = load_vec(in.scale + channel + v * kLanes);
      bias[v] = load_vec(in.bias + channel + v * kLanes);
    }
  }
  for (int64_t row = 0; row < rows; ++row, from += step, to += kBf16Chunk) {
    pairs.put(pack_value<kIn>(load_vec(from), scale[0], bias[0], in),
              pack_value<kIn>(load_vec(from + kLanes), scale[1], bias[1], in), to);
  }
}

// Splits a part of B, [depth][kTileCols], some pairs at a time; zero in rows that do not exist.
class ColumnSplit {
 public:
  void begin(const float* from, int64_t depth, BFloat16* to) {
    from_ = from, to_ = to;
    depth_ = depth;
    next_ = 0, end_ = whole_chunks(depth) / 2 * kTileVectors;
    pairs_ = {};
  }
  int64_t left() const { return end_ - next_; }

  RNK_INLINE void step(int64_t count) {
    for (count = std::min(count, left()); count > 0; --count, ++next_) {
      const int64_t pair = next_ / kTileVectors, column = next_ % kTileVectors * kLanes;
      const int64_t chunk = pair / 16, row = chunk * kBf16Chunk + pair % 16;
      const auto at = [&](int64_t k) __attribute__((always_inline)) {
        return k < depth_ ? load_vec(from_ + k * kTileCols + column) : (FloatVec){};
      };
      pairs_.put(at(row), at(row + 16),
                 to_ + chunk * kSplitChunk + 2 * (pair % 16 * kTileCols + column));
    }
  }
  // When all is done.
  bool special() const { return pairs_.special(); }

 private:
  const float* from_ = nullptr;
  BFloat16* to_ = nullptr;
  int64_t depth_ = 0, next_ = 0, end_ = 0;
  SplitPairs pairs_;
};

RNK_ISA_END
