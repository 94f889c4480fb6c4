// Memory that a thread keeps between calls: fresh memory costs a page fault for every 4 KiB, which
// is more than the kernels spend on filling it.
#pragma once

#include <cstdint>

namespace rnk::cpu {

// What it is for. A thread has one piece for each, as large as was ever asked for.
enum class Scratch : int { kFilter, kPartial, kInput, kSums, kOutput, kChain, kRow, kCount };

// At least `floats` floats, aligned to 64 bytes, contents undefined; valid until this thread asks
// for the same piece again. Other threads may use it meanwhile.
float* scratch(Scratch piece, int64_t floats);

}  // namespace rnk::cpu
