// fma_peak: multiply-adds in registers on all threads, which the caller times.
#include "../../cpu/fma_peak.h"

#include "../backend.h"

namespace rnk {
namespace {

// Returns the operations done. like: any tensor of the CPU.
double fma_peak(const Tensor& like, int64_t rounds) {
  STD_TORCH_CHECK(rounds >= 0, "rounds: expected 0 or more, got ", rounds);
  const DeviceScope scope(like);
  return cpu::fma_peak(rounds, thread_count(), scope.context());
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(fma_peak)
