// What a gather problem is, and how its rows are cut into blocks (conv_rows.h).
RNK_ISA_BEGIN

// With fewer rows, blocks of rows would be too few for 8 tasks of kMinBlockRows.
constexpr int64_t kFewRows = 448;
constexpr int64_t kMinBlockRows = 56;
constexpr int64_t kMaxBlockRows = 448;
// Register tiles a thread must have for one more or less of them not to matter.
constexpr int64_t kFairTiles = 7;
template <typename Element>
struct GatherProblemOf {
  std::vector<GatherJob> jobs;
  int64_t groups;
  int64_t columns;  // of one group
  const Element* source;
  ConvPrologue in;
  FilterMatrixOf<Element> filter;  // of the first group
  int64_t filter_group;            // floats from one group's filter to the next
  const float* packed;             // the filter of the one job there is, by pack_filter, or null
  int threads;                     // to cut tasks for, or 0
  EpilogueTensorsOf<Element> out;
};
using GatherProblem = GatherProblemOf<float>;

struct JobPlan {
  const GatherJob* job;
  std::vector<PackPiece> pieces;
  int64_t rows, depth;
  int64_t block_rows, blocks, first_block;
  int64_t packed_filter, packed_rows;  // where the first group's begin
};

inline int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

class GatherPlan {
 public:
  explicit GatherPlan(const GatherProblem& p)
      : panels((p.columns + kTileCols - 1) / kTileCols), groups(p.groups) {
    int64_t all_rows = 0, floats = 0;
    for (const GatherJob& job : p.jobs) all_rows += job.rows(), floats += job.rows() * job.depth();
    // Every panel reads all rows, which should come from the level-2 cache.
    few_rows = p.packed && p.threads ? all_rows < kFairTiles * kTileRows * p.threads
                                     : all_rows < kFewRows && floats <= 4 * blocking().rows;
    for (const GatherJob& job : p.jobs) {
      if (job.rows() > 0) add(job, all_rows, p.threads);
    }
  }

  std::vector<JobPlan> jobs;
  int64_t panels, groups;
  const int64_t depth_block = blocking().depth;
  int64_t blocks = 0, filter_floats = 0, row_floats = 0;
  bool few_rows;

 private:
  void add(const GatherJob& job, int64_t all_rows, int threads) {
    JobPlan plan{&job,       pack_pieces(job, kChunk, kPieceVectors * kLanes),
                 job.rows(), job.depth(),
                 0,          0,
                 blocks,     filter_floats,
                 row_floats};
    const int64_t fitting =
        std::clamp(blocking().rows / std::clamp<int64_t>(plan.depth, 1, depth_block),
                   2 * kMinBlockRows, kMaxBlockRows);
    if (threads > 0 && !few_rows) {
      const int64_t each = (plan.rows + threads - 1) / threads;
      const int64_t count = (each + fitting - 1) / fitting;  // blocks of a thread
      plan.block_rows = round_up((each + count - 1) / count, kTileRows);
    } else {
      // Equal blocks, an even number of them, of whole tiles if that leaves as many.
      const int64_t most = std::min(fitting, std::max(kMinBlockRows, all_rows / 16));
      int64_t count = (plan.rows + most - 1) / most;
      if (count > 1) count += count % 2;
      plan.block_rows = (plan.rows + count - 1) / count;
      const int64_t whole = round_up(plan.block_rows, kTileRows);
      if ((plan.rows + whole - 1) / whole == count) plan.block_rows = whole;
    }
    plan.blocks = (plan.rows + plan.block_rows - 1) / plan.block_rows;
    blocks += plan.blocks;
    filter_floats += groups * panels * plan.depth * kTileCols;
    row_floats += groups * plan.rows * round_up(plan.depth, kChunk);
    jobs.push_back(std::move(plan));
  }
};

RNK_ISA_END
