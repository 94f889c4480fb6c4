// How many memory transactions a warp access needs, and how few it could need.
#pragma once
#include <cstdint>

#include "counters.h"

namespace rnk::emu {

// 32-byte sectors of one global access. Ideal: the distinct bytes, densely packed.
void count_sectors(Counters& c, const uint64_t* address, uint32_t mask, uint32_t size, bool write);
// Passes through 32 banks of 4 bytes; 8- and 16-byte accesses go in halves and quarters of a warp.
void count_wavefronts(Counters& c, const uint64_t* address, uint32_t mask, uint32_t size,
                      bool write);

}  // namespace rnk::emu
