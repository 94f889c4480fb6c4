#include "sync_access.h"

#include "block.h"

namespace rnk::emu {

void synchronise(Warp& w, const MemoryRequest& m, uint32_t mask, bool reads, bool writes,
                 uint32_t flags) {
  w.polled |= reads;
  if (!w.block->launch.options.detect_races) return;
  SyncKind kind{mask,
                mask == w.live,
                reads,
                writes,
                (flags & kAcquire) != 0,
                (flags & kRelease) != 0,
                (flags & kBlockScope) != 0};
  if (!w.clock.needs_log(kind)) return;
  for (uint32_t rest = mask; rest;) {
    uint64_t a = m.address[__builtin_ctz(rest)];
    kind.lanes = 0;
    for (uint32_t same = rest; same; same &= same - 1)
      if (m.address[__builtin_ctz(same)] == a) kind.lanes |= same & -same;
    rest &= ~kind.lanes;
    kind.all_live = kind.lanes == w.live;
    bool shared = m.space == Space::kShared || a >> kTagShift == kSharedTag;
    SyncLogs& logs = shared ? w.block->shared_logs : w.block->launch.sync_logs;
    w.clock.strong_access(logs.at(a & ~(kSharedTag << kTagShift)), kind);
  }
}

}  // namespace rnk::emu
