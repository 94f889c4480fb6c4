// Gather jobs as matrix products on units that multiply bf16 (split_tile.h). A task is a block of
// rows and a group of panels of columns: it packs the rows, which costs little beside their
// products, so that no other core's cache is read for them. One group of channels.
RNK_ISA_BEGIN

// Register tiles of rows: in a block at most, and what a block should have rather than columns be
// shared out.
constexpr int64_t kSplitMostTiles = 7;
constexpr int64_t kSplitFewTiles = 3;
// Tasks where the number of threads has no say.
constexpr int64_t kSplitTasks = 8;
// Depth that is multiplied at once: a panel of it stays in the level-1 cache for all rows.
constexpr int64_t kSplitDepthPart = 128;

struct SplitJob {
  const GatherJob* job;
  std::vector<PackPiece> pieces;
  int64_t rows, depth;
  int64_t blocks, first_block, groups, first_task;
  int64_t depth_block;
  int64_t packed_filter;  // where it begins

  int64_t tiles() const { return (rows + kSplitRows - 1) / kSplitRows; }
  int64_t begin(int64_t block) const {
    return std::min(rows, tiles() * block / blocks * kSplitRows);
  }
};

class SplitPlan {
 public:
  explicit SplitPlan(const GatherProblem& p) : panels((p.columns + kTileCols - 1) / kTileCols) {
    for (const GatherJob& job : p.jobs) {
      if (job.rows() > 0) add(job, p.threads > 0 ? p.threads : kSplitTasks);
    }
  }

  std::vector<SplitJob> jobs;
  int64_t panels;
  int64_t blocks = 0, tasks = 0, filter_floats = 0;

 private:
  void add(const GatherJob& of, int64_t threads) {
    SplitJob job{&of,       pack_pieces(of, kBf16Chunk, kBf16Chunk),
                 of.rows(), of.depth(),
                 0,         blocks,
                 1,         tasks,
                 0,         filter_floats};
    const int64_t tiles = job.tiles();
    job.blocks = (tiles + kSplitMostTiles - 1) / kSplitMostTiles;
    const int64_t fair = round_up(job.blocks, threads);
    if (tiles >= fair * kSplitFewTiles) job.blocks = fair;
    if (job.blocks < threads)
      job.groups = std::min(panels, (threads + job.blocks - 1) / job.blocks);
    const int64_t most = (tiles + job.blocks - 1) / job.blocks * kSplitRows;
    // Packed rows take three times blocking().rows floats, sums that wait for more depth 3/2.
    const int64_t fitting = 2 * blocking().rows / most / kSplitDepthPart * kSplitDepthPart;
    job.depth_block = std::max(fitting, kSplitDepthPart);
    if (job.depth > job.depth_block) {
      const int64_t columns = std::max<int64_t>(1, blocking().rows * 3 / 2 / most / kTileCols);
      job.groups = std::max(job.groups, (panels + columns - 1) / columns);
    }
    blocks += job.blocks;
    tasks += job.blocks * job.groups;
    filter_floats += panels * job.depth * kTileCols;
    jobs.push_back(std::move(job));
  }
};

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
    for (const int end = std::min(fetched_ + each_, rows_); fetched_ < end; ++fetched_) {
      fetch_.template row<kTileVectors>(fetched_);
    }
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

template <EpilogueKind kKind, PackIn kIn>
class SplitRows {
 public:
  // partial [blocks][kPartialRows][channels], for kinds that leave one.
  SplitRows(const GatherProblem& problem, const SplitPlan& plan, float* partial)
      : p_(problem), plan_(plan), partial_(partial) {
    for (const SplitJob& job : plan.jobs) prologues_.emplace_back(problem.in, *job.job);
  }

  void run(ParallelFor parallel_for) const {
    const float* filter = p_.packed;
    if (filter == nullptr) {
      float* packed = scratch(Scratch::kFilter, plan_.filter_floats);
      pack_filter(packed, parallel_for);
      filter = packed;
    }
    parallel_tasks_ahead(parallel_for, plan_.tasks, [&](int64_t task, int64_t next) {
      run_task(task_of(task), next < plan_.tasks ? task_of(next) : Task{}, filter);
    });
  }

