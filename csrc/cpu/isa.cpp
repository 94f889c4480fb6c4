// Run-time choice of the instruction set.
#include "isa.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "bf16_isa.h"

namespace rnk::cpu {
namespace {

#if defined(__x86_64__)
// Clang's __builtin_cpu_supports knows it only from version 17 on.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

// Older compilers' __builtin_cpu_supports knows neither of these.
bool has_avx512_bf16() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1u << 5) != 0;
}

// Tiles need the processor, the system's saving of them (XCR0), and its leave for this process.
bool has_amx() {
#if defined(__linux__)
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kOsxsave = 1u << 27;
  constexpr unsigned kTileStates = 1u << 17 | 1u << 18;
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsxsave) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kBf16) == 0 || (d & kTile) == 0) return false;
  unsigned low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & kTileStates) != kTileStates) return false;
  constexpr int kArchReqXcompPerm = 0x1023, kXtileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXtileData) == 0;
#else
  return false;
#endif
}
#endif

// At most `bound`, and what the compiler knew: leave to use tiles is asked for only where they are
// to be used.
Isa best_supported([[maybe_unused]] Isa bound) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool dot = RNK_HAS_AVX512_BF16 && avx512 && has_avx512_bf16();
  if (RNK_HAS_AMX && bound >= Isa::kAmx && dot && has_amx()) return Isa::kAmx;
  if (bound >= Isa::kAvx512Bf16 && dot) return Isa::kAvx512Bf16;
  if (bound >= Isa::kAvx512 && avx512) return Isa::kAvx512;
  if (bound >= Isa::kAvx2 && avx2) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

Isa choose() {
  const char* wanted = std::getenv("RNK_CPU_ISA");
  for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (wanted && std::strcmp(wanted, isa_name(isa)) == 0) return best_supported(isa);
  }
  return best_supported(Isa::kAmx);
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAmx:
      return "amx";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
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
