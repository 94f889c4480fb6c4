#include "global_memory.h"

#include <algorithm>
#include <cstdio>

namespace rnk::emu {

void GlobalMemory::set_ranges(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.base < b.base; });
  std::vector<Range> merged;
  for (Range& r : ranges) {
    if (!r.bytes) continue;
    if (!merged.empty() && r.base < merged.back().base + merged.back().bytes) {
      Range& last = merged.back();
      last.bytes = std::max(last.bytes, r.base + r.bytes - last.base);
      last.read_only &= r.read_only;
    } else {
      merged.push_back(std::move(r));
    }
  }
  regions_.clear();
  regions_.reserve(merged.size());
  for (Range& r : merged) {
    regions_.push_back(Region{std::move(r), {}});
    regions_.back().shadow.reset(regions_.back().range.base, regions_.back().range.bytes);
  }
}

GlobalMemory::Region* GlobalMemory::search(uint64_t address, uint64_t size) {
  auto after = std::upper_bound(regions_.begin(), regions_.end(), address,
                                [](uint64_t a, const Region& r) { return a < r.range.base; });
  if (after == regions_.begin()) return nullptr;
  Region& r = *(after - 1);
  uint64_t offset = address - r.range.base;
  return offset <= r.range.bytes && size <= r.range.bytes - offset ? &r : nullptr;
}

std::string GlobalMemory::describe(uint64_t address) const {
  if (regions_.empty()) return "no memory is registered for this launch";
  const Region* best = nullptr;
  uint64_t best_distance = ~uint64_t{0};
  for (const Region& r : regions_) {
    uint64_t end = r.range.base + r.range.bytes;
    uint64_t d = address < r.range.base ? r.range.base - address : address - std::min(address, end);
    if (d < best_distance) best_distance = d, best = &r;
  }
  char text[160];
  int64_t offset = static_cast<int64_t>(address - best->range.base);
  std::snprintf(text, sizeof text, "offset %lld of %s with %llu bytes",
                static_cast<long long>(offset),
                best->range.name.empty() ? "the nearest memory" : best->range.name.c_str(),
                static_cast<unsigned long long>(best->range.bytes));
  return text;
}

void GlobalMemory::count_distinct(uint64_t* read, uint64_t* written) const {
  for (const Region& r : regions_) r.shadow.count_distinct(read, written);
}

}  // namespace rnk::emu