  // All of the filter, in fp32: plan.filter_floats.
  void pack_filter(float* packed, ParallelFor parallel_for) const {
    const int64_t count = static_cast<int64_t>(plan_.jobs.size()) * plan_.panels;
    parallel_tasks(parallel_for, count, [&](int64_t t, int64_t) {
      const SplitJob& job = plan_.jobs[t / plan_.panels];
      const int64_t panel = t % plan_.panels;
      FilterMatrix f = p_.filter;
      f.w += panel * kTileCols * f.column;
      const int64_t columns = std::min<int64_t>(kTileCols, p_.columns - panel * kTileCols);
      float* to = packed + job.packed_filter + panel * job.depth * kTileCols;
      pack_filter_panel(f, *job.job, static_cast<int>(columns), to);
    });
  }

 private:
  struct Task {
    const SplitJob* job;
    int64_t block, group;

    int64_t begin() const { return job->begin(block); }
    int64_t count() const { return job->begin(block + 1) - begin(); }
  };

  // Tasks side by side have the same columns: their filter stays in the cache.
  Task task_of(int64_t task) const {
    size_t at = plan_.jobs.size() - 1;
    while (plan_.jobs[at].first_task > task) --at;
    const SplitJob& job = plan_.jobs[at];
    const int64_t index = task - job.first_task;
    return {&job, index % job.blocks, index / job.blocks};
  }

  // The rows of the task that follows, if they are others and lie together.
  SplitAhead rows_ahead(const Task& task, const Task& next, int64_t panels) const {
    if (!next.job || next.job != task.job || next.block == task.block) return {};
    const GatherJob& job = *next.job->job;
    if (!rows_are_pixels(job)) return {};
    const int64_t chunks = whole_chunks(task.job->depth) / kBf16Chunk * panels;
    const int64_t tiles = (task.count() + kSplitRows - 1) / kSplitRows;
    return {p_.source + next.begin() * job.source_pixel, 1, next.count() * job.source_pixel, 0,
            chunks * tiles * kSplitSteps};
  }

  // A task's rows, and their columns [depth, depth + count) in parts.
  struct Rows {
    const SplitJob& job;
    int64_t begin, count;
    int64_t index;    // of the partial sums
    int64_t* pixels;  // of the output
    BFloat16* a;      // [tile][chunk]
    int64_t depth, depth_count;
    bool special;  // there are infinities or NaN

    bool ends() const { return depth + depth_count >= job.depth; }
    int64_t tiles() const { return (count + kSplitRows - 1) / kSplitRows; }
    int64_t chunks() const { return (depth_count + kBf16Chunk - 1) / kBf16Chunk; }
    BFloat16* tile(int64_t row) const { return a + row / kSplitRows * chunks() * kSplitChunk; }
  };

  using Simple = PanelEpilogue<kKind, true>;

  void run_task(const Task& task, const Task& next, const float* filter) const {
    const SplitJob& job = *task.job;
    int64_t pixels[kSplitMostTiles * kSplitRows];
    Rows rows{job, task.begin(), task.count(), job.first_block + task.block, pixels, nullptr, 0,
              0,   false};
    int64_t* pixel = pixels;
    for_each_line(*job.job, rows.begin, rows.begin + rows.count,
                  [&](int64_t image, int64_t i, int64_t j, int64_t stop, int64_t) {
                    int64_t at = output_pixel(*job.job, image, i, j);
                    for (; j < stop; ++j, at += job.job->step_w) *pixel++ = at;
                  });
    const int64_t first = plan_.panels * task.group / job.groups;
    const int64_t last = plan_.panels * (task.group + 1) / job.groups;
    const int64_t most = std::min(job.depth, job.depth_block);
    rows.a =
        bf16_scratch(Scratch::kInput, rows.tiles() * whole_chunks(most) / kBf16Chunk * kSplitChunk);
    const bool deep = job.depth > job.depth_block;
    const int64_t panel_sums = rows.tiles() * kSplitRows * kTileCols;
    float* sums = scratch(Scratch::kOutput, (deep ? last - first : 1) * panel_sums);
    SplitAhead ahead = rows_ahead(task, next, last - first);
    const Bf16Unit unit;
    for (; rows.depth == 0 || rows.depth < job.depth; rows.depth += job.depth_block) {
      rows.depth_count = std::min(job.depth_block, job.depth - rows.depth);
      rows.special = pack_rows(rows);
      const float* b = filter + job.packed_filter + rows.depth * kTileCols;
      const int64_t step = deep ? panel_sums : 0;
      int64_t plain = first;  // panels from the first on for which epilogues are simple
      while (plain < last && Simple::simple(p_.out, plain * kTileCols, p_.columns)) ++plain;
      multiply<Simple>(rows, first, plain, b, sums, step, ahead);
      multiply<PanelEpilogue<kKind, false>>(rows, plain, last, b, sums + (plain - first) * step,
                                            step, ahead);
    }
  }

