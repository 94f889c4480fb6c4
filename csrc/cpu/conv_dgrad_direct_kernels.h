// The kernels of conv_dgrad_direct.cpp for one instruction set.
#include "conv_direct_all.h"

RNK_ISA_BEGIN

inline GatherProblem dgrad_problem(const ConvDgradParams& p) {
  const ConvShape& s = p.shape;
  GatherProblem problem{};
  problem.jobs = gather_dgrad(s);
  problem.groups = s.groups;
  problem.columns = s.c / s.groups;
  problem.source = p.dy;
  problem.filter = {p.w, p.w_strides.k, p.w_strides.c, p.w_strides.r, p.w_strides.s};
  problem.filter_group = s.k / s.groups * p.w_strides.k;
  problem.out.out = p.dx;
  problem.out.channels = s.c;
  problem.out.residual = p.branch;
  if (p.sums == nullptr) return problem;
  problem.out.scale = p.scale;
  problem.out.bias = p.bias;
  problem.out.act = p.act;
  problem.out.slope = p.slope;
  problem.out.y = p.y_prev;
  problem.out.mean = p.mean;
  problem.out.mask = p.mask;
  return problem;
}

inline void conv_dgrad_direct(const ConvDgradParams& p, ParallelFor parallel_for) {
  if (p.shape.h == 0 || p.shape.w == 0) return;
  const GatherRun conv(dgrad_problem(p));
  if (p.sums != nullptr) {  // y_prev of no pixels may be null
    float* partial = scratch(Scratch::kPartial, conv.blocks() * kPartialRows * p.shape.c);
    conv.run<EpilogueKind::kBnGrad, PackIn::kPlain>(partial, parallel_for);
    return merge_partial_sums(partial, conv.blocks(), p.shape.c, p.rstd, p.sums);
  }
  if (p.branch != nullptr) {
    return conv.run<EpilogueKind::kAffine, PackIn::kPlain>(nullptr, parallel_for);
  }
  conv.run<EpilogueKind::kStore, PackIn::kPlain>(nullptr, parallel_for);
}

RNK_ISA_END
