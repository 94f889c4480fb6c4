// One memory instruction of a warp: addresses to host pointers through every check and counter.
#pragma once
#include <cstdint>

#include "program.h"
#include "warp.h"

namespace rnk::emu {

enum class Access : uint8_t { kRead, kWrite, kAtomic, kAsyncIssue, kAsyncLand };

struct MemoryRequest {
  uint64_t address[32];
  char* pointer[32];  // out
  uint32_t size = 0;  // bytes a lane; its alignment too
  Access access = Access::kRead;
  bool strong = false;
  bool block_scope = false;  // strong towards its own block only
  Space space = Space::kGlobal;
  const char* staged = nullptr;  // kWrite: lane i's bytes at i * size; stored lane by lane
};

// base operand + immediate for every lane
void compute_addresses(const Warp& w, const Operand& base, int64_t imm, Space space,
                       uint64_t* address);
// Throws Fault. For kWrite performs the store, for others only fills pointer.
void access_memory(Warp& w, MemoryRequest& m, uint32_t mask);

}  // namespace rnk::emu