  // The rows in parts, zero up to a whole chunk; whether there are infinities or NaN.
  bool pack_rows(const Rows& rows) const {
    const bool direct = reads_pixels(*rows.job.job);
    float* whole =
        direct ? nullptr : scratch(Scratch::kSums, rows.chunks() * kSplitRows * kBf16Chunk);
    SplitPairs pairs;
    for (int64_t row = 0; row < rows.count; row += kSplitRows) {
      const int64_t count = std::min<int64_t>(kSplitRows, rows.count - row);
      if (direct) {
        split_pixels(rows, row, count, pairs);
      } else {
        split_packed(rows, row, count, whole, pairs);
      }
    }
    return pairs.special();
  }

  void split_pixels(const Rows& rows, int64_t row, int64_t count, SplitPairs& pairs) const {
    const GatherJob& job = *rows.job.job;
    const int64_t begin = rows.begin + row, step = job.stride_w * job.source_pixel;
    for_each_line(job, begin, begin + count,
                  [&](int64_t image, int64_t i, int64_t j, int64_t stop, int64_t at) {
                    const int64_t line = (image * job.source_h + i * job.stride_h) * job.source_w;
                    const float* from = p_.source + line * job.source_pixel + j * step + rows.depth;
                    BFloat16* to = rows.tile(row) + at * kBf16Chunk;
                    for (int64_t k = 0; k < rows.depth_count; k += kBf16Chunk, to += kSplitChunk) {
                      split_chunk<kIn>(from + k, step, stop - j, p_.in, rows.depth + k, pairs, to);
                    }
                  });
  }

  void split_packed(const Rows& rows, int64_t row, int64_t count, float* whole,
                    SplitPairs& pairs) const {
    constexpr int64_t kChunkFloats = kSplitRows * kBf16Chunk;
    const RowPacker<kBf16Chunk, kIn> packer(
        *rows.job.job, prologues_[&rows.job - plan_.jobs.data()], p_.source, 0);
    if (rows.depth_count % kBf16Chunk != 0) {
      std::fill_n(whole + (rows.chunks() - 1) * kChunkFloats, kChunkFloats, 0.0f);
    }
    packer.pack(rows.job.pieces, rows.depth, rows.depth + rows.depth_count, rows.begin + row,
                rows.begin + row + count, whole, kChunkFloats);
    BFloat16* to = rows.tile(row);
    for (int64_t chunk = 0; chunk < rows.chunks(); ++chunk, to += kSplitChunk) {
      split_chunk<PackIn::kPlain>(whole + chunk * kChunkFloats, kBf16Chunk, count, p_.in, 0, pairs,
                                  to);
    }
  }

  // Whether rows are whole chunks of source pixels.
  static bool reads_pixels(const GatherJob& job) {
    return job.taps_h.size() * job.taps_w.size() == 1 && job.taps_h[0].offset == 0 &&
           job.taps_w[0].offset == 0 && job.channels % kBf16Chunk == 0;
  }

