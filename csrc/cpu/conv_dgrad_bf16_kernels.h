// The kernels of conv_dgrad_bf16.cpp for one instruction set.
#include "bf16_all.h"

RNK_ISA_BEGIN

inline void conv_dgrad_bf16(const ConvDgradParamsOf<BFloat16>& p, ParallelFor parallel_for) {
  if (p.shape.h == 0 || p.shape.w == 0) return;
  gather_dgrad_run(Bf16Run(dgrad_problem(p)), p, parallel_for);
}

RNK_ISA_END
