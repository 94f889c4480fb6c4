// The synchronising side of strong accesses and atomics: releases and acquires per location.
#pragma once
#include "memory_access.h"

namespace rnk::emu {

void synchronise(Warp& w, const MemoryRequest& m, uint32_t mask, bool reads, bool writes,
                 uint32_t flags);

}  // namespace rnk::emu
