// The kernels of conv_fwd_bf16.cpp for one instruction set.
#include "bf16_all.h"

RNK_ISA_BEGIN

inline void conv_fwd_bf16(const ConvFwdParamsOf<BFloat16>& p, ParallelFor parallel_for) {
  gather_fwd_run(Bf16Run(fwd_problem(p)), p, parallel_for);
}

RNK_ISA_END
