#include "fma_peak.h"

#include "isa.h"
#include "scratch.h"

#define RNK_KERNELS "fma_peak_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

double fma_peak(int64_t rounds, int threads, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(fma_peak, rounds, threads, parallel_for);
}

}  // namespace rnk::cpu
