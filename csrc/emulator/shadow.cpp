#include "shadow.h"

#include <string>

#include "block.h"
#include "error.h"
#include "warp.h"

namespace rnk::emu {
namespace {

bool ordered(const Record& earlier, const LaneAccess& a) {
  const Warp& w = a.warp;
  if (earlier.epoch == kPendingEpoch) return false;
  uint32_t other = earlier.uid - w.block->uid_base;
  if (other == w.index) {
    if (w.clock.knows_lane(a.record.lane(), earlier.lane(), earlier.epoch)) return true;
  } else if (other < w.block->warp_count) {
    if (w.clock.knows_warp(other, earlier.epoch)) return true;
  }
  return w.clock.knows_by_import(earlier, a.record.lane());
}

bool is_atomic(const Record& r, const Block& b) {
  return b.launch.kernel->code[r.instruction()].cls == OpClass::kAtomic;
}

void report_race(const Record& earlier, bool earlier_writes, const LaneAccess& a) {
  const char* now = a.writes ? (a.reads ? "atomic access to" : "write to") : "read of";
  std::string what = std::string(now) + (a.shared ? " shared" : " global") + " memory races with ";
  what += earlier_writes ? "a write by " : "a read by ";
  what += a.warp.block->describe(earlier);
  if (earlier.epoch == kPendingEpoch) what += " (cp.async not waited for)";
  Fault fault{"race", what, static_cast<int>(a.record.lane())};
  Block& block = *a.warp.block;
  bool reads_after = earlier_writes && !a.writes && !a.record.strong() && is_atomic(earlier, block);
  bool read_before = !earlier_writes && !earlier.strong() && is_atomic(a.record, block);
  if (!reads_after && !read_before) throw fault;
  const Record& reader = reads_after ? a.record : earlier;
  block.launch.suspicions.add(reader.uid, reader.lane(), a.memory, block.located(fault, a.warp));
}

[[noreturn]] void report_pending(const LaneAccess& a) {
  throw Fault{"async_copy",
              std::string(a.writes ? "write to" : "read of") +
                  " shared memory that a cp.async of this thread is still filling: " +
                  "cp.async.wait_group has not covered it",
              static_cast<int>(a.record.lane())};
}

// Keeps the reader that a later writer is least likely to be ordered after.
void note_reader(Cell& c, const LaneAccess& a) {
  const Record& r = a.record;
  if (!c.read.uid || c.read.same_thread(r)) {
    c.read = r;
    return;
  }
  Record old = c.read;
  c.read = r;
  if (ordered(old, a)) return;
  if (!c.other.uid || c.other.same_thread(r) || ordered(c.other, a)) {
    c.other = old;
    return;
  }
  uint32_t warps = a.warp.block->warp_count;
  auto distance = [&](const Record& x) {
    if ((x.uid - 1) / warps != (r.uid - 1) / warps) return 2;
    return x.uid != r.uid ? 1 : 0;
  };
  if (distance(old) >= distance(c.other)) c.other = old;
}

// Strong accesses do not race with one another where their scopes reach each other.
bool both_strong(const Record& earlier, const LaneAccess& a) {
  if (!earlier.strong() || !a.record.strong()) return false;
  if (!earlier.block_scope() && !a.record.block_scope()) return true;
  const Block& b = *a.warp.block;
  return earlier.uid - b.uid_base < b.warp_count;
}

bool conflicts(const Record& earlier, const LaneAccess& a) {
  return earlier.uid && !earlier.same_thread(a.record) && !both_strong(earlier, a) &&
         !ordered(earlier, a);
}

bool check_cell(Cell& c, const LaneAccess& a) {
  if (a.shared) {  // cells left by an earlier block are empty
    uint32_t base = a.warp.block->uid_base, n = a.warp.block->warp_count;
    if (c.write.uid - base >= n) c = Cell{};
    if (!c.write.uid && a.reads)
      throw Fault{"uninitialised", "read of shared memory that this block has not written",
                  static_cast<int>(a.record.lane())};
  }
  if (c.write.epoch == kPendingEpoch && c.write.same_thread(a.record)) report_pending(a);
  bool repeated = false;
  if (conflicts(c.write, a)) {
    bool equal = a.value && std::memcmp(a.memory, a.value, a.size) == 0;
    if (!equal || c.write.epoch == kPendingEpoch) report_race(c.write, true, a);
    repeated = true;
  }
  if (!a.writes) {
    note_reader(c, a);
    return false;
  }
  if (conflicts(c.read, a)) report_race(c.read, false, a);
  if (conflicts(c.other, a)) report_race(c.other, false, a);
  c.write = a.record;
  c.read = c.other = Record{};
  return repeated;
}

}  // namespace

bool check_access(Cell* cells, uint32_t count, const LaneAccess& a) {
  bool repeated = false;
  for (uint32_t i = 0; i < count; ++i) repeated |= check_cell(cells[i], a);
  return repeated;
}

void ShadowPage::refine(uint32_t size) {
  uint32_t grain = size >= 2 ? 1 : 0;
  uint32_t copies = 1u << (grain_log2 - grain);
  auto finer = std::make_unique<Cell[]>(kPageBytes >> grain);
  for (uint32_t i = 0; i < kPageBytes >> grain; ++i) finer[i] = cells[i / copies];
  cells = std::move(finer);
  grain_log2 = grain;
}

void Shadow::reset(uint64_t base, uint64_t bytes) {
  first_ = base >> 12;
  uint64_t last = (base + bytes + kPageBytes - 1) >> 12;
  pages_ = std::vector<std::atomic<ShadowPage*>>(last - first_ + 1);
}

Shadow::~Shadow() {
  for (auto& p : pages_) delete p.load();
}

ShadowPage& Shadow::make(std::atomic<ShadowPage*>& slot) {
  auto fresh = std::make_unique<ShadowPage>();
  ShadowPage* expected = nullptr;
  if (slot.compare_exchange_strong(expected, fresh.get(), std::memory_order_acq_rel))
    return *fresh.release();
  return *expected;
}

void Shadow::count_distinct(uint64_t* read, uint64_t* written) const {
  for (const auto& slot : pages_) {
    const ShadowPage* p = slot.load();
    if (!p) continue;
    for (uint64_t b : p->read_bits) *read += static_cast<uint64_t>(__builtin_popcountll(b));
    for (uint64_t b : p->written_bits) *written += static_cast<uint64_t>(__builtin_popcountll(b));
  }
}

}  // namespace rnk::emu
