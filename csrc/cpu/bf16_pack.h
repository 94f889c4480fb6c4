// Operands of bf16_tile.h from filters and activations that lie otherwise.
RNK_ISA_BEGIN

inline int64_t whole_chunks(int64_t depth) { return round_up(depth, kBf16Chunk); }

RNK_INLINE BFloat16* bf16_scratch(Scratch piece, int64_t elements) {
  return reinterpret_cast<BFloat16*>(scratch(piece, (elements + 1) / 2));
}

RNK_INLINE FloatVec pair_lanes(ShortVec first, ShortVec second) {
  return as_float(widen(first) | widen(second) << 16);
}

RNK_INLINE void store_pairs(BFloat16* to, FloatVec pairs) {
  std::memcpy(to, &pairs, sizeof(pairs));
}

// to[column] = {first[column], second[column]}, where they are not null, else zero.
RNK_INLINE void pair_columns(const BFloat16* first, const BFloat16* second, int columns,
                             BFloat16* to) {
  for (int at = 0; at < columns; at += kLanes) {
    const int count = std::min(kLanes, columns - at);
    const ShortVec low = first ? load_bits(first + at, count) : (ShortVec){};
    const ShortVec high = second ? load_bits(second + at, count) : (ShortVec){};
    store_pairs(to + 2 * at, pair_lanes(low, high));
  }
}

// to[p][column] = {from[column][2 p], from[column][2 p + 1]} for `pairs` p, kTileCols columns in
// `to`, of which `columns` are there.
inline void transpose_pairs(const BFloat16* from, int64_t stride, int columns, int64_t pairs,
                            BFloat16* to) {
  const auto load = [&](int column, int64_t p, int count) __attribute__((always_inline)) {
    const auto* at = reinterpret_cast<const float*>(from + column * stride + 2 * p);
    return column < columns ? load_lanes(at, count) : (FloatVec){};
  };
  for (int64_t p = 0; p < pairs; p += kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(kLanes, pairs - p));
    for (int column = 0; column < kTileCols; column += kLanes) {
      FloatVec v[kLanes];
      RNK_UNROLL for (int i = 0; i < kLanes; ++i) v[i] = load(column + i, p, count);
      transpose_lanes(v);
      for (int i = 0; i < count; ++i) store_pairs(to + 2 * ((p + i) * kTileCols + column), v[i]);
    }
  }
}

// One panel of a filter: `columns` columns, all of the depth.
inline void pack_bf16_panel(const FilterMatrixOf<BFloat16>& f, const GatherJob& job, int columns,
                            BFloat16* panel) {
  const int64_t taps_w = static_cast<int64_t>(job.taps_w.size()), channels = job.channels;
  const int64_t taps = static_cast<int64_t>(job.taps_h.size()) * taps_w, depth = taps * channels;
  const auto tap = [&](int64_t t) {
    return f.w + job.taps_h[t / taps_w].index * f.r + job.taps_w[t % taps_w].index * f.s;
  };
  std::fill(panel + depth / 2 * 2 * kTileCols, panel + whole_chunks(depth) * kTileCols, BFloat16{});
  if (f.channel == 1 && channels % 2 == 0) {
    for (int64_t t = 0; t < taps; ++t) {
      transpose_pairs(tap(t), f.column, columns, channels / 2, panel + t * channels * kTileCols);
    }
    return;
  }
  if (f.column == 1) {
    const auto row = [&](int64_t d) {
      return d < depth ? tap(d / channels) + d % channels * f.channel : nullptr;
    };
    for (int64_t d = 0; d < depth; d += 2) {
      BFloat16* to = panel + d * kTileCols;
      pair_columns(row(d), row(d + 1), columns, to);
      std::fill(to + 2 * columns, to + 2 * kTileCols, BFloat16{});
    }
    return;
  }
  if (columns < kTileCols) std::fill_n(panel, depth / 2 * 2 * kTileCols, BFloat16{});
  for (int64_t first = 0; first < channels; first += kFilterChannels) {
    const int64_t last = std::min(first + kFilterChannels, channels);
    for (int64_t t = 0; t < taps; ++t) {
      for (int64_t c = first; c < last; ++c) {
        const int64_t d = t * channels + c;
        const BFloat16* from = tap(t) + c * f.channel;
        BFloat16* to = panel + d / 2 * 2 * kTileCols + d % 2;
        for (int column = 0; column < columns; ++column) to[2 * column] = from[column * f.column];
      }
    }
  }
}

// to[row][kBf16Chunk] = from[pixel][row] for `pixels` <= kBf16Chunk pixels, zero beyond them.
inline void transpose_pixels(const BFloat16* from, int64_t stride, int64_t pixels, int64_t rows,
                             BFloat16* to) {
  for (int64_t row = 0; row < rows; row += kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(kLanes, rows - row));
    const auto load = [&](int64_t pixel) __attribute__((always_inline)) {
      return pixel < pixels ? load_bits(from + pixel * stride + row, count) : (ShortVec){};
    };
    RNK_UNROLL for (int64_t p = 0; p < kBf16Chunk; p += 2 * kLanes) {
      FloatVec v[kLanes];
      RNK_UNROLL for (int i = 0; i < kLanes; ++i) {
        v[i] = pair_lanes(load(p + 2 * i), load(p + 2 * i + 1));
      }
      transpose_lanes(v);
      for (int i = 0; i < count; ++i) store_pairs(to + (row + i) * kBf16Chunk + p, v[i]);
    }
  }
}

RNK_ISA_END
