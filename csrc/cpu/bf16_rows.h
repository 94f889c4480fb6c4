// Gather jobs in bf16 as matrix products, cut into tasks as in conv_rows.h: with many rows a task
// packs a block of them and goes through all columns of the filter, which is packed first; with
// few, all rows are packed first, and a task packs and multiplies a panel of columns. One group.
RNK_ISA_BEGIN

constexpr int64_t kBf16MinBlockRows = 64;
constexpr int64_t kBf16MaxBlockRows = 128;
// Depth that is multiplied at once: 16 KiB of a panel, and as much of sums.
constexpr int64_t kBf16DepthPart = 256;
// With fewer rows, blocks of rows would be too few for tasks of kBf16MinBlockRows.
constexpr int64_t kBf16FewRows = 448;

class Bf16Plan {
 public:
  explicit Bf16Plan(const GatherProblemOf<BFloat16>& p)
      : panels((p.columns + kTileCols - 1) / kTileCols) {
    int64_t all_rows = 0;
    for (const GatherJob& job : p.jobs) all_rows += job.rows();
    few_rows = all_rows < kBf16FewRows;
    for (const GatherJob& job : p.jobs) {
      if (job.rows() > 0) add(job, all_rows);
    }
  }

  std::vector<JobPlan> jobs;
  int64_t panels;
  int64_t blocks = 0, filter_elements = 0, row_elements = 0;
  bool few_rows;

 private:
  void add(const GatherJob& job, int64_t all_rows) {
    JobPlan plan{&job,        pack_pieces(job, kBf16Chunk, kPieceVectors * kLanes),
                 job.rows(),  job.depth(),
                 0,           0,
                 blocks,      filter_elements,
                 row_elements};
    const int64_t depth = whole_chunks(plan.depth);
    // Half the level-2 cache; a panel of the filter lies beside them.
    const int64_t elements = 4 * blocking().rows;
    const int64_t fitting =
        std::clamp(elements / std::max<int64_t>(depth, 1), kBf16MinBlockRows, kBf16MaxBlockRows);
    const int64_t spread = std::max(kBf16MinBlockRows, all_rows / 16);
    plan.block_rows = round_up(std::min(fitting, spread), kBf16TileRows);
    plan.blocks = (plan.rows + plan.block_rows - 1) / plan.block_rows;
    blocks += plan.blocks;
    filter_elements += panels * depth * kTileCols;
    row_elements += plan.blocks * plan.block_rows * depth;
    jobs.push_back(std::move(plan));
  }
};

template <EpilogueKind kKind, PackIn kIn>
class Bf16Rows {
 public:
  // partial [blocks][kPartialRows][channels], for kinds that leave one.
  Bf16Rows(const GatherProblemOf<BFloat16>& problem, const Bf16Plan& plan, float* partial)
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

 private:
  // A block of a job's rows.
  struct Block {
    const JobPlan* job;
    int64_t begin, count;
    int64_t index;                                      // of the partial sums
    int64_t pixels[kBf16MaxBlockRows + kBf16TileRows];  // of the output
    Bf16Operand a;
  };

  void run_by_rows(ParallelFor parallel_for) const {
    BFloat16* filter = bf16_scratch(Scratch::kFilter, plan_.filter_elements);
    for_each_panel(parallel_for, [&](const JobPlan& job, int64_t panel) {
      pack_panel(job, panel, filter + packed_panel(job, panel));
    });
    for_each_block(parallel_for, [&](const JobPlan& job, int64_t index) {
      Block block = block_of(job, index);
      if (lies_packed(block)) {
        const int64_t pixel = job.job->source_pixel;
        block.a = {p_.source + block.begin * pixel, pixel, kBf16Chunk};
      } else {
        BFloat16* a = bf16_scratch(Scratch::kInput, job.block_rows * whole_chunks(job.depth));
        block.a = {a, kBf16Chunk, job.block_rows * kBf16Chunk};
        pack_rows(block, a);
      }
      const Bf16Unit unit;
      for (int64_t panel = 0; panel < plan_.panels; ++panel) {
        multiply(block, panel, filter + packed_panel(job, panel));
      }
    });
  }

  void run_by_columns(ParallelFor parallel_for) const {
    BFloat16* rows = bf16_scratch(Scratch::kInput, plan_.row_elements);
    const auto packed = [&](const JobPlan& job, int64_t index) {
      Block block = block_of(job, index);
      block.a = {rows + job.packed_rows + block.begin * kBf16Chunk, kBf16Chunk,
                 job.blocks * job.block_rows * kBf16Chunk};
      return block;
    };
    for_each_block(parallel_for, [&](const JobPlan& job, int64_t index) {
      const Block block = packed(job, index);
      pack_rows(block, const_cast<BFloat16*>(block.a.data));
    });
    for_each_panel(parallel_for, [&](const JobPlan& job, int64_t panel) {
      BFloat16* b = bf16_scratch(Scratch::kFilter, whole_chunks(job.depth) * kTileCols);
      pack_panel(job, panel, b);
      const Bf16Unit unit;
      for (int64_t index = 0; index < job.blocks; ++index) multiply(packed(job, index), panel, b);
    });
  }

  Block block_of(const JobPlan& job, int64_t index) const {
    Block block;
    block.job = &job;
    block.begin = index * job.block_rows;
    block.count = std::min(job.block_rows, job.rows - block.begin);
    block.index = job.first_block + index;
    int64_t* pixel = block.pixels;
    for_each_line(*job.job, block.begin, block.begin + block.count,
                  [&](int64_t image, int64_t i, int64_t j, int64_t stop, int64_t) {
                    int64_t at = output_pixel(*job.job, image, i, j);
                    for (; j < stop; ++j, at += job.job->step_w) *pixel++ = at;
                  });
    return block;
  }

