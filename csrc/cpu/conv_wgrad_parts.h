// A filter gradient cut into parts, a task's sums of one over a chunk of the pixels, and dw made of
// these: chunks are cut by the shape and added in order, so no result depends on the threads.
RNK_ISA_BEGIN

// Pixels are cut in chunks until there are as many tasks.
constexpr int64_t kWantedTasks = 16;

// Of one kernel's tasks.
struct WgradLimits {
  int64_t tile_rows, tile_cols;  // of a register tile; a task has whole ones
  int64_t rows, cols;            // at most
  int64_t pixel_block;           // pixels that are packed at a time
  int64_t chunk_pixels;          // at least, where there are several chunks
};

// Where dw is cut. Every task's sums lie as [rows][cols] of the cut's full size.
struct WgradPlan {
  WgradPlan(const GatherJob& job, int64_t filters, int64_t groups, const WgradLimits& limits)
      : depth(job.depth()),
        pixels(job.rows()),
        row_parts((filters + limits.rows - 1) / limits.rows),
        col_parts((depth + limits.cols - 1) / limits.cols),
        rows(round_up((filters + row_parts - 1) / row_parts, limits.tile_rows)),
        cols(round_up((depth + col_parts - 1) / col_parts, limits.tile_cols)),
        parts(groups * row_parts * col_parts),
        blocks((pixels + limits.pixel_block - 1) / limits.pixel_block),
        chunks(std::clamp<int64_t>(
            std::min((kWantedTasks + parts - 1) / parts, pixels / limits.chunk_pixels), 1,
            kWantedTasks)) {}
  const int64_t depth, pixels;
  const int64_t row_parts, col_parts, rows, cols, parts;
  const int64_t blocks, chunks;
};

// Filters [row, row_end) of the group, columns [col, col_end) of the depth R * S * C.
struct DwPart {
  int64_t group, row, row_end, col, col_end;
};

template <typename Element>
class WgradParts {
 public:
  WgradParts(const ConvWgradParamsOf<Element>& params, const GatherJob& job, const WgradPlan& plan)
      : p_(params), job_(job), plan_(plan), filters_(params.shape.k / params.shape.groups) {}

  // sum_chunk(part, first pixel block, last, sums) sets a part's sums over those blocks,
  // [rows][cols].
  template <typename F>
  void run(ParallelFor parallel_for, const F& sum_chunk) const {
    const int64_t size = plan_.rows * plan_.cols;
    const auto sum = [&](int64_t part, int64_t chunk, float* sums) {
      const int64_t first = plan_.blocks * chunk / plan_.chunks;
      const int64_t last = plan_.blocks * (chunk + 1) / plan_.chunks;
      if (first == last) std::fill_n(sums, size, 0.0f);
      sum_chunk(part_of(part), first, last, sums);
    };
    if (plan_.chunks == 1) {
      return parallel_tasks(parallel_for, plan_.parts, [&](int64_t part, int64_t) {
        float* sums = scratch(Scratch::kOutput, size);
        sum(part, 0, sums);
        for (int64_t row = 0; row < plan_.rows; ++row) store_row(part_of(part), row, sums);
      });
    }
    float* partial = scratch(Scratch::kPartial, plan_.chunks * plan_.parts * size);
    parallel_tasks(parallel_for, plan_.chunks * plan_.parts, [&](int64_t t, int64_t) {
      sum(t % plan_.parts, t / plan_.parts, partial + t * size);
    });
    const int64_t grain = std::max<int64_t>(1, kGrain / (plan_.chunks * plan_.cols));
    parallel(parallel_for, plan_.parts * plan_.rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t part = t / plan_.rows, row = t % plan_.rows;
        add_chunks(partial + part * size + row * plan_.cols);
        store_row(part_of(part), row, partial + part * size);
      }
    });
  }

 private:
  DwPart part_of(int64_t part) const {
    const int64_t col = part % plan_.col_parts * plan_.cols;
    const int64_t row = part / plan_.col_parts % plan_.row_parts * plan_.rows;
    return {part / (plan_.col_parts * plan_.row_parts), row, std::min(filters_, row + plan_.rows),
            col, std::min(plan_.depth, col + plan_.cols)};
  }

  // The first chunk's row += those of the others, in order.
  void add_chunks(float* row) const {
    const int64_t chunk = plan_.parts * plan_.rows * plan_.cols;
    for (int64_t col = 0; col < plan_.cols; col += kLanes) {
      FloatVec sum = load_vec(row + col);
      for (int64_t c = 1; c < plan_.chunks; ++c) sum += load_vec(row + c * chunk + col);
      store_vec(row + col, sum);
    }
  }

  void store_row(const DwPart& part, int64_t row, const float* sums) const {
    if (part.row + row >= part.row_end) return;
    const FilterStrides& to = p_.dw_strides;
    const int64_t filter = part.group * filters_ + part.row + row;
    const float* from = sums + row * plan_.cols;
    for (int64_t col = part.col; col < part.col_end;) {
      const int64_t tap = col / job_.channels, c = col % job_.channels;
      const int64_t count = std::min(job_.channels - c, part.col_end - col);
      Element* dw =
          p_.dw + filter * to.k + tap / p_.shape.s * to.r + tap % p_.shape.s * to.s + c * to.c;
      for (int64_t i = 0; i < count; i += kLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, count - i));
        scatter_lanes(dw + i * to.c, to.c, load_lanes(from + i, lanes), lanes);
      }
      from += count;
      col += count;
    }
  }

  const ConvWgradParamsOf<Element>& p_;
  const GatherJob& job_;
  const WgradPlan& plan_;
  const int64_t filters_;  // of one group
};

RNK_ISA_END
