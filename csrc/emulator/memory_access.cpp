#include "memory_access.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "block.h"
#include "traffic.h"

namespace rnk::emu {
namespace {

const char* access_name(Access a) {
  switch (a) {
    case Access::kRead:
      return "read";
    case Access::kAtomic:
      return "atomic access";
    case Access::kAsyncIssue:
    case Access::kAsyncLand:
      return "cp.async";
    default:
      return "write";
  }
}

[[noreturn]] void out_of_bounds(const MemoryRequest& m, int lane, const std::string& where) {
  char text[96];
  std::snprintf(text, sizeof text,
                "%s of %u bytes at 0x%llx is out of bounds: ", access_name(m.access), m.size,
                static_cast<unsigned long long>(m.address[lane]));
  throw Fault{"out_of_bounds", text + where, lane};
}

void check_alignment(const MemoryRequest& m, int lane) {
  uint32_t align = std::min<uint32_t>(m.size, 32);
  if ((m.address[lane] & (align - 1)) == 0) return;
  char text[96];
  std::snprintf(text, sizeof text, "%s of %u bytes at misaligned address 0x%llx",
                access_name(m.access), m.size, static_cast<unsigned long long>(m.address[lane]));
  throw Fault{"misaligned", text, lane};
}

void store(Warp& w, const MemoryRequest& m, int lane) {
  const char* from = m.staged + static_cast<size_t>(lane) * m.size;
  char* to = m.pointer[lane];
  if (!w.changed) w.changed = std::memcmp(to, from, m.size) != 0;
  switch (m.size) {
    case 1:
      *to = *from;
      return;
    case 2:
      std::memcpy(to, from, 2);
      return;
    case 4:
      std::memcpy(to, from, 4);
      return;
    case 8:
      std::memcpy(to, from, 8);
      return;
    default:
      std::memcpy(to, from, m.size);
      return;
  }
}

LaneAccess lane_access(Warp& w, const MemoryRequest& m, int lane, bool shared) {
  bool writes = m.access != Access::kRead;
  bool reads = m.access == Access::kRead || m.access == Access::kAtomic;
  const char* value = m.access == Access::kWrite ? m.staged + size_t(lane) * m.size : nullptr;
  LaneAccess a{
      w,     w.record(lane, m.strong, m.block_scope), reads, writes, shared, m.pointer[lane], value,
      m.size};
  if (m.access == Access::kAsyncIssue) a.record.epoch = kPendingEpoch;
  return a;
}

void resolve_global(Warp& w, MemoryRequest& m, uint32_t mask, GlobalMemory::Region** regions) {
  GlobalMemory& memory = w.block->launch.memory;
  GlobalMemory::Region* hint = nullptr;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int lane = __builtin_ctz(rest);
    hint = memory.find(m.address[lane], m.size, hint);
    if (!hint) out_of_bounds(m, lane, memory.describe(m.address[lane]));
    check_alignment(m, lane);
    if (hint->range.read_only && m.access != Access::kRead)
      throw Fault{"out_of_bounds", "write to read-only memory " + hint->range.name, lane};
    regions[lane] = hint;
    m.pointer[lane] = reinterpret_cast<char*>(m.address[lane]);
  }
}

void access_global(Warp& w, MemoryRequest& m, uint32_t mask) {
  GlobalMemory::Region* regions[32];
  resolve_global(w, m, mask, regions);
  const LaunchOptions& options = w.block->launch.options;
  bool write = m.access == Access::kWrite;
  if (options.count_memory && m.space != Space::kConst)
    count_sectors(w.block->counters, m.address, mask, m.size, m.access != Access::kRead);
  ShadowPage* page = nullptr;
  std::unique_lock<SpinLock> hold;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int lane = __builtin_ctz(rest);
    if ((options.detect_races || options.count_memory) && !regions[lane]->range.is_constant) {
      ShadowPage* here = &regions[lane]->shadow.page(m.address[lane]);
      if (here != page) {
        hold = std::unique_lock<SpinLock>();
        page = here;
        hold = std::unique_lock<SpinLock>(page->lock);
      }
      uint32_t offset = m.address[lane] & (kPageBytes - 1), cells;
      if (m.access != Access::kWrite) page->mark(offset, m.size, false);
      if (m.access != Access::kRead) page->mark(offset, m.size, true);
      if (options.detect_races) {
        Cell* cell = page->cells_of(offset, m.size, &cells);
        w.block->counters.same_value_stores +=
            check_access(cell, cells, lane_access(w, m, lane, false));
      }
    }
    if (write) store(w, m, lane);
  }
}

