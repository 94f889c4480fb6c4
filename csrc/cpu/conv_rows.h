// Gather jobs as matrix products: rows are grid pixels, columns the channels of the output, depth
// filter taps times channels of the source.
//
// With many rows the filter is packed first, and a task is a block of rows: it packs them and goes
// through all columns. With few rows these are packed first, and a task is a panel of columns,
// which packs its part of the filter: no panel is packed in one core's cache to be read in
// another's. Where the filter is packed already, blocks of rows are better as long as every thread
// gets about as many: rows then are not packed in one core's cache to be read in another's either.
RNK_ISA_BEGIN

// Depth of the rows that one task packs in front of tasks by columns.
constexpr int64_t kPackDepth = 256;

// A panel of a job's filter.
struct FilterPanel {
  const JobPlan* job;
  int64_t group, index;
};

// The panel that comes next, fetched into the level-2 cache while another one is multiplied.
class Ahead {
 public:
  Ahead(const float* panel, int64_t depth) : at_(panel), end_(panel + depth * kTileCols) {}

  // `depth` cache lines that a register tile of b is to fetch; b itself where nothing is left.
  RNK_INLINE const float* lines(const float* b, int64_t depth) {
    if (at_ == end_) return b;
    const float* from = at_;
    at_ += std::min<int64_t>(depth * kLine, end_ - at_);
    return from;
  }

 private:
  const float *at_, *const end_;
};

// What happens to the sums of a panel.
template <EpilogueKind kKind, bool kSimple, typename Element = float>
class PanelEpilogue {
 public:
  PanelEpilogue(const EpilogueTensorsOf<Element>& t, int64_t channel, int64_t end)
      : t_(t),
        channel_(channel),
        two_(channel + kLanes < end),
        first_(t, channel, end),
        second_(t, two_ ? channel + kLanes : channel, end) {}

  // Whether kSimple is for this panel.
  static bool simple(const EpilogueTensorsOf<Element>& t, int64_t channel, int64_t end) {
    return is_simple(t, channel, end) &&
           (channel + kLanes >= end || is_simple(t, channel + kLanes, end));
  }

  // What put() will write and read of these pixels.
  RNK_INLINE TileFetch fetch(const float* ahead, const int64_t* pixels) const {
    TileFetch f{ahead, pixels, t_.channels, t_.out + channel_};
    if constexpr (kKind == EpilogueKind::kAffine || kKind == EpilogueKind::kBnGrad) {
      if (t_.residual) f.read[0] = t_.residual + channel_;
    }
    if constexpr (kKind == EpilogueKind::kBnGrad) f.read[1] = t_.y + channel_;
    return f;
  }

  // Asks for the first of it at once.
  RNK_INLINE void prefetch(const int64_t* pixels, int rows) const {
    for (int r = 0; r < rows; ++r) {
      const int64_t at = pixels[r] * t_.channels + channel_;
      __builtin_prefetch(t_.out + at, 1);
      if constexpr (kKind == EpilogueKind::kAffine || kKind == EpilogueKind::kBnGrad) {
        if (t_.residual) __builtin_prefetch(t_.residual + at);
      }
      if constexpr (kKind == EpilogueKind::kBnGrad) __builtin_prefetch(t_.y + at);
    }
  }

  RNK_INLINE void put(const int64_t* pixels, int rows, const float* sums) {
    for (int r = 0; r < rows; ++r, sums += kTileCols) {
      first_.put(pixels[r], load_vec(sums));
      if (two_) second_.put(pixels[r], load_vec(sums + kLanes));
    }
  }

  void finish(float* partial) const {
    first_.finish(partial);
    if (two_) second_.finish(partial);
  }

 private:
  const EpilogueTensorsOf<Element>& t_;
  const int64_t channel_;
  const bool two_;
  ColumnEpilogue<kKind, kSimple, Element> first_, second_;
};

template <EpilogueKind kKind, PackIn kIn>
class RowsConvolution {
 public:
  // partial [blocks][kPartialRows][channels], for kinds that leave one.
  RowsConvolution(const GatherProblem& problem, const GatherPlan& plan, float* partial)
      : p_(problem), plan_(plan), partial_(partial) {
    for (const JobPlan& job : plan.jobs) prologues_.emplace_back(problem.in, *job.job);
  }

  void run(ParallelFor parallel_for) const {
    if (plan_.few_rows) {
      run_by_columns(parallel_for);
    } else {
      run_by_rows(parallel_for);
    }
  }

  // All of the filter: plan.filter_floats.
  void pack_filter(float* packed, ParallelFor parallel_for) const {
    for_each_panel(parallel_for, [&](const FilterPanel& panel, const FilterPanel*) {
      pack_panel(panel, packed_panel(packed, panel));
    });
  }

 private:
  void run_by_rows(ParallelFor parallel_for) const {
    const float* filter = p_.packed;
    if (filter == nullptr) {
      float* packed = scratch(Scratch::kFilter, plan_.filter_floats);
      pack_filter(packed, parallel_for);
      filter = packed;
    }
    for_each_block(parallel_for, [&](const JobPlan& job, int64_t group, int64_t block) {
      multiply_block(filter, job, group, block);
    });
  }

