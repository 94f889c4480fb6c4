// Gather jobs with few channels: packing every tap of every pixel would cost as much as the
// product. A band of the source is copied once, padded; its pixels lie a constant apart, so that
// the register tile reads the rows of the matrix, overlapping, where they are.
RNK_ISA_BEGIN

// Rows of a register tile of one or two vectors of columns.
template <int kVectors>
constexpr int kBandRows = (kTileRows > 8 ? 16 : 8) / kVectors;

// c [kBandRows][kTileCols] = the sum over tap rows, at a + tap_rows[], of `run` products each.
template <int kPixel, int kVectors>
void band_tile(const float* a, const int64_t* tap_rows, int64_t taps_h, int64_t run, const float* b,
               float* c, const TileFetch& fetch) {
  constexpr int kRows = kBandRows<kVectors>;
  FloatVec acc[kRows][kVectors] = {};
  int fetched = 0;
  for (int64_t tap = 0; tap < taps_h; ++tap) {
    for (; fetched * taps_h < kRows * (tap + 1); ++fetched) fetch.row<kVectors>(fetched);
    const float* at = a + tap_rows[tap];
    for (int64_t k = 0; k < run; ++k, b += kTileCols) {
      FloatVec row[kVectors];
      RNK_UNROLL for (int v = 0; v < kVectors; ++v) row[v] = load_vec(b + v * kLanes);
      add_products<kPixel>(acc, at + k, row);
    }
  }
  store_tile(acc, c, kTileCols, false);
}

using BandTile = void (*)(const float*, const int64_t*, int64_t, int64_t, const float*, float*,
                          const TileFetch&);

// The tile whose rows lie `pixel` floats apart, or null. [vectors - 1]
inline const BandTile* band_tiles(int64_t pixel) {
  static constexpr BandTile kTiles[][2] = {
      {band_tile<3, 1>, band_tile<3, 2>},   {band_tile<6, 1>, band_tile<6, 2>},
      {band_tile<8, 1>, band_tile<8, 2>},   {band_tile<16, 1>, band_tile<16, 2>},
      {band_tile<32, 1>, band_tile<32, 2>}, {band_tile<64, 1>, band_tile<64, 2>}};
  constexpr int kPixels[] = {3, 6, 8, 16, 32, 64};
  for (size_t i = 0; i < std::size(kPixels); ++i) {
    if (kPixels[i] == pixel) return kTiles[i];
  }
  return nullptr;
}

inline bool suits_bands(const GatherJob& job, int64_t groups) {
  return suits_padded(job, groups) && band_tiles(job.channels * job.stride_w) != nullptr;
}

template <EpilogueKind kKind, PackIn kIn>
class BandsConvolution {
 public:
  // partial [blocks][kPartialRows][channels], for kinds that leave one.
  BandsConvolution(const GatherProblem& p, const std::vector<BandPlan>& plans, float* partial)
      : p_(p), plans_(plans), partial_(partial), panels_((p.columns + kTileCols - 1) / kTileCols) {
    for (const GatherJob& job : p.jobs) bands_.emplace_back(job, p.in);
  }

  int64_t filter_floats() const { return filter_of(p_.jobs.size()); }

  // [job][panel][depth][kTileCols].
  void pack_filter(float* packed, ParallelFor parallel_for) const {
    const int64_t jobs = static_cast<int64_t>(p_.jobs.size());
    parallel_tasks(parallel_for, jobs * panels_, [&](int64_t t, int64_t) {
      const GatherJob& job = p_.jobs[t / panels_];
      const int64_t panel = t % panels_;
      FilterMatrix f = p_.filter;
      f.w += panel * kTileCols * f.column;
      const int64_t columns = std::min<int64_t>(kTileCols, p_.columns - panel * kTileCols);
      pack_filter_panel(f, job, static_cast<int>(columns),
                        packed + filter_of(t / panels_) + panel * job.depth() * kTileCols);
    });
  }

