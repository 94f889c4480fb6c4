// The memory a launch may touch outside its block: registered ranges with their shadow.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "shadow.h"

namespace rnk::emu {

struct Range {
  uint64_t base = 0, bytes = 0;
  bool read_only = false;
  bool is_constant = false;  // .const: no sectors, no races
  std::string name;
};

class GlobalMemory {
 public:
  // Overlapping ranges become one, so that a byte has one shadow.
  void set_ranges(std::vector<Range> ranges);
  struct Region {
    Range range;
    Shadow shadow;
  };
  // nullptr when [address, address + size) is in no range. hint: the region of the last hit.
  Region* find(uint64_t address, uint64_t size, Region* hint) {
    if (hint && address - hint->range.base <= hint->range.bytes &&
        size <= hint->range.bytes - (address - hint->range.base))
      return hint;
    return search(address, size);
  }
  std::string describe(uint64_t address) const;  // the nearest range, for messages
  void count_distinct(uint64_t* read, uint64_t* written) const;

 private:
  Region* search(uint64_t address, uint64_t size);
  std::vector<Region> regions_;
};

}  // namespace rnk::emu
