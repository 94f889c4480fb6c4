// The kernels of bn_stats.cpp for one instruction set.
RNK_ISA_BEGIN

constexpr int kStatsBlockRows = 64;    // rows between two merges
constexpr int kStatsGroup = 8;         // rows added per visit of the sums
constexpr int64_t kPlaneBlock = 1024;  // elements of a channel between two merges in planes

// Sums of x - pivot and of its square, for up to kBlockColumns columns.
template <typename A>
struct StatsBlock {
  alignas(64) A pivot[kBlockColumns];
  alignas(64) A sum[kBlockColumns];
  alignas(64) A square[kBlockColumns];
};

template <int kRows, typename Element, typename A>
RNK_INLINE void add_rows(const Element* x, int64_t width, int64_t columns, StatsBlock<A>& block) {
  for (int64_t c = 0; c < columns; c += kPack) {
    const Pack<A> pivot = load_compute(block.pivot + c);
    Pack<A> sum = load_compute(block.sum + c), square = load_compute(block.square + c);
    RNK_UNROLL for (int r = 0; r < kRows; ++r) {
      __builtin_prefetch(x + (r + kRows) * width + c);
      const Pack<A> d = load(x + r * width + c, Full()) - pivot;
      sum = sum + d;
      square = multiply_add(d, d, square);
    }
    store_compute(block.sum + c, sum);
    store_compute(block.square + c, square);
  }
}

template <typename Element, typename A>
void add_block(const Element* x, int64_t rows, int64_t width, int64_t columns,
               StatsBlock<A>& block) {
  std::fill_n(block.sum, columns, A(0));
  std::fill_n(block.square, columns, A(0));
  int64_t r = 0;
  for (; r + kStatsGroup <= rows; r += kStatsGroup) {
    add_rows<kStatsGroup>(x + r * width, width, columns, block);
  }
  for (; r < rows; ++r) add_rows<1>(x + r * width, width, columns, block);
}

// into = into merged with the block's `count` elements a column.
template <typename A>
void merge_block(StatsColumns& into, const StatsBlock<A>& block, int64_t count, int64_t columns) {
  alignas(64) double mean[kBlockColumns], m2[kBlockColumns];
  const double inverse = 1.0 / static_cast<double>(count);
  for (int64_t c = 0; c < columns; ++c) {
    const double sum = block.sum[c], shift = sum * inverse;
    const double residue = block.square[c] - sum * shift;
    mean[c] = block.pivot[c] + shift;
    m2[c] = residue < 0 ? 0 : residue;
  }
  merge_stats(into, count, mean, m2, columns);
}

// Statistics of `rows` rows at x, of `columns` columns; mean and m2 of `into` are overwritten.
template <typename Element>
void rows_stats(const Element* x, int64_t rows, int64_t width, int64_t columns,
                StatsColumns& into) {
  using A = Compute<Element>;
  StatsBlock<A> block;
  std::fill_n(into.mean, columns, 0.0);
  std::fill_n(into.m2, columns, 0.0);
  std::fill_n(block.pivot, columns, A(0));
  const int64_t first = std::min<int64_t>(rows, kStatsGroup);
  add_block(x, first, width, columns, block);
  for (int64_t c = 0; c < columns; ++c) block.pivot[c] = block.sum[c] / static_cast<A>(first);
  for (int64_t r = 0; r < rows; r += kStatsBlockRows) {
    const int64_t n = std::min<int64_t>(rows - r, kStatsBlockRows);
    add_block(x + r * width, n, width, columns, block);
    merge_block(into, block, n, columns);
    for (int64_t c = 0; c < columns; ++c) block.pivot[c] = static_cast<A>(into.mean[c]);
  }
}

// The last, partial row: complete copies of the channels, each one more element per channel.
template <typename Element>
void merge_tail(const Element* x, int64_t copies, int64_t channels, StatsColumns& into) {
  using A = Compute<Element>;
  const std::unique_ptr<A[]> value(new A[channels + kPack]);
  const std::vector<double> zero(channels, 0.0);
  std::vector<double> mean(channels);
  for (int64_t j = 0; j < copies; ++j, x += channels) {
    for (int64_t c = 0; c < channels; c += kPack) {
      const int left = static_cast<int>(std::min<int64_t>(kPack, channels - c));
      store_compute(value.get() + c, load(x + c, Part{left}));
    }
    std::copy_n(value.get(), channels, mean.begin());
    merge_stats(into, 1, mean.data(), zero.data(), channels);
  }
}

template <typename Element>
void bn_stats_rows(const Element* x, int64_t numel, int64_t channels, ParallelFor parallel_for,
                   StatsColumns& total) {
  const auto [width, copies] = row_shape(channels);
  const int64_t rows = numel / width;
  const ReductionPlan plan = plan_rows(rows, width);
  const std::unique_ptr<double[]> partial(new double[plan.chunks * 2 * width]);
  const auto first_row = [&](int64_t chunk) { return rows * chunk / plan.chunks; };

  if (rows > 0) {
    parallel(parallel_for, plan.chunks * plan.blocks, plan.grain, [&](int64_t task, int64_t end) {
      for (; task < end; ++task) {
        const int64_t chunk = task / plan.blocks, column = task % plan.blocks * kBlockColumns;
        const int64_t row = first_row(chunk), row_count = first_row(chunk + 1) - row;
        double* mean = partial.get() + chunk * 2 * width + column;
        StatsColumns into{0, mean, mean + width};
        rows_stats(x + row * width + column, row_count, width,
                   std::min(width - column, kBlockColumns), into);
      }
    });
    for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
      const double* mean = partial.get() + chunk * 2 * width;
      const int64_t row_count = first_row(chunk + 1) - first_row(chunk);
      for (int64_t j = 0; j < copies; ++j, mean += channels) {
        merge_stats(total, row_count, mean, mean + width, channels);
      }
    }
  }
  merge_tail(x + rows * width, (numel - rows * width) / channels, channels, total);
}

