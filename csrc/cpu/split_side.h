// The work between tiles of split_rows.h.
RNK_ISA_BEGIN

// What the vector units do while tiles are multiplied: the epilogue of the tile before, the fetch
// of what that of the present one reads and writes, the next part of the filter in parts, and the
// fetch of the one that comes a panel later and of the next task's rows.
template <typename Epilogue>
class SplitSide {
 public:
  struct Sums {
    Epilogue* epilogue;
    const int64_t* pixels;
    int rows;
    const float* sums;
    float* partial;  // where these are the last ones, or null
  };

  explicit SplitSide(SplitAhead& rows) : next_rows_(rows) {}

  ColumnSplit split;

  // For so many chunks of tiles: what there is to split, and these floats to fetch.
  void share(int64_t chunks, const float* ahead, int64_t floats) {
    const int64_t steps = chunks * kSplitSteps;
    pairs_ = (split.left() + steps - 1) / steps;
    filter_ = SplitAhead(ahead, 1, floats, 0, steps);
  }

  void put(const Sums& sums) { sums_ = sums; }

  // Of so many rows, in the time of so many chunks.
  void fetch(const TileFetch& rows, int count, int64_t chunks) {
    fetch_ = rows;
    fetched_ = 0, rows_ = count;
    each_ = static_cast<int>((count + chunks * kSplitSteps - 1) / (chunks * kSplitSteps));
  }

  RNK_INLINE void step() {
    if (sums_.rows > 0) put_rows(std::min(kRows, sums_.rows));
    const int end = std::min(fetched_ + each_, rows_);
    for (int row = fetched_; row < end; ++row) fetch_.template row<kTileVectors>(row);
    fetched_ = end;
    split.step(pairs_);
    filter_.step();
    next_rows_.step();
  }

  RNK_INLINE void finish() {
    if (sums_.rows > 0) put_rows(sums_.rows);
    if (sums_.partial) sums_.epilogue->finish(sums_.partial);
    sums_.partial = nullptr;
  }

 private:
  static constexpr int kRows = 4;

  RNK_INLINE void put_rows(int rows) {
    sums_.epilogue->put(sums_.pixels, rows, sums_.sums);
    sums_.pixels += rows, sums_.rows -= rows, sums_.sums += rows * kTileCols;
  }

  Sums sums_{};
  TileFetch fetch_{};
  int fetched_ = 0, rows_ = 0, each_ = 0;
  int64_t pairs_ = 0;
  SplitAhead filter_;
  SplitAhead& next_rows_;
};

RNK_ISA_END
