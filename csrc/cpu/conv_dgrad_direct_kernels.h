// The kernels of conv_dgrad_direct.cpp for one instruction set.
#include "conv_direct_all.h"

RNK_ISA_BEGIN

inline void conv_dgrad_direct(const ConvDgradParams& p, ParallelFor parallel_for) {
  if (p.shape.h == 0 || p.shape.w == 0) return;
  gather_dgrad_run(GatherRun(dgrad_problem(p)), p, parallel_for);
}

RNK_ISA_END
