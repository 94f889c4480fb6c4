#include <string>
#include <unordered_map>

#include "ops.h"

namespace rnk::emu {

const OpRow* find_opcode(std::string_view name) {
  static const auto* index = [] {
    auto* m = new std::unordered_map<std::string_view, const OpRow*>;
    for (const OpRow* rows :
         {kIntegerRows, kLogicRows, kFloatRows, kConvertRows, kMoveRows, kMemoryRows, kAtomicRows,
          kAsyncRows, kWarpRows, kControlRows, kBarrierRows, kMatrixRows, kWmmaRows})
      for (const OpRow* r = rows; r->name; ++r) m->emplace(r->name, r);
    return m;
  }();
  auto it = index->find(name);
  return it == index->end() ? nullptr : it->second;
}

}  // namespace rnk::emu
