// The kernels of conv_split.cpp for one instruction set.
#include "split_all.h"

RNK_ISA_BEGIN

inline void conv_fwd_split(const ConvFwdParams& p, ParallelFor parallel_for) {
  gather_fwd_run(SplitRun(fwd_problem(p)), p, parallel_for);
}

inline int64_t conv_fwd_split_floats(const ConvShape& shape) {
  ConvFwdParams p{};
  p.shape = shape;
  return SplitRun(fwd_problem(p)).packed_floats();
}

inline void conv_fwd_split_pack(const ConvFwdParams& p, float* packed, ParallelFor parallel_for) {
  SplitRun(fwd_problem(p)).pack_filter(packed, parallel_for);
}

inline void conv_dgrad_split(const ConvDgradParams& p, ParallelFor parallel_for) {
  if (p.shape.h == 0 || p.shape.w == 0) return;
  gather_dgrad_run(SplitRun(dgrad_problem(p)), p, parallel_for);
}

RNK_ISA_END