  // Whether tiles can read the source as it lies, and nothing beyond it.
  bool lies_packed(const Block& block) const {
    const GatherJob& job = *block.job->job;
    return kBf16AnyRows && kIn == PackIn::kPlain && rows_are_pixels(job) &&
           job.channels % kBf16Chunk == 0 && block.count % kBf16TileRows == 0;
  }

  void pack_rows(const Block& block, BFloat16* to) const {
    const JobPlan& job = *block.job;
    if (job.depth % kBf16Chunk != 0) {
      BFloat16* last = to + job.depth / kBf16Chunk * block.a.chunk;
      std::fill_n(last, block.count * kBf16Chunk, BFloat16{});
    }
    const RowPacker<kBf16Chunk, kIn, BFloat16> packer(
        *job.job, prologues_[&job - plan_.jobs.data()], p_.source, 0);
    packer.pack(job.pieces, 0, job.depth, block.begin, block.begin + block.count, to,
                block.a.chunk);
  }

  void pack_panel(const JobPlan& job, int64_t panel, BFloat16* to) const {
    FilterMatrixOf<BFloat16> f = p_.filter;
    f.w += panel * kTileCols * f.column;
    const int64_t columns = std::min<int64_t>(kTileCols, p_.columns - panel * kTileCols);
    pack_bf16_panel(f, *job.job, static_cast<int>(columns), to);
  }

  void multiply(const Block& block, int64_t panel, const BFloat16* b) const {
    const int64_t channel = panel * kTileCols;
    if (PanelEpilogue<kKind, true, BFloat16>::simple(p_.out, channel, p_.columns)) {
      PanelEpilogue<kKind, true, BFloat16> epilogue(p_.out, channel, p_.columns);
      multiply(block, panel, b, epilogue);
    } else {
      PanelEpilogue<kKind, false, BFloat16> epilogue(p_.out, channel, p_.columns);
      multiply(block, panel, b, epilogue);
    }
  }

  // Part of the depth after another, so that a part of the panel stays in the level-1 cache for all
  // rows.
  template <typename Epilogue>
  void multiply(const Block& block, int64_t panel, const BFloat16* b, Epilogue& epilogue) const {
    const int64_t depth = block.job->depth;
    float* c = scratch(Scratch::kOutput, round_up(block.count, kBf16TileRows) * kTileCols);
    const int vectors = panel_vectors(p_.columns, panel);
    for (int64_t k = 0; k == 0 || k < depth; k += kBf16DepthPart) {
      const bool last = k + kBf16DepthPart >= depth;
      for (int64_t row = 0; row < block.count; row += kBf16TileRows) {
        const int count = static_cast<int>(std::min<int64_t>(kBf16TileRows, block.count - row));
        Bf16Operand a = block.a;
        a.data += row * a.row + k / kBf16Chunk * a.chunk;
        float* sums = c + row * kTileCols;
        if (last) epilogue.prefetch(block.pixels + row, count);
        bf16_tile(count, a, b + k * kTileCols, std::min(kBf16DepthPart, depth - k), sums, kTileCols,
                  k > 0, vectors);
        if (last) epilogue.put(block.pixels + row, count, sums);
      }
    }
    if (partial_) epilogue.finish(partial_ + block.index * kPartialRows * p_.out.channels);
  }

  template <typename F>
  void for_each_panel(ParallelFor parallel_for, const F& f) const {
    const int64_t count = static_cast<int64_t>(plan_.jobs.size()) * plan_.panels;
    parallel_tasks(parallel_for, count,
                   [&](int64_t t, int64_t) { f(plan_.jobs[t / plan_.panels], t % plan_.panels); });
  }

  template <typename F>
  void for_each_block(ParallelFor parallel_for, const F& f) const {
    parallel_tasks(parallel_for, plan_.blocks, [&](int64_t t, int64_t) {
      auto job = plan_.jobs.begin();
      while (t >= job->first_block + job->blocks) ++job;
      f(*job, t - job->first_block);
    });
  }

  int64_t packed_panel(const JobPlan& job, int64_t panel) const {
    return job.packed_filter + panel * whole_chunks(job.depth) * kTileCols;
  }

  const GatherProblemOf<BFloat16>& p_;
  const Bf16Plan& plan_;
  float* const partial_;
  std::vector<RunPrologue> prologues_;
};

// A gather problem in bf16, with the interface of GatherRun.
class Bf16Run {
 public:
  explicit Bf16Run(GatherProblemOf<BFloat16> problem) : p_(std::move(problem)) {
    for (GatherJob& job : p_.jobs) flatten(job);
    plan_.reset(new Bf16Plan(p_));
  }

  int64_t blocks() const { return plan_->blocks; }
  std::vector<int64_t> block_pixels() const {
    std::vector<int64_t> pixels;
    for (const JobPlan& job : plan_->jobs) {
      for (int64_t b = 0; b < job.blocks; ++b) {
        pixels.push_back(std::min(job.block_rows, job.rows - b * job.block_rows));
      }
    }
    return pixels;
  }

  template <EpilogueKind kKind, PackIn kIn>
  void run(float* partial, ParallelFor parallel_for) const {
    Bf16Rows<kKind, kIn>(p_, *plan_, partial).run(parallel_for);
  }

  template <EpilogueKind kKind>
  void run(float* partial, ParallelFor parallel_for) const {
    with_pack_in(p_.in, [&](auto in) { run<kKind, decltype(in)::value>(partial, parallel_for); });
  }

 private:
  GatherProblemOf<BFloat16> p_;
  std::unique_ptr<Bf16Plan> plan_;
};

RNK_ISA_END
