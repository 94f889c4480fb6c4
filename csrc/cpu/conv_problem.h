// The gather problems of conv_fwd and conv_dgrad, and their runs by whatever multiplies them.
RNK_ISA_BEGIN

template <typename Element>
GatherProblemOf<Element> fwd_problem(const ConvFwdParamsOf<Element>& p) {
  const ConvShape& s = p.shape;
  GatherProblemOf<Element> problem{};
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

template <typename Run, typename Element>
void gather_fwd_run(const Run& conv, const ConvFwdParamsOf<Element>& p, ParallelFor parallel_for) {
  if (p.stats != nullptr) {
    float* partial = scratch(Scratch::kPartial, conv.blocks() * kPartialRows * p.shape.k);
    conv.template run<EpilogueKind::kStats>(partial, parallel_for);
    return merge_partial_stats(partial, conv.block_pixels().data(), conv.blocks(), p.shape.k,
                               p.stats);
  }
  if (p.scale || p.bias || p.residual || p.act != Act::kIdentity) {
    return conv.template run<EpilogueKind::kAffine>(nullptr, parallel_for);
  }
  conv.template run<EpilogueKind::kStore>(nullptr, parallel_for);
}

template <typename Element>
GatherProblemOf<Element> dgrad_problem(const ConvDgradParamsOf<Element>& p) {
  const ConvShape& s = p.shape;
  GatherProblemOf<Element> problem{};
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

// p.shape.h and p.shape.w are not zero.
template <typename Run, typename Element>
void gather_dgrad_run(const Run& conv, const ConvDgradParamsOf<Element>& p,
                      ParallelFor parallel_for) {
  if (p.sums != nullptr) {  // y_prev of no pixels may be null
    float* partial = scratch(Scratch::kPartial, conv.blocks() * kPartialRows * p.shape.c);
    conv.template run<EpilogueKind::kBnGrad, PackIn::kPlain>(partial, parallel_for);
    return merge_partial_sums(partial, conv.blocks(), p.shape.c, p.rstd, p.sums);
  }
  if (p.branch != nullptr) {
    return conv.template run<EpilogueKind::kAffine, PackIn::kPlain>(nullptr, parallel_for);
  }
  conv.template run<EpilogueKind::kStore, PackIn::kPlain>(nullptr, parallel_for);
}

RNK_ISA_END
