// Operands of split_tile.h from fp32.
RNK_ISA_BEGIN

// Each a bf16 followed by zeros, but for NaN.
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

// Collects whether there may have been values that products of parts are not right for.
class SplitPairs {
 public:
  SplitPairs() : squares_(splat(1)) {}  // no denormals, which take long

  // Of each part {first[lane], second[lane]}.
  RNK_INLINE void take(FloatVec first, FloatVec second, FloatVec (&parts)[kSplitParts]) {
    const Split a = split(first), b = split(second);
    parts[0] = pair(a.high, second);
    parts[1] = pair(a.middle, b.middle);
    parts[2] = pair(a.low, b.low);
    squares_ += first * first;
    squares_ += second * second;
  }
  RNK_INLINE void put(FloatVec first, FloatVec second, BFloat16* to) {
    FloatVec parts[kSplitParts];
    take(first, second, parts);
    RNK_UNROLL for (int p = 0; p < kSplitParts; ++p) {
      std::memcpy(to + p * kSplitPart, &parts[p], sizeof(parts[p]));
    }
  }
  // NaN count as well.
  bool special() const {
    return _mm512_cmp_ps_mask((__m512)squares_, _mm512_set1_ps(0x1p126f), _CMP_NLT_UQ) != 0;
  }

 private:
  RNK_INLINE static FloatVec pair(FloatVec first, FloatVec second) {
    constexpr __mmask32 kSecond = 0xaaaaaaaau;
    return (FloatVec)_mm512_mask_mov_epi16(_mm512_srli_epi32((__m512i)first, 16), kSecond,
                                           (__m512i)second);
  }

  FloatVec squares_;
};

// A chunk of rows from `from` on, `step` floats apart, or act(scale * x + bias) of them.
template <PackIn kIn>
RNK_INLINE void split_chunk(const float* from, int64_t step, int64_t rows, const ConvPrologue& in,
                            int64_t channel, SplitPairs& pairs, BFloat16* to) {
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

// A chunk of A from its columns: to[part][row][pair] = {from[pair][row], from[16 + pair][row]} for
// `columns` columns, `stride` floats apart, and `rows` rows, zero beyond.
inline void split_transposed(const float* from, int64_t stride, int64_t columns, int64_t rows,
                             SplitPairs& pairs, BFloat16* to) {
  for (int64_t row = 0; row < kSplitRows; row += kLanes) {
    const int count = static_cast<int>(std::clamp<int64_t>(rows - row, 0, kLanes));
    const auto column = [&](int64_t at) __attribute__((always_inline)) {
      return at < columns ? load_lanes(from + at * stride + row, count) : (FloatVec){};
    };
    FloatVec parts[kSplitParts][kLanes];
    for (int i = 0; i < kLanes; ++i) {
      FloatVec taken[kSplitParts];
      pairs.take(column(i), column(kLanes + i), taken);
      RNK_UNROLL for (int p = 0; p < kSplitParts; ++p) parts[p][i] = taken[p];
    }
    for (int p = 0; p < kSplitParts; ++p) {
      FloatVec v[kLanes];
      RNK_UNROLL for (int i = 0; i < kLanes; ++i) v[i] = parts[p][i];
      transpose_lanes(v);
      RNK_UNROLL for (int i = 0; i < kLanes; ++i) {
        std::memcpy(to + p * kSplitPart + (row + i) * kBf16Chunk, &v[i], sizeof(v[i]));
      }
    }
  }
}

// Splits a part of B, [depth][kTileCols], some pairs at a time; zero in rows that do not exist.
class ColumnSplit {
 public:
  ColumnSplit() {}

  void begin(const float* from, int64_t depth, BFloat16* to) {
    from_ = from, to_ = to;
    depth_ = depth;
    next_ = 0, end_ = whole_chunks(depth) / 2 * kTileVectors;
    pairs_ = SplitPairs();
  }
  int64_t left() const { return end_ - next_; }

  RNK_INLINE void step(int64_t count) {
    const float* const from = from_;
    BFloat16* const to = to_;
    const int64_t depth = depth_, end = std::min(end_, next_ + count);
    SplitPairs pairs = pairs_;
    for (int64_t next = next_; next < end; ++next) {
      const int64_t pair = next / kTileVectors, column = next % kTileVectors * kLanes;
      const int64_t chunk = pair / 16, row = chunk * kBf16Chunk + pair % 16;
      const auto at = [&](int64_t k) __attribute__((always_inline)) {
        return k < depth ? load_vec(from + k * kTileCols + column) : (FloatVec){};
      };
      pairs.put(at(row), at(row + 16),
                to + chunk * kSplitChunk + 2 * (pair % 16 * kTileCols + column));
    }
    next_ = end;
    pairs_ = pairs;
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
