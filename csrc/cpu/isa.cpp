// Run-time choice of the instruction set.
#include "isa.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace rnk::cpu {
namespace {

Isa best_supported() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512) return Isa::kAvx512;
  if (avx2) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

Isa choose() {
  const Isa best = best_supported();
  const char* wanted = std::getenv("RNK_CPU_ISA");
  if (wanted == nullptr) return best;
  for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    if (std::strcmp(wanted, isa_name(isa)) == 0) return isa < best ? isa : best;
  }
  return best;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

}  // namespace rnk::cpu
