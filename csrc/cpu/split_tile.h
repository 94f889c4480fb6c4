// The register-blocked product of fp32 matrices on units that multiply bf16.
//
// A value of fp32 is the sum of three of bf16, high + middle + low, exactly: 24 bits in three times
// 8. Of the nine products of two such sums the six largest are taken, in fp32; the others would add
// less than 2^-22 of the product, of either sign. Rows with infinities, or with values so large
// that a product of parts might overflow where others make up for it, are summed in fp32. The units
// take parts, and products of parts, below 2^-126 for zero: values below 2^-102 lose digits, and so
// do sums of products below 2^-102.
//
// C [kSplitRows, kTileCols] = (or +=) A [kSplitRows, depth] * B [depth, kTileCols]. Both lie as
// [chunk of the depth][part], the parts in the order high, middle, low: of A the pairs of every
// row, [kSplitRows][16][2], of B every pair of rows, [16][kTileCols][2]. Pair i of a chunk is its
// columns (or rows) i and 16 + i.
RNK_ISA_BEGIN

constexpr int kSplitParts = 3;
constexpr int kSplitRows = kBf16TileRows;
// Elements of a part of a chunk, and of a chunk, of both operands.
constexpr int64_t kSplitPart = kBf16Chunk * kSplitRows;
constexpr int64_t kSplitChunk = kSplitParts * kSplitPart;
static_assert(kSplitRows == kTileCols);
// Calls of side.step() in the time of a chunk.
constexpr int kSplitSteps = 3;
// Of bf16, the bits of 2^63: the product of two smaller values has no overflow.
constexpr int kSplitLarge = 0x5f00;

