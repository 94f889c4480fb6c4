// Memory that launches of this thread may touch, told by device_ptr(tensor) in csrc/torch. Knows no
// other header of the emulator.
#pragma once
#include <cstddef>

namespace rnk::emu {

void register_range(const void* base, size_t bytes, const char* name);
// Ends the ranges of one op, when its launches are done.
void clear_ranges();

}  // namespace rnk::emu
