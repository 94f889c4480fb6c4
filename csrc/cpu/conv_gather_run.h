// Runs a gather problem by the kernel that suits its channels.
RNK_ISA_BEGIN

class GatherRun {
 public:
  explicit GatherRun(GatherProblem problem)
      : p_(std::move(problem)),
        channelwise_(suits_channels(p_.groups, p_.jobs[0].channels, p_.columns)) {
    if (channelwise_) {
      bands_ = plan_bands(p_.jobs);
    } else {
      for (GatherJob& job : p_.jobs) flatten(job);
      rows_.reset(new GatherPlan(p_));
    }
  }

  // Blocks that leave partial sums, and the pixels of each.
  int64_t blocks() const {
    return channelwise_ ? bands_.back().first_block + bands_.back().blocks : rows_->blocks;
  }
  std::vector<int64_t> block_pixels() const {
    std::vector<int64_t> pixels;
    if (channelwise_) {
      for (const BandPlan& plan : bands_) {
        for (int64_t b = 0; b < plan.blocks; ++b) {
          const Band band = band_of(plan, b);
          pixels.push_back((band.end - band.begin) * plan.job->grid_w);
        }
      }
      return pixels;
    }
    for (const JobPlan& job : rows_->jobs) {
      for (int64_t b = 0; b < job.blocks; ++b) {
        pixels.push_back(std::min(job.block_rows, job.rows - b * job.block_rows));
      }
    }
    return pixels;
  }

  // Of the packed filter; 0 where filters are read as they are.
  int64_t packed_floats() const { return channelwise_ ? 0 : rows_->filter_floats; }
  void pack_filter(float* packed, ParallelFor parallel_for) const {
    RowsConvolution<EpilogueKind::kStore, PackIn::kPlain>(p_, *rows_, nullptr)
        .pack_filter(packed, parallel_for);
  }

  // partial [blocks][2][channels], for kinds that leave one.
  template <EpilogueKind kKind, PackIn kIn>
  void run(float* partial, ParallelFor parallel_for) const {
    if (channelwise_) {
      ChannelsConvolution<kKind, kIn>(p_, bands_, partial).run(parallel_for);
    } else {
      RowsConvolution<kKind, kIn>(p_, *rows_, partial).run(parallel_for);
    }
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
  GatherProblem p_;
  const bool channelwise_;
  std::vector<BandPlan> bands_;
  std::unique_ptr<GatherPlan> rows_;
};

RNK_ISA_END