void access_shared(Warp& w, MemoryRequest& m, uint32_t mask) {
  Block& block = *w.block;
  const LaunchOptions& options = block.launch.options;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int lane = __builtin_ctz(rest);
    uint64_t a = m.address[lane] - kSharedBase;  // below it: wraps, out of bounds
    if (a > block.shared_bytes || m.size > block.shared_bytes - a)
      out_of_bounds(m, lane,
                    "the block has " + std::to_string(block.shared_bytes) +
                        " bytes of shared memory from " + std::to_string(kSharedBase) + " on");
    check_alignment(m, lane);
    m.pointer[lane] = block.shared + a;
  }
  if (options.count_memory && m.access != Access::kAsyncLand)
    count_wavefronts(block.counters, m.address, mask, m.size, m.access != Access::kRead);
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int lane = __builtin_ctz(rest);
    if (options.detect_races) {
      uint32_t cells;
      uint64_t a = m.address[lane] - kSharedBase;
      Cell* cell = block.shared_shadow.page(a).cells_of(a & (kPageBytes - 1), m.size, &cells);
      if (m.access == Access::kAsyncLand) {
        for (uint32_t i = 0; i < cells; ++i) cell[i].write = w.record(lane, false, false);
      } else {
        block.counters.same_value_stores +=
            check_access(cell, cells, lane_access(w, m, lane, true));
      }
    }
    if (m.access == Access::kWrite) store(w, m, lane);
  }
}

void access_local(Warp& w, MemoryRequest& m, uint32_t mask) {
  uint32_t bytes = w.block->launch.kernel->local_bytes;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int lane = __builtin_ctz(rest);
    uint64_t a = m.address[lane];
    if (a > bytes || m.size > bytes - a)
      out_of_bounds(m, lane, "the thread has " + std::to_string(bytes) + " bytes of local memory");
    check_alignment(m, lane);
    m.pointer[lane] = w.local + static_cast<size_t>(lane) * bytes + a;
    bool changed = w.changed;
    if (m.access == Access::kWrite) store(w, m, lane);
    w.changed = changed;  // no other thread can see it
  }
}

void access_param(Warp& w, MemoryRequest& m, uint32_t mask) {
  std::vector<char>& params = w.block->launch.params;
  uint32_t local = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int lane = __builtin_ctz(rest);
    if (m.address[lane] >> kTagShift == kLocalTag) {
      m.address[lane] &= kOffsetMask;
      local |= 1u << lane;
      continue;
    }
    uint64_t a = m.address[lane];
    uint64_t bytes = w.block->launch.kernel->param_bytes;
    if (a > bytes || m.size > bytes - a)
      out_of_bounds(m, lane, "the kernel has " + std::to_string(bytes) + " bytes of parameters");
    if (m.access != Access::kRead)
      throw Fault{"out_of_bounds", "write to a kernel parameter", lane};
    m.pointer[lane] = params.data() + a;
  }
  if (local) access_local(w, m, local);
}

void access_generic(Warp& w, MemoryRequest& m, uint32_t mask) {
  uint32_t by_tag[4] = {};
  uint64_t tagged[32];
  std::memcpy(tagged, m.address, sizeof tagged);
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int lane = __builtin_ctz(rest);
    uint64_t tag = m.address[lane] >> kTagShift;
    if (tag > kParamTag) out_of_bounds(m, lane, "no state space has this generic address");
    by_tag[tag] |= 1u << lane;
    if (tag) m.address[lane] &= kOffsetMask;
  }
  if (by_tag[0]) access_global(w, m, by_tag[0]);
  if (by_tag[kSharedTag]) access_shared(w, m, by_tag[kSharedTag]);
  if (by_tag[kLocalTag]) access_local(w, m, by_tag[kLocalTag]);
  if (by_tag[kParamTag]) access_param(w, m, by_tag[kParamTag]);
  std::memcpy(m.address, tagged, sizeof tagged);  // synchronise() must tell the spaces apart
}

}  // namespace

void compute_addresses(const Warp& w, const Operand& base, int64_t imm, Space space,
                       uint64_t* address) {
  auto offset = static_cast<uint64_t>(imm);
  if (base.width == 4) {
    const uint32_t* b = w.src<uint32_t>(base);
    for (int i = 0; i < 32; ++i) address[i] = static_cast<uint32_t>(b[i] + offset);
    return;
  }
  const uint64_t* b = w.src<uint64_t>(base);
  for (int i = 0; i < 32; ++i) address[i] = b[i] + offset;
  if (space != Space::kShared) return;
  // A shared address in a 64-bit register; generic ones are accepted too, as by the hardware.
  for (int i = 0; i < 32; ++i)
    if (address[i] >> kTagShift == kSharedTag) address[i] &= kOffsetMask;
}

void access_memory(Warp& w, MemoryRequest& m, uint32_t mask) {
  switch (m.space) {
    case Space::kGlobal:
    case Space::kConst:
      return access_global(w, m, mask);
    case Space::kShared:
      return access_shared(w, m, mask);
    case Space::kLocal:
      return access_local(w, m, mask);
    case Space::kParam:
      return access_param(w, m, mask);
    case Space::kGeneric:
      return access_generic(w, m, mask);
  }
}

}  // namespace rnk::emu