  void multiply_block(const float* filter, const JobPlan& job, int64_t group, int64_t block) const {
    const Block rows = rows_of(job, block);
    const bool deep = job.depth > plan_.depth_block;
    const int64_t stride = rows.count * kChunk;
    float* a = scratch(Scratch::kInput,
                       rows.count * round_up(std::min(job.depth, plan_.depth_block), kChunk));
    float* c = scratch(Scratch::kOutput, (deep ? plan_.panels : 1) * rows.count * kTileCols);
    for (int64_t depth = 0; depth == 0 || depth < job.depth; depth += plan_.depth_block) {
      const int64_t count = std::min(plan_.depth_block, job.depth - depth);
      pack_rows(job, group, rows.begin, rows.begin + rows.count, depth, plan_.depth_block, a,
                stride);
      for (int64_t panel = 0; panel < plan_.panels; ++panel) {
        const FilterPanel at{&job, group, panel};
        const float* b = packed_panel(filter, at) + depth * kTileCols;
        float* sums = c + (deep ? panel * rows.count * kTileCols : 0);
        Ahead ahead(b + job.depth * kTileCols, panel + 1 < plan_.panels ? count : 0);
        if (depth + count < job.depth) {
          multiply(a, stride, rows.count, b, count, sums, depth > 0, ahead);
        } else {
          finish(at, rows, a, stride, b, count, sums, depth > 0, ahead);
        }
      }
    }
  }

  void run_by_columns(ParallelFor parallel_for) const {
    float* a = scratch(Scratch::kInput, plan_.row_floats);
    for (const JobPlan& job : plan_.jobs) {
      const int64_t parts = (job.depth + kPackDepth - 1) / kPackDepth;
      const int64_t pieces = job.blocks * parts;
      parallel_tasks(parallel_for, plan_.groups * pieces, [&](int64_t t, int64_t) {
        const int64_t group = t / pieces, begin = t % pieces / parts * job.block_rows;
        const int64_t end = std::min(job.rows, begin + job.block_rows);
        const int64_t depth = t % parts * kPackDepth;
        float* to = packed_rows(a, job, group) + depth * job.rows + begin * kChunk;
        pack_rows(job, group, begin, end, depth, kPackDepth, to, job.rows * kChunk);
      });
    }
    for_each_panel(parallel_for, [&](const FilterPanel& panel, const FilterPanel* next) {
      multiply_columns(packed_rows(a, *panel.job, panel.group), panel, next);
    });
  }

  void multiply_columns(const float* a, const FilterPanel& at, const FilterPanel* next) const {
    const JobPlan& job = *at.job;
    float* b = p_.packed ? packed_panel(const_cast<float*>(p_.packed), at)
                         : scratch(Scratch::kFilter, job.depth * kTileCols);
    if (!p_.packed) pack_panel(at, b);
    float* c = scratch(Scratch::kOutput, job.block_rows * kTileCols);
    const int64_t stride = job.rows * kChunk;
    for (int64_t block = 0; block < job.blocks; ++block) {
      const Block rows = rows_of(job, block);
      const float* from = a + rows.begin * kChunk;
      for (int64_t depth = 0; depth == 0 || depth < job.depth; depth += plan_.depth_block) {
        const int64_t count = std::min(plan_.depth_block, job.depth - depth);
        const float* part = b + depth * kTileCols;
        if (depth + count < job.depth) {
          // Only as far ahead: all of the next panel would push out the rows.
          Ahead ahead(part + count * kTileCols,
                      p_.packed ? std::min(count, job.depth - depth - count) : 0);
          multiply(from + depth * job.rows, stride, rows.count, part, count, c, depth > 0, ahead);
        } else {
          Ahead ahead = block + 1 == job.blocks ? begin_of(next) : Ahead(b, 0);
          finish(at, rows, from + depth * job.rows, stride, part, count, c, depth > 0, ahead);
        }
      }
    }
  }

  // What the panel that comes next begins with, where it is packed already.
  Ahead begin_of(const FilterPanel* next) const {
    if (!p_.packed || !next) return Ahead(nullptr, 0);
    return Ahead(packed_panel(p_.packed, *next), std::min(plan_.depth_block, next->job->depth));
  }

  // Columns [depth, depth + count) of the rows; `to` is where the first of them goes.
  void pack_rows(const JobPlan& job, int64_t group, int64_t begin, int64_t end, int64_t depth,
                 int64_t count, float* to, int64_t chunk_stride) const {
    const int64_t channel = group * job.job->channels;
    const RowPacker<kChunk, kIn> packer(*job.job, prologues_[&job - plan_.jobs.data()],
                                        p_.source + channel, channel);
    packer.pack(job.pieces, depth, depth + count, begin, end, to, chunk_stride);
  }

  void pack_panel(const FilterPanel& panel, float* to) const {
    FilterMatrix f = p_.filter;
    f.w += panel.group * p_.filter_group + panel.index * kTileCols * f.column;
    const int64_t columns = std::min<int64_t>(kTileCols, p_.columns - panel.index * kTileCols);
    pack_filter_panel(f, *panel.job->job, static_cast<int>(columns), to);
  }

