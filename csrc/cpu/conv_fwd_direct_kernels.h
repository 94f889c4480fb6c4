// The kernels of conv_fwd_direct.cpp for one instruction set.
#include "conv_direct_all.h"

RNK_ISA_BEGIN

inline int64_t conv_fwd_direct_floats(const ConvShape& shape) {
  ConvFwdParams p{};
  p.shape = shape;
  return GatherRun(fwd_problem(p)).packed_floats();
}

inline void conv_fwd_direct_pack(const ConvFwdParams& p, float* packed, ParallelFor parallel_for) {
  GatherRun(fwd_problem(p)).pack_filter(packed, parallel_for);
}

inline void conv_fwd_direct(const ConvFwdParams& p, ParallelFor parallel_for) {
  gather_fwd_run(GatherRun(fwd_problem(p)), p, parallel_for);
}

RNK_ISA_END
