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
  problem.packed = p.packed;
  problem.threads = p.stats ? 0 : p.threads;  // statistics are summed by task
  problem.out.out = p.y;
  problem.out.channels = s.k;
  problem.out.residual = p.residual;
  problem.out.scale = p.scale;
  problem.out.bias = p.bias;
  problem.out.act = p.act;
  problem.out.slope = p.slope;
  return problem;
}

inline int64_t conv_fwd_direct_floats(const ConvShape& shape) {
  ConvFwdParams p{};
  p.shape = shape;
  return GatherRun(fwd_problem(p)).packed_floats();
}

inline void conv_fwd_direct_pack(const ConvFwdParams& p, float* packed, ParallelFor parallel_for) {
  GatherRun(fwd_problem(p)).pack_filter(packed, parallel_for);
}

inline void conv_fwd_direct(const ConvFwdParams& p, ParallelFor parallel_for) {
  const GatherRun conv(fwd_problem(p));
  if (p.stats != nullptr) {
    float* partial = scratch(Scratch::kPartial, conv.blocks() * kPartialRows * p.shape.k);
    conv.run<EpilogueKind::kStats>(partial, parallel_for);
    return merge_partial_stats(partial, conv.block_pixels().data(), conv.blocks(), p.shape.k,
                               p.stats);
  }
  if (p.scale || p.bias || p.residual || p.act != Act::kIdentity) {
    return conv.run<EpilogueKind::kAffine>(nullptr, parallel_for);
  }
  conv.run<EpilogueKind::kStore>(nullptr, parallel_for);
}

RNK_ISA_END