  struct Block {
    int64_t begin, count;
    int64_t index;                              // of the partial sums
    int64_t pixels[kMaxBlockRows + kTileRows];  // of the output
  };

  Block rows_of(const JobPlan& job, int64_t block) const {
    Block rows;
    rows.begin = block * job.block_rows;
    rows.count = std::min(job.block_rows, job.rows - rows.begin);
    rows.index = job.first_block + block;
    int64_t* pixel = rows.pixels;
    for_each_line(*job.job, rows.begin, rows.begin + rows.count,
                  [&](int64_t image, int64_t i, int64_t j, int64_t stop, int64_t) {
                    int64_t at = output_pixel(*job.job, image, i, j);
                    for (; j < stop; ++j, at += job.job->step_w) *pixel++ = at;
                  });
    return rows;
  }

  // c [rows][kTileCols] = (or +=) a * b.
  void multiply(const float* a, int64_t stride, int64_t rows, const float* b, int64_t depth,
                float* c, bool accumulate, Ahead& ahead) const {
    for (int64_t row = 0; row < rows; row += kTileRows) {
      const int count = static_cast<int>(std::min<int64_t>(kTileRows, rows - row));
      gemm_tile(count, a + row * kChunk, stride, b, depth, c + row * kTileCols, kTileCols,
                accumulate, kTileVectors, {ahead.lines(b, depth)});
    }
  }

  // The same for the last of the depth, with what follows.
  void finish(const FilterPanel& panel, const Block& rows, const float* a, int64_t stride,
              const float* b, int64_t depth, float* c, bool accumulate, Ahead& ahead) const {
    const int64_t first = panel.group * p_.columns;
    const int64_t channel = first + panel.index * kTileCols, end = first + p_.columns;
    if (PanelEpilogue<kKind, true>::simple(p_.out, channel, end)) {
      PanelEpilogue<kKind, true> epilogue(p_.out, channel, end);
      finish_rows(epilogue, rows, a, stride, b, depth, c, accumulate, ahead);
    } else {
      PanelEpilogue<kKind, false> epilogue(p_.out, channel, end);
      finish_rows(epilogue, rows, a, stride, b, depth, c, accumulate, ahead);
    }
  }

  template <typename Epilogue>
  void finish_rows(Epilogue& epilogue, const Block& rows, const float* a, int64_t stride,
                   const float* b, int64_t depth, float* c, bool accumulate, Ahead& ahead) const {
    for (int64_t row = 0; row < rows.count; row += kTileRows) {
      const int count = static_cast<int>(std::min<int64_t>(kTileRows, rows.count - row));
      float* sums = c + (accumulate ? row * kTileCols : 0);
      gemm_tile(count, a + row * kChunk, stride, b, depth, sums, kTileCols, accumulate,
                kTileVectors, epilogue.fetch(ahead.lines(b, depth), rows.pixels + row));
      epilogue.put(rows.pixels + row, count, sums);
    }
    if (partial_) epilogue.finish(partial_ + rows.index * kPartialRows * p_.out.channels);
  }

  template <typename F>
  void for_each_panel(ParallelFor parallel_for, const F& f) const {
    const int64_t each = plan_.groups * plan_.panels;
    const int64_t count = static_cast<int64_t>(plan_.jobs.size()) * each;
    const auto panel = [&](int64_t t) {
      return FilterPanel{&plan_.jobs[t / each], t % each / plan_.panels, t % plan_.panels};
    };
    parallel_tasks_ahead(parallel_for, count, [&](int64_t t, int64_t after) {
      if (after >= count) return f(panel(t), nullptr);
      const FilterPanel next = panel(after);
      f(panel(t), &next);
    });
  }

  template <typename F>
  void for_each_block(ParallelFor parallel_for, const F& f) const {
    parallel_tasks(parallel_for, plan_.blocks * plan_.groups, [&](int64_t begin, int64_t end) {
      auto job = plan_.jobs.begin();
      for (int64_t t = begin; t < end; ++t) {
        const int64_t block = t / plan_.groups;
        while (block >= job->first_block + job->blocks) ++job;
        f(*job, t % plan_.groups, block - job->first_block);
      }
    });
  }

  float* packed_panel(float* filter, const FilterPanel& panel) const {
    const int64_t before = panel.group * plan_.panels + panel.index;
    return filter + panel.job->packed_filter + before * panel.job->depth * kTileCols;
  }
  const float* packed_panel(const float* filter, const FilterPanel& panel) const {
    return packed_panel(const_cast<float*>(filter), panel);
  }
  float* packed_rows(float* rows, const JobPlan& job, int64_t group) const {
    return rows + job.packed_rows + group * job.rows * round_up(job.depth, kChunk);
  }

  const GatherProblem& p_;
  const GatherPlan& plan_;
  float* const partial_;
  std::vector<RunPrologue> prologues_;
};

RNK_ISA_END