  // Panels [first, last), the sums of each `step` floats after the one before.
  template <typename Epilogue>
  void multiply(const Rows& rows, int64_t first, int64_t last, const float* filter, float* c,
                int64_t step, SplitAhead& next_rows) const {
    if (first == last) return;
    alignas(64) BFloat16 parts[2][kSplitDepthPart / kBf16Chunk * kSplitChunk];
    const int64_t panel_floats = rows.job.depth * kTileCols;
    std::optional<Epilogue> epilogues[2];
    SplitSide<Epilogue> side(next_rows);
    ColumnSplit& split = side.split;
    int now = 0;
    split.begin(filter + first * panel_floats, std::min(kSplitDepthPart, rows.depth_count),
                parts[now]);
    split.step(split.left());
    for (int64_t panel = first; panel < last; ++panel, c += step) {
      Epilogue& epilogue = epilogues[panel % 2].emplace(p_.out, panel * kTileCols, p_.columns);
      const bool two = panel_vectors(p_.columns, panel) > 1;
      for (int64_t k = 0; k == 0 || k < rows.depth_count; k += kSplitDepthPart, now ^= 1) {
        const int64_t depth = std::min(kSplitDepthPart, rows.depth_count - k);
        const bool special = split.special() || rows.special;
        const float* b = filter + panel * panel_floats + k * kTileCols;
        const bool ends = k + kSplitDepthPart >= rows.depth_count;
        const int64_t next = ends ? 0 : k + kSplitDepthPart;
        const bool another = !ends || panel + 1 < last;
        split.begin(ends ? filter + (panel + 1) * panel_floats : b + depth * kTileCols,
                    another ? std::min(kSplitDepthPart, rows.depth_count - next) : 0,
                    parts[now ^ 1]);
        side.share(rows.tiles() * std::max<int64_t>(1, whole_chunks(depth) / kBf16Chunk),
                   b + panel_floats, panel + 1 < last ? depth * kTileCols : 0);
        for (int64_t row = 0; row < rows.count; row += kSplitRows) {
          const int count = static_cast<int>(std::min<int64_t>(kSplitRows, rows.count - row));
          const BFloat16* a = rows.tile(row) + k / kBf16Chunk * kSplitChunk;
          float* sums = c + row * kTileCols;
          const bool accumulate = rows.depth + k > 0;
          if (rows.ends() && ends) {
            side.fetch(epilogue.fetch(nullptr, rows.pixels + row), count,
                       std::max<int64_t>(1, whole_chunks(depth) / kBf16Chunk));
          }
          if (special && (has_infinities(a, depth) || has_infinities(parts[now], depth))) {
            side.finish();
            whole_product(count, a, parts[now], depth, sums, kTileCols, accumulate);
          } else if (two) {
            split_product<2>(a, parts[now], depth, sums, kTileCols, accumulate, side);
          } else {
            split_product<1>(a, parts[now], depth, sums, kTileCols, accumulate, side);
          }
          if (rows.ends() && ends) {
            float* partial = partial_ && row + kSplitRows >= rows.count
                                 ? partial_ + rows.index * kPartialRows * p_.out.channels
                                 : nullptr;
            side.put({&epilogue, rows.pixels + row, count, sums, partial});
          }
        }
        split.step(split.left());
      }
    }
    side.finish();
  }

  const GatherProblem& p_;
  const SplitPlan& plan_;
  float* const partial_;
  std::vector<RunPrologue> prologues_;
};

// Runs a gather problem.
class SplitRun {
 public:
  explicit SplitRun(GatherProblem problem) : p_(std::move(problem)) {
    for (GatherJob& job : p_.jobs) flatten(job);
    plan_.reset(new SplitPlan(p_));
  }

  int64_t blocks() const { return plan_->blocks; }
  std::vector<int64_t> block_pixels() const {
    std::vector<int64_t> pixels;
    for (const SplitJob& job : plan_->jobs) {
      for (int64_t b = 0; b < job.blocks; ++b) pixels.push_back(job.begin(b + 1) - job.begin(b));
    }
    return pixels;
  }

  int64_t packed_floats() const { return plan_->filter_floats; }
  void pack_filter(float* packed, ParallelFor parallel_for) const {
    packer().pack_filter(packed, parallel_for);
  }

  template <EpilogueKind kKind, PackIn kIn>
  void run(float* partial, ParallelFor parallel_for) const {
    SplitRows<kKind, kIn>(p_, *plan_, partial).run(parallel_for);
  }

  template <EpilogueKind kKind>
  void run(float* partial, ParallelFor parallel_for) const {
    switch (pack_in(p_.in)) {
      case PackIn::kPlain:
        return run<kKind, PackIn::kPlain>(partial, parallel_for);
      case PackIn::kRelu:
        return run<kKind, PackIn::kRelu>(partial, parallel_for);
      case PackIn::kAny:
        return run<kKind, PackIn::kAny>(partial, parallel_for);
    }
  }

 private:
  SplitRows<EpilogueKind::kStore, PackIn::kPlain> packer() const { return {p_, *plan_, nullptr}; }

  GatherProblem p_;
  std::unique_ptr<SplitPlan> plan_;
};

RNK_ISA_END