// The same for one channel in planes: the sums of all lanes share one pivot.
template <typename A>
struct PlaneBlock {
  Pack<A> pivot, sum, square;
  int64_t count;
};

template <typename Element, typename A>
RNK_INLINE void add_plane(const Element* x, int64_t size, PlaneBlock<A>& block) {
  Pack<A> sum = block.sum, square = block.square;
  int64_t i = 0;
  for (; i + kPack <= size; i += kPack) {
    const Pack<A> d = load(x + i, Full()) - block.pivot;
    sum = sum + d;
    square = multiply_add(d, d, square);
  }
  if (i < size) {
    const Part n{static_cast<int>(size - i)};
    const Pack<A> d = first_lanes(load(x + i, n) - block.pivot, n);
    sum = sum + d;
    square = multiply_add(d, d, square);
  }
  block.sum = sum;
  block.square = square;
  block.count += size;
}

// Merges the block into `into` (one column), makes the new mean the pivot, and empties the block.
template <typename A>
void merge_plane_block(StatsColumns& into, PlaneBlock<A>& block) {
  if (block.count == 0) return;
  const double sum = sum_of_lanes(block.sum);
  const double shift = sum / static_cast<double>(block.count);
  const double residue = sum_of_lanes(block.square) - sum * shift;
  const double mean = static_cast<double>(block.pivot.part[0][0]) + shift;
  const double m2 = residue < 0 ? 0 : residue;
  merge_stats(into, block.count, &mean, &m2, 1);
  const Pack<A> zero = broadcast(A(0));
  block = {broadcast(static_cast<A>(into.mean[0])), zero, zero, 0};
}

template <typename Element>
void plane_stats(const Element* x, const UnitRange& units, StatsColumns& into) {
  using A = Compute<Element>;
  const Pack<A> zero = broadcast(A(0));
  PlaneBlock<A> block{zero, zero, zero, 0};
  bool started = false;
  *into.mean = *into.m2 = 0;
  units.visit([&](int64_t offset, int64_t size) {
    if (!started) {  // the first pivot is the mean of a few elements
      const int64_t few = std::min<int64_t>(size, kPack);
      add_plane(x + offset, few, block);
      block = {broadcast(static_cast<A>(sum_of_lanes(block.sum) / static_cast<double>(few))), zero,
               zero, 0};
      started = true;
    }
    for (int64_t i = 0; i < size; i += kPlaneBlock) {
      add_plane(x + offset + i, std::min(size - i, kPlaneBlock), block);
      if (block.count >= kPlaneBlock) merge_plane_block(into, block);
    }
  });
  merge_plane_block(into, block);
}

template <typename Element>
void bn_stats_planes(const Element* x, const BnStatsParams& p, ParallelFor parallel_for,
                     StatsColumns& total) {
  const ReductionPlan plan = plan_planes(p.outer, p.channels, p.inner);
  const std::unique_ptr<double[]> partial(new double[plan.chunks * 2 * p.channels]);
  std::vector<int64_t> counts(plan.chunks);
  parallel(parallel_for, plan.chunks * plan.blocks, plan.grain, [&](int64_t task, int64_t end) {
    for (; task < end; ++task) {
      const int64_t chunk = task / p.channels, channel = task % p.channels;
      double* mean = partial.get() + chunk * 2 * p.channels + channel;
      StatsColumns into{0, mean, mean + p.channels};
      plane_stats(x, {p.outer, p.channels, p.inner, channel, chunk, plan.chunks}, into);
      if (channel == 0) counts[chunk] = into.count;
    }
  });
  for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
    const double* mean = partial.get() + chunk * 2 * p.channels;
    merge_stats(total, counts[chunk], mean, mean + p.channels, p.channels);
  }
}

inline void bn_stats(const BnStatsParams& p, ParallelFor parallel_for) {
  const int64_t numel = p.outer * p.channels * p.inner;
  std::vector<double> mean(p.channels, 0.0), m2(p.channels, 0.0);
  StatsColumns total{0, mean.data(), m2.data()};
  with_element(p.dtype, [&](auto element) {
    using Element = decltype(element);
    using A = Compute<Element>;
    const auto* x = static_cast<const Element*>(p.x);
    if (numel > 0 && p.inner == 1) bn_stats_rows(x, numel, p.channels, parallel_for, total);
    if (numel > 0 && p.inner > 1) bn_stats_planes(x, p, parallel_for, total);
    A* stats = static_cast<A*>(p.stats);
    std::fill_n(stats, p.channels, static_cast<A>(total.count));
    std::copy_n(mean.data(), p.channels, stats + p.channels);
    std::copy_n(m2.data(), p.channels, stats + 2 * p.channels);
  });
}

RNK_ISA_END
