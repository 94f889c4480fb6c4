// How gather jobs are cut for split_rows.h.
RNK_ISA_BEGIN

// Register tiles of rows: in a block at most, and what a block should have rather than columns be
// shared out.
constexpr int64_t kSplitMostTiles = 7;
constexpr int64_t kSplitFewTiles = 3;
// Tasks where the number of threads has no say.
constexpr int64_t kSplitTasks = 8;
// Depth that is multiplied at once: a panel of it stays in the level-1 cache for all rows.
constexpr int64_t kSplitDepthPart = 128;
// Such parts ahead the filter is fetched.
constexpr int64_t kSplitPartsAhead = 2;

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
    job.groups = std::clamp<int64_t>((threads + job.blocks - 1) / job.blocks, 1, panels);
    if (job.blocks * job.groups < threads) {
      job.blocks = std::min(tiles, (threads + job.groups - 1) / job.groups);
    }
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

RNK_ISA_END
