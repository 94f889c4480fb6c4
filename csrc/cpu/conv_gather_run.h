// Runs a gather problem by the kernel that suits its channels.
RNK_ISA_BEGIN

class GatherRun {
 public:
  explicit GatherRun(GatherProblem problem) : p_(std::move(problem)), kernel_(kernel_of(p_)) {
    const int64_t channels = p_.jobs[0].channels;
    if (kernel_ == Kernel::kChannels) {
      bands_ = plan_bands(p_.jobs, kExpandedFloats, kLanes * channels);
    } else if (kernel_ == Kernel::kBands) {
      bands_ = plan_bands(p_.jobs, kPaddedFloats, channels);
    } else {
      for (GatherJob& job : p_.jobs) flatten(job);
      rows_.reset(new GatherPlan(p_));
    }
  }

  // Blocks that leave partial sums, and the pixels of each.
  int64_t blocks() const {
    return rows_ ? rows_->blocks : bands_.back().first_block + bands_.back().blocks;
  }
  std::vector<int64_t> block_pixels() const {
    std::vector<int64_t> pixels;
    for (const BandPlan& plan : bands_) {
      for (int64_t b = 0; b < plan.blocks; ++b) {
        const Band band = band_of(plan, b);
        pixels.push_back((band.end - band.begin) * plan.job->grid_w);
      }
    }
    if (!rows_) return pixels;
    for (const JobPlan& job : rows_->jobs) {
      for (int64_t b = 0; b < job.blocks; ++b) {
        pixels.push_back(std::min(job.block_rows, job.rows - b * job.block_rows));
      }
    }
    return pixels;
  }

  // Of the packed filter; 0 where filters are read as they are.
  int64_t packed_floats() const {
    if (rows_) return rows_->filter_floats;
    return kernel_ == Kernel::kBands ? bands().filter_floats() : 0;
  }
  void pack_filter(float* packed, ParallelFor parallel_for) const {
    if (kernel_ == Kernel::kBands) return bands().pack_filter(packed, parallel_for);
    RowsConvolution<EpilogueKind::kStore, PackIn::kPlain>(p_, *rows_, nullptr)
        .pack_filter(packed, parallel_for);
  }

  // partial [blocks][2][channels], for kinds that leave one.
  template <EpilogueKind kKind, PackIn kIn>
  void run(float* partial, ParallelFor parallel_for) const {
    switch (kernel_) {
      case Kernel::kChannels:
        return ChannelsConvolution<kKind, kIn>(p_, bands_, partial).run(parallel_for);
      case Kernel::kBands:
        return BandsConvolution<kKind, kIn>(p_, bands_, partial).run(parallel_for);
      case Kernel::kRows:
        return RowsConvolution<kKind, kIn>(p_, *rows_, partial).run(parallel_for);
    }
  }

  template <EpilogueKind kKind>
  void run(float* partial, ParallelFor parallel_for) const {
    with_pack_in(p_.in, [&](auto in) { run<kKind, decltype(in)::value>(partial, parallel_for); });
  }

 private:
  enum class Kernel { kChannels, kBands, kRows };

  static Kernel kernel_of(const GatherProblem& p) {
    const GatherJob& job = p.jobs[0];
    if (suits_channels(p.groups, job.channels, p.columns)) return Kernel::kChannels;
    const auto suits = [&](const GatherJob& j) { return suits_bands(j, p.groups); };
    return std::all_of(p.jobs.begin(), p.jobs.end(), suits) ? Kernel::kBands : Kernel::kRows;
  }

  BandsConvolution<EpilogueKind::kStore, PackIn::kPlain> bands() const {
    return {p_, bands_, nullptr};
  }

  GatherProblem p_;
  const Kernel kernel_;
  std::vector<BandPlan> bands_;
  std::unique_ptr<GatherPlan> rows_;
};

RNK_ISA_END
