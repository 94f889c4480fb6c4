// Gather jobs as matrix products on units that multiply bf16 (split_tile.h). A task is a block of
// rows and a group of panels of columns: it packs the rows, which costs little beside their
// products, so that no other core's cache is read for them. One group of channels.
RNK_ISA_BEGIN

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
    // Mostly a thread goes on with the next one; taken at once, it might be another thread's only
    // one.
    const int64_t known = plan_.tasks < 2 * kSplitTasks ? 0 : plan_.tasks;
    parallel_tasks(parallel_for, plan_.tasks, [&](int64_t task, int64_t next) {
      run_task(task_of(task), next < known ? task_of(next) : Task{}, filter);
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
    bool special;  // there may be values for special_tile

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

  // The rows in parts, zero up to a whole chunk; whether some may be special.
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

  // Whether every row is a source pixel, in whole chunks. A phase of a transposed convolution may
  // have more of them than the source.
  static bool reads_pixels(const GatherJob& job) {
    const bool inside = (job.grid_h - 1) * job.stride_h < job.source_h &&
                        (job.grid_w - 1) * job.stride_w < job.source_w;
    return inside && job.taps_h.size() * job.taps_w.size() == 1 && job.taps_h[0].offset == 0 &&
           job.taps_w[0].offset == 0 && job.channels % kBf16Chunk == 0;
  }

  // kSplitDepthPart of a panel of the filter.
  struct FilterPart {
    const float* from;
    int64_t k, depth;
  };

  // What the tiles of rows are multiplied by, and where to.
  template <typename Epilogue>
  struct Product {
    Epilogue& epilogue;
    const BFloat16* b;
    float* c;
    int64_t k, depth;
    bool two;      // vectors of columns
    bool ends;     // all of the depth is summed then
    bool special;  // there may be values for special_tile

    int64_t chunks() const { return std::max<int64_t>(1, whole_chunks(depth) / kBf16Chunk); }
  };

  // Panels [first, last), the sums of each `step` floats after the one before.
  template <typename Epilogue>
  void multiply(const Rows& rows, int64_t first, int64_t last, const float* filter, float* c,
                int64_t step, SplitAhead& next_rows) const {
    if (first == last) return;
    alignas(64) BFloat16 b[2][kSplitDepthPart / kBf16Chunk * kSplitChunk];
    const int64_t parts = (rows.depth_count + kSplitDepthPart - 1) / kSplitDepthPart;
    const int64_t each = std::max<int64_t>(parts, 1), all = (last - first) * each;
    const auto part = [&](int64_t at) {
      const int64_t k = at % each * kSplitDepthPart;
      const int64_t depth = at < all ? std::min(kSplitDepthPart, rows.depth_count - k) : 0;
      return FilterPart{filter + ((first + at / each) * rows.job.depth + k) * kTileCols, k, depth};
    };
    std::optional<Epilogue> epilogues[2];
    SplitSide<Epilogue> side(next_rows);
    ColumnSplit& split = side.split;
    split.begin(part(0).from, part(0).depth, b[0]);
    split.step(split.left());
    for (int64_t at = 0; at < all; ++at) {
      const FilterPart now = part(at), next = part(at + 1), later = part(at + kSplitPartsAhead);
      const int64_t panel = first + at / each;
      if (now.k == 0) epilogues[panel % 2].emplace(p_.out, panel * kTileCols, p_.columns);
      const Product<Epilogue> product{*epilogues[panel % 2],
                                      b[at % 2],
                                      c + at / each * step,
                                      now.k,
                                      now.depth,
                                      panel_vectors(p_.columns, panel) > 1,
                                      rows.ends() && (at + 1) % each == 0,
                                      split.special() || rows.special};
      split.begin(next.from, next.depth, b[(at + 1) % 2]);
      side.share(rows.tiles() * product.chunks(), later.from, later.depth * kTileCols);
      for (int64_t row = 0; row < rows.count; row += kSplitRows) multiply(rows, row, product, side);
      split.step(split.left());
    }
    side.finish();
  }

  // A tile of rows.
  template <typename Epilogue>
  void multiply(const Rows& rows, int64_t row, const Product<Epilogue>& product,
                SplitSide<Epilogue>& side) const {
    const int count = static_cast<int>(std::min<int64_t>(kSplitRows, rows.count - row));
    const BFloat16* a = rows.tile(row) + product.k / kBf16Chunk * kSplitChunk;
    float* sums = product.c + row * kTileCols;
    if (product.ends) {
      side.fetch(product.epilogue.fetch(nullptr, rows.pixels + row), count, product.chunks());
    }
    split_tile(count, a, product.b, product.depth, sums, kTileCols, rows.depth + product.k > 0,
               product.special, product.two, side);
    if (!product.ends) return;
    const bool last = partial_ && row + kSplitRows >= rows.count;
    float* partial = last ? partial_ + rows.index * kPartialRows * p_.out.channels : nullptr;
    side.put({&product.epilogue, rows.pixels + row, count, sums, partial});
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
    with_pack_in(p_.in, [&](auto in) { run<kKind, decltype(in)::value>(partial, parallel_for); });
  }

 private:
  SplitRows<EpilogueKind::kStore, PackIn::kPlain> packer() const { return {p_, *plan_, nullptr}; }

  GatherProblem p_;
  std::unique_ptr<SplitPlan> plan_;
};

RNK_ISA_END
