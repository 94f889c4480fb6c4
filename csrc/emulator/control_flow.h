// Finds, in the decoded entry function, the last instruction that every thread must pass after its
// barriers and from which no barrier can be reached. A thread that executed it while others wait
// at a barrier has gone around that barrier, though it may have exited by then.
#pragma once
#include "program.h"

namespace rnk::emu {

// Sets kHasTail on the barriers and .sync instructions, and Kernel::tail; size: of the entry.
void find_tail(Kernel& kernel, uint32_t size);

}  // namespace rnk::emu
