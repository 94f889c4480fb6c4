// The filter gradient with few channels, from the padded bands of conv_band.h: rows are the
// channels of the taps of a filter row, which lie side by side in a band, columns those of dy,
// which is read where it is, and the sums run over pixels.
RNK_ISA_BEGIN

// Pixels whose products add up in registers.
constexpr int64_t kWgradBandPixels = 256;
// Register tiles have a multiple of kTapStep rows, of which the last may not be there; at most as
// many as leave room for one or two vectors of columns.
constexpr int kTapStep = 3;
template <int kVectors>
constexpr int kTapRows = kTileRows * kTileVectors / kVectors / kTapStep * kTapStep;

// Grid lines of x and dy that a tile sums over; distances in floats.
struct BandLines {
  int64_t lines, pixels;
  int64_t x_line, x_pixel, dy_line, dy_pixel;
};

// sums [rows][ldc] += the products of x [pixel][row] and dy [pixel][column].
template <int kRows, int kVectors>
void tap_tile(int rows, const float* x, const float* dy, const BandLines& at, int dy_lanes,
              float* sums, int64_t ldc) {
  FloatVec acc[kRows][kVectors] = {};
  for (int64_t line = 0; line < at.lines; ++line, x += at.x_line, dy += at.dy_line) {
    const float *a = x, *b = dy;
    for (int64_t j = 0; j < at.pixels; ++j, a += at.x_pixel, b += at.dy_pixel) {
      FloatVec row[kVectors];
      RNK_UNROLL for (int v = 0; v < kVectors - 1; ++v) row[v] = load_vec(b + v * kLanes);
      row[kVectors - 1] = load_lanes(b + (kVectors - 1) * kLanes, dy_lanes);
      add_products<1>(acc, a, row);
    }
  }
  RNK_UNROLL for (int r = 0; r < kRows; ++r) {
    if (r == rows) return;
    RNK_UNROLL for (int v = 0; v < kVectors; ++v) {
      float* to = sums + r * ldc + v * kLanes;
      store_vec(to, load_vec(to) + acc[r][v]);
    }
  }
}

// tap_tile for the least multiple of kTapStep that is not below `rows`.
template <int kVectors, int kRows = kTapRows<kVectors>>
void tap_tile_of(int rows, const float* x, const float* dy, const BandLines& at, int dy_lanes,
                 float* sums, int64_t ldc) {
  if constexpr (kRows > kTapStep) {
    if (rows <= kRows - kTapStep) {
      return tap_tile_of<kVectors, kRows - kTapStep>(rows, x, dy, at, dy_lanes, sums, ldc);
    }
  }
  tap_tile<kRows, kVectors>(rows, x, dy, at, dy_lanes, sums, ldc);
}

template <PackIn kIn>
class WgradBands {
 public:
  WgradBands(const ConvWgradParams& params, const GatherJob& job)
      : p_(params),
        job_(job),
        plan_(job, 0, kPaddedFloats, job.channels, kWgradBandPixels),
        padded_(job, params.in),
        run_(static_cast<int64_t>(job.taps_w.size()) * job.channels),
        chunks_(std::clamp<int64_t>(plan_.blocks, 1, kWantedTasks)),
        ldc_((params.shape.k + kTileCols - 1) / kTileCols * kTileCols),
        size_(job.depth() * ldc_) {}

  void run(ParallelFor parallel_for) const {
    float* partial = scratch(Scratch::kPartial, chunks_ * size_);
    parallel_tasks(parallel_for, chunks_,
                   [&](int64_t chunk, int64_t) { sum_chunk(chunk, partial + chunk * size_); });
    parallel(parallel_for, job_.depth(), std::max<int64_t>(1, kGrain / (chunks_ * ldc_)),
             [&](int64_t begin, int64_t end) {
               for (; begin < end; ++begin) store_row(partial + begin * ldc_, begin);
             });
  }

 private:
  void sum_chunk(int64_t chunk, float* sums) const {
    std::fill_n(sums, size_, 0.0f);
    const int64_t last = plan_.blocks * (chunk + 1) / chunks_;
    for (int64_t block = plan_.blocks * chunk / chunks_; block < last; ++block) {
      const Band band = band_of(plan_, block);
      const float* x = padded_.copy(p_.x, band, kTapStep);
      const int64_t pixel = (band.image * job_.grid_h + band.begin) * job_.grid_w;
      const float* dy = p_.dy + pixel * p_.shape.k;
      const BandLines at{band.end - band.begin,
                         job_.grid_w,
                         job_.stride_h * padded_.line_floats(),
                         job_.stride_w * job_.channels,
                         job_.grid_w * p_.shape.k,
                         p_.shape.k};
      for (size_t r = 0; r < job_.taps_h.size(); ++r) {
        sum_tap_row(x + padded_.tap_row(r), dy, at, sums + static_cast<int64_t>(r) * run_ * ldc_);
      }
    }
  }

  void sum_tap_row(const float* x, const float* dy, const BandLines& at, float* sums) const {
    for (int64_t k = 0; k < p_.shape.k; k += kTileCols) {
      const int vectors = panel_vectors(p_.shape.k, k / kTileCols);
      const int64_t last = k + (vectors - 1) * kLanes;
      const int lanes = static_cast<int>(std::min<int64_t>(kLanes, p_.shape.k - last));
      const int64_t most = vectors == 1 ? kTapRows<1> : kTapRows<kTileVectors>;
      const int64_t tiles = (run_ + most - 1) / most;
      for (int64_t i = 0; i < tiles; ++i) {
        const int64_t row = run_ * i / tiles, end = run_ * (i + 1) / tiles;
        const auto tile = vectors == 1 ? tap_tile_of<1> : tap_tile_of<kTileVectors>;
        tile(static_cast<int>(end - row), x + row, dy + k, at, lanes, sums + row * ldc_ + k, ldc_);
      }
    }
  }

  // dw of one row of the sums, those of all chunks added in order.
  void store_row(float* sums, int64_t row) const {
    const int64_t tap = row / job_.channels, c = row % job_.channels;
    const FilterStrides& to = p_.dw_strides;
    float* dw = p_.dw + c * to.c + tap / p_.shape.s * to.r + tap % p_.shape.s * to.s;
    for (int64_t k = 0; k < p_.shape.k; k += kLanes) {
      FloatVec sum = load_vec(sums + k);
      for (int64_t chunk = 1; chunk < chunks_; ++chunk) sum += load_vec(sums + chunk * size_ + k);
      const int lanes = static_cast<int>(std::min<int64_t>(kLanes, p_.shape.k - k));
      scatter_lanes(dw + k * to.k, to.k, sum, lanes);
    }
  }

  const ConvWgradParams& p_;
  const GatherJob& job_;
  const BandPlan plan_;
  const PaddedBands<kIn> padded_;
  const int64_t run_;  // floats of a filter row
  const int64_t chunks_;
  const int64_t ldc_;
  const int64_t size_;  // floats of a chunk's sums
};

RNK_ISA_END
