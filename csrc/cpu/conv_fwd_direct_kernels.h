// The kernels of conv_fwd_direct.cpp for one instruction set.
#include "conv_direct_all.h"

RNK_ISA_BEGIN

inline GatherProblem fwd_problem(const ConvFwdParams& p) {
  const ConvShape& s = p.shape;
  GatherProblem problem{};
  problem.jobs = {gather_fwd(s)};
  problem.groups = s.groups;
  problem.columns = s.k / s.groups;
  problem.source = p.x;
  problem.in = p.in;
  problem.filter = {p.w, p.w_strides.c, p.w_strides.k, p.w_strides.r, p.w_strides.s};
  problem.filter_group = problem.columns * p.w_strides.k;
  problem.out.out = p.y;
  problem.out.channels = s.k;
  problem.out.residual = p.residual;
  problem.out.scale = p.scale;
  problem.out.bias = p.bias;
  problem.out.act = p.act;
  problem.out.slope = p.slope;
  return problem;
}

inline void fwd_stats(const GatherProblem& problem, const GatherPlan& plan, float* stats,
                      ParallelFor parallel_for) {
  const int64_t channels = problem.out.channels;
  float* partial = scratch(Scratch::kPartial, plan.blocks * 2 * channels);
  run_rows<EpilogueKind::kStats>(problem, plan, partial, parallel_for);
  std::vector<int64_t> counts(plan.blocks);
  for (const JobPlan& job : plan.jobs) {
    for (int64_t b = 0; b < job.blocks; ++b) {
      counts[job.first_block + b] = std::min(job.block_rows, job.rows - b * job.block_rows);
    }
  }
  merge_partial_stats(partial, counts.data(), plan.blocks, channels, stats);
}

inline void conv_fwd_direct(const ConvFwdParams& p, ParallelFor parallel_for) {
  const GatherProblem problem = fwd_problem(p);
  const GatherPlan plan(problem);
  if (p.stats != nullptr) return fwd_stats(problem, plan, p.stats, parallel_for);
  if (p.scale || p.bias || p.residual || p.act != Act::kIdentity) {
    return run_rows<EpilogueKind::kAffine>(problem, plan, nullptr, parallel_for);
  }
  run_rows<EpilogueKind::kStore>(problem, plan, nullptr, parallel_for);
}

RNK_ISA_END
