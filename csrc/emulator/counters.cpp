#include "counters.h"

namespace rnk::emu {

void Counters::add(const Counters& o) {
  static_assert(sizeof(Counters) % sizeof(uint64_t) == 0, "Counters holds 64-bit counts only");
  auto* to = reinterpret_cast<uint64_t*>(this);
  const auto* from = reinterpret_cast<const uint64_t*>(&o);
  for (size_t i = 0; i < sizeof(Counters) / sizeof(uint64_t); ++i) to[i] += from[i];
}

const char* op_class_name(OpClass c) {
  static constexpr const char* kNames[] = {
      "integer", "fp32",        "fp64",    "half",    "convert", "special_function",
      "move",    "predicate",   "load",    "store",   "atomic",  "async_copy",
      "matrix",  "matrix_move", "shuffle", "barrier", "control"};
  return kNames[static_cast<size_t>(c)];
}

}  // namespace rnk::emu
