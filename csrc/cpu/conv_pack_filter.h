// Packs filters for the matrix product: panels [depth][kTileCols], zero in columns that do not
// exist, depth as in conv_pack.h.
RNK_ISA_BEGIN

// A filter as the matrix [depth, column] of one group; strides in elements.
template <typename Element>
struct FilterMatrixOf {
  const Element* w;
  int64_t channel, column, r, s;
};
using FilterMatrix = FilterMatrixOf<float>;

typedef float Quad __attribute__((vector_size(16)));
typedef float LooseQuad __attribute__((vector_size(16), aligned(4), may_alias));

RNK_INLINE void transpose_quad(const float* from, int64_t from_stride, float* to,
                               int64_t to_stride) {
  Quad row[4];
  RNK_UNROLL for (int i = 0; i < 4; ++i) {
    row[i] = *reinterpret_cast<const LooseQuad*>(from + i * from_stride);
  }
  const Quad low01 = shuffle<0, 4, 1, 5>(row[0], row[1]);
  const Quad high01 = shuffle<2, 6, 3, 7>(row[0], row[1]);
  const Quad low23 = shuffle<0, 4, 1, 5>(row[2], row[3]);
  const Quad high23 = shuffle<2, 6, 3, 7>(row[2], row[3]);
  const Quad out[4] = {shuffle<0, 1, 4, 5>(low01, low23), shuffle<2, 3, 6, 7>(low01, low23),
                       shuffle<0, 1, 4, 5>(high01, high23), shuffle<2, 3, 6, 7>(high01, high23)};
  RNK_UNROLL for (int i = 0; i < 4; ++i) {
    *reinterpret_cast<LooseQuad*>(to + i * to_stride) = out[i];
  }
}

// to[channel][column] = from[column][channel] for all kTileCols columns; channels contiguous. A
// cache line is used up before the next column's, which may share its set.
inline void transpose_columns(const float* from, int64_t stride, int64_t channels, float* to) {
  int64_t c = 0;
  for (; c + kLine <= channels; c += kLine) {
    for (int column = 0; column < kTileCols; column += 4) {
      RNK_UNROLL for (int64_t at = c; at < c + kLine; at += 4) {
        transpose_quad(from + column * stride + at, stride, to + at * kTileCols + column,
                       kTileCols);
      }
    }
  }
  for (; c < channels; ++c) {
    for (int column = 0; column < kTileCols; ++column) {
      to[c * kTileCols + column] = from[column * stride + c];
    }
  }
}

// Channels that are packed of every tap before the next: for filters [K, C, R, S], whose taps share
// cache lines, so that they come from the L1 cache.
constexpr int64_t kFilterChannels = 16;

// One panel: `columns` columns, all of the depth.
inline void pack_filter_panel(const FilterMatrix& f, const GatherJob& job, int columns,
                              float* panel) {
  const int64_t taps_w = static_cast<int64_t>(job.taps_w.size());
  const int64_t taps = static_cast<int64_t>(job.taps_h.size()) * taps_w, channels = job.channels;
  const bool by_column = f.channel == 1 && columns == kTileCols;
  const int64_t block = by_column || f.column == 1 ? channels : kFilterChannels;
  for (int64_t first = 0; first < channels; first += block) {
    const int64_t count = std::min(block, channels - first);
    for (int64_t t = 0; t < taps; ++t) {
      const float* from = f.w + job.taps_h[t / taps_w].index * f.r +
                          job.taps_w[t % taps_w].index * f.s + first * f.channel;
      float* to = panel + (t * channels + first) * kTileCols;
      if (by_column) {
        transpose_columns(from, f.column, count, to);
        continue;
      }
      for (int64_t c = 0; c < count; ++c, from += f.channel, to += kTileCols) {
        if (f.column == 1 && columns == kTileCols) {
          RNK_UNROLL for (int v = 0; v < kTileVectors; ++v) {
            store_vec(to + v * kLanes, load_vec(from + v * kLanes));
          }
          continue;
        }
        for (int column = 0; column < columns; ++column) to[column] = from[column * f.column];
        for (int column = columns; column < kTileCols; ++column) to[column] = 0;
      }
    }
  }
}

RNK_ISA_END