  void run(ParallelFor parallel_for) const {
    const float* filter = p_.packed;
    if (filter == nullptr) {
      float* packed = scratch(Scratch::kFilter, filter_floats());
      pack_filter(packed, parallel_for);
      filter = packed;
    }
    parallel_tasks(parallel_for, plans_.back().first_block + plans_.back().blocks,
                   [&](int64_t block, int64_t) {
                     size_t job = 0;
                     while (block >= plans_[job].first_block + plans_[job].blocks) ++job;
                     sum_band(job, block, filter + filter_of(job));
                   });
  }

 private:
  int64_t filter_of(size_t job) const {
    int64_t floats = 0;
    for (size_t i = 0; i < job; ++i) floats += panels_ * p_.jobs[i].depth() * kTileCols;
    return floats;
  }

  // What a band's tiles share.
  struct BandSource {
    const GatherJob& job;
    Band band;
    int64_t line;  // floats
    const float* padded;
    std::vector<int64_t> tap_rows;
  };

  void sum_band(size_t at, int64_t block, const float* filter) const {
    const BandPlan& plan = plans_[at];
    const GatherJob& job = p_.jobs[at];
    const Band band = band_of(plan, block - plan.first_block);
    const float* padded =
        bands_[at].copy(p_.source, band, kBandRows<1> * job.stride_w * job.channels);
    BandSource source{job, band, bands_[at].line_floats(), padded, {}};
    for (size_t r = 0; r < job.taps_h.size(); ++r) source.tap_rows.push_back(bands_[at].tap_row(r));
    for (int64_t panel = 0; panel < panels_; ++panel, filter += job.depth() * kTileCols) {
      const int64_t channel = panel * kTileCols, end = p_.columns;
      float* partial = partial_ ? partial_ + block * kPartialRows * p_.out.channels : nullptr;
      if (PanelEpilogue<kKind, true>::simple(p_.out, channel, end)) {
        PanelEpilogue<kKind, true> epilogue(p_.out, channel, end);
        sum_panel(source, panel, filter, epilogue, partial);
      } else {
        PanelEpilogue<kKind, false> epilogue(p_.out, channel, end);
        sum_panel(source, panel, filter, epilogue, partial);
      }
    }
  }

  template <typename Epilogue>
  void sum_panel(const BandSource& source, int64_t panel, const float* filter, Epilogue& epilogue,
                 float* partial) const {
    const GatherJob& job = source.job;
    const int vectors = panel_vectors(p_.columns, panel);
    const int rows = vectors == 1 ? kBandRows<1> : kBandRows<2>;
    const BandTile tile = band_tiles(job.channels * job.stride_w)[vectors - 1];
    const int64_t run = static_cast<int64_t>(job.taps_w.size()) * job.channels;
    alignas(64) float sums[kBandRows<1> * kTileCols];
    int64_t pixels[kBandRows<1>];
    for (int64_t i = source.band.begin; i < source.band.end; ++i) {
      const float* line = source.padded + (i - source.band.begin) * job.stride_h * source.line;
      for (int64_t j = 0; j < job.grid_w; j += rows) {
        const int count = static_cast<int>(std::min<int64_t>(rows, job.grid_w - j));
        int64_t pixel = output_pixel(job, source.band.image, i, j);
        for (int r = 0; r < rows; ++r, pixel += r < count ? job.step_w : 0) pixels[r] = pixel;
        tile(line + j * job.stride_w * job.channels, source.tap_rows.data(),
             static_cast<int64_t>(source.tap_rows.size()), run, filter, sums,
             epilogue.fetch(nullptr, pixels));
        epilogue.put(pixels, count, sums);
      }
    }
    if (partial) epilogue.finish(partial);
  }

  const GatherProblem& p_;
  const std::vector<BandPlan>& plans_;
  float* const partial_;
  const int64_t panels_;
  std::vector<PaddedBands<kIn>> bands_;
};

RNK_ISA_END
