#include "sync_access.h"

#include "block.h"

namespace rnk::emu {

void synchronise(Warp& w, const MemoryRequest& m, uint32_t mask, bool reads, bool writes,
                 uint32_t flags) {
  w.polled |= reads;
  if (!w.block->launch.options.detect_races) return;
  bool acquire = flags & kAcquire, release = flags & kRelease;
  if (!w.clock.needs_log(reads, acquire, release)) return;
  uint64_t last = ~uint64_t{0};
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    uint64_t a = m.address[__builtin_ctz(rest)];
    if (a == last) continue;
    last = a;
    bool shared = m.space == Space::kShared || a >> kTagShift == kSharedTag;
    SyncLogs& logs = shared ? w.block->shared_logs : w.block->launch.sync_logs;
    SyncLog* log = logs.at(a & ~(kSharedTag << kTagShift));
    w.clock.strong_access(log, reads, writes, acquire, release);
  }
}

}  // namespace rnk::emu