// Sums of tile (i, j) are in register 2 * i + j, tiles of A in 4 and 5, of B in 6 and 7. All rows
// of C are written, kColTiles * 16 columns, and read to add to. side.step() is called kSplitSteps
// times a chunk, to do with the vector units what else is to be done, side.finish() before C is
// written.
template <int kColTiles, typename Side>
RNK_INLINE void split_product(const BFloat16* a, const BFloat16* b, int64_t depth, float* c,
                              int64_t ldc, bool accumulate, Side& side) {
  constexpr int64_t kRowBytes = kBf16Chunk * sizeof(BFloat16);
  constexpr int64_t kPairBytes = 2 * kTileCols * sizeof(BFloat16);
  const int64_t c_bytes = ldc * static_cast<int64_t>(sizeof(float));
  constexpr int64_t kTile = 16 * kBf16Chunk;
  const auto load_a = [&](int64_t part) __attribute__((always_inline)) {
    _tile_loadd(4, a + part * kSplitPart, kRowBytes);
    _tile_loadd(5, a + part * kSplitPart + kTile, kRowBytes);
  };
  const auto load_b = [&](int64_t part) __attribute__((always_inline)) {
    _tile_loadd(6, b + part * kSplitPart, kPairBytes);
    if constexpr (kColTiles > 1) _tile_loadd(7, b + part * kSplitPart + 32, kPairBytes);
  };
  const auto multiply = [&] __attribute__((always_inline)) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kColTiles > 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kColTiles > 1) _tile_dpbf16ps(3, 5, 7);
  };
  asm volatile("" ::: "memory");  // GCC takes tileloadd for no reader of memory
  if (accumulate) {
    _tile_loadd(0, c, c_bytes);
    if constexpr (kColTiles > 1) _tile_loadd(1, c + 16, c_bytes);
    _tile_loadd(2, c + 16 * ldc, c_bytes);
    if constexpr (kColTiles > 1) _tile_loadd(3, c + 16 * ldc + 16, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (; depth > 0; depth -= kBf16Chunk, a += kSplitChunk, b += kSplitChunk) {
    load_a(0);
    load_b(2);
    multiply();
    load_b(1);
    multiply();
    side.step();
    load_b(0);
    multiply();
    load_a(2);
    multiply();
    side.step();
    load_a(1);
    multiply();
    load_b(1);
    multiply();
    side.step();
  }
  side.finish();
  _tile_stored(0, c, c_bytes);
  if constexpr (kColTiles > 1) _tile_stored(1, c + 16, c_bytes);
  _tile_stored(2, c + 16 * ldc, c_bytes);
  if constexpr (kColTiles > 1) _tile_stored(3, c + 16 * ldc + 16, c_bytes);
}

// Whether a high part is of an infinity or of 2^63 or more.
RNK_INLINE bool is_special(const BFloat16* chunk_row) {
  const __m512i magnitude =
      _mm512_and_si512(_mm512_loadu_si512(chunk_row), _mm512_set1_epi16(0x7fff));
  const __m512i above = _mm512_sub_epi16(magnitude, _mm512_set1_epi16(kSplitLarge));
  return _mm512_cmple_epu16_mask(above, _mm512_set1_epi16(0x7f80 - kSplitLarge)) != 0;
}

// Bit i: row i of so many chunks of A is special. All of B's rows at once: any bit.
inline uint32_t special_rows(const BFloat16* chunks, int rows, int64_t depth) {
  uint32_t found = 0;
  for (; depth > 0; depth -= kBf16Chunk, chunks += kSplitChunk) {
    for (int row = 0; row < rows; ++row) {
      found |= uint32_t{is_special(chunks + row * kBf16Chunk)} << row;
    }
  }
  return found;
}

// The sum of three parts; of an infinity the others are NaN. (Of a signalling NaN, which arithmetic
// does not make, an infinity may have been left.)
RNK_INLINE FloatVec whole_value(const FloatVec (&part)[kSplitParts]) {
  const UintVec magnitude = as_bits(part[0]) & 0x7fffffffu;
  return magnitude == 0x7f800000u ? part[0] : part[0] + (part[1] + part[2]);
}

// A row of the product in fp32.
inline void whole_row(const BFloat16* a, const BFloat16* b, int64_t depth, const float* before,
                      float* c) {
  FloatVec sum[kTileVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    const int64_t chunk = k / kBf16Chunk * kSplitChunk, pair = k % 16;
    const bool second = k % kBf16Chunk >= 16;
    const auto half = [&](UintVec pairs) __attribute__((always_inline)) {
      return as_float(second ? pairs & 0xffff0000u : pairs << 16);
    };
    FloatVec part[kSplitParts];
    for (int p = 0; p < kSplitParts; ++p) {
      uint32_t both;
      std::memcpy(&both, a + chunk + p * kSplitPart + 2 * pair, sizeof(both));
      part[p] = half((UintVec){} + both);
    }
    const FloatVec x = whole_value(part);
    for (int v = 0; v < kTileVectors; ++v) {
      for (int p = 0; p < kSplitParts; ++p) {
        UintVec pairs;
        const int64_t at = chunk + p * kSplitPart + 2 * (pair * kTileCols + v * kLanes);
        std::memcpy(&pairs, b + at, sizeof(pairs));
        part[p] = half(pairs);
      }
      sum[v] += x * whole_value(part);
    }
  }
  for (int v = 0; v < kTileVectors; ++v) {
    store_vec(c + v * kLanes, before ? load_vec(before + v * kLanes) + sum[v] : sum[v]);
  }
}

// Where there may be special values: which of the rows have some does not change the others.
template <typename Side>
__attribute__((noinline)) void special_tile(int rows, const BFloat16* a, const BFloat16* b,
                                            int64_t depth, float* c, int64_t ldc, bool accumulate,
                                            Side& side) {
  alignas(64) float whole[kSplitRows * kTileCols];
  const bool all = special_rows(b, kSplitRows, depth) != 0;
  const uint32_t which = all ? ~0u : special_rows(a, rows, depth);
  const auto each = [&](const auto& f) {
    for (int row = 0; row < rows; ++row) {
      if (which >> row & 1) f(row, whole + row * kTileCols, c + row * ldc);
    }
  };
  each([&](int row, float* to, const float* sums) {
    whole_row(a + row * kBf16Chunk, b, depth, accumulate ? sums : nullptr, to);
  });
  split_product<2>(a, b, depth, c, ldc, accumulate, side);
  each([&](int, const float* from, float* sums) { std::copy_n(from, kTileCols, sums); });
}

// special: there may be such values. Two vectors of columns, or one.
template <typename Side>
RNK_INLINE void split_tile(int rows, const BFloat16* a, const BFloat16* b, int64_t depth, float* c,
                           int64_t ldc, bool accumulate, bool special, bool two, Side& side) {
  if (special) {
    special_tile(rows, a, b, depth, c, ldc, accumulate, side);
  } else if (two) {
    split_product<2>(a, b, depth, c, ldc, accumulate, side);
  } else {
    split_product<1>(a, b, depth, c, ldc, accumulate, side);
  }
}

// Memory that is wanted soon, fetched into the level-2 cache some cache lines at a time: `rows` of
// so many floats, `stride` floats apart.
class SplitAhead {
 public:
  SplitAhead() = default;
  // In so many steps.
  SplitAhead(const float* from, int64_t rows, int64_t floats, int64_t stride, int64_t steps)
      : row_(from),
        stride_(stride),
        lines_((floats + kLine - 1) / kLine),
        rows_(lines_ > 0 ? rows : 0),
        each_((rows_ * lines_ + steps - 1) / std::max<int64_t>(steps, 1)) {}

  RNK_INLINE void step() {
    if (rows_ == 0) return;
    const float* row = row_;
    int64_t rows = rows_, next = next_;
    for (int64_t i = 0; i < each_; ++i) {
      __builtin_prefetch(row + next * kLine, 0, 2);
      if (++next < lines_) continue;
      next = 0;
      if (--rows == 0) break;
      row += stride_;
    }
    row_ = row, rows_ = rows, next_ = next;
  }

 private:
  const float* row_ = nullptr;
  int64_t stride_ = 0, lines_ = 0, rows_ = 0, each_ = 0;
  int64_t next_ = 0;  // line of the row
};

RNK_ISA_END
