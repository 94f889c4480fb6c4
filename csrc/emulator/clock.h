// Happens-before: who has seen which accesses. One epoch counter a warp; an access made at epoch e
// is ordered before a thread that knows a bound > e of that warp. Barriers join the clocks of a
// block; fences with atomics leave releases in a log per memory location, and a thread that reads
// the location and fences has seen the log up to there.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace rnk::emu {

// One access, packed for the shadow cells. uid 0: none.
struct Record {
  uint32_t uid = 0;    // 1 + block * warps_per_block + warp
  uint32_t epoch = 0;  // kPendingEpoch: a cp.async that has not landed
  uint32_t where = 0;  // instruction << 6 | lane << 1 | strong
  uint32_t lane() const { return where >> 1 & 31; }
  bool strong() const { return where & 1; }
  uint32_t instruction() const { return where >> 6; }
  bool same_thread(const Record& o) const { return uid == o.uid && ((where ^ o.where) & 62) == 0; }
};
constexpr uint32_t kPendingEpoch = 0xFFFFFFFF;

class SyncLog;
struct Import {
  SyncLog* log;
  uint32_t count;  // entries seen
};

struct Release {
  uint32_t uid_base;             // of the releasing block
  std::vector<uint32_t> bounds;  // per warp of that block
  std::vector<Import> imports;
};

class SyncLog {
 public:
  void append(std::shared_ptr<const Release> r);
  uint32_t size();
  // True when one of the first `count` releases covers the access; adds what they imported.
  bool covers(uint32_t count, const Record& r, uint32_t uid_base, std::vector<Import>* more);

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<const Release>> entries_;
  std::unordered_map<uint32_t, std::vector<uint32_t>> by_block_;
  std::vector<uint32_t> with_imports_;
};

// All logs of a launch (global locations) or of a block (shared locations).
class SyncLogs {
 public:
  SyncLog* at(uint64_t address);

 private:
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::unique_ptr<SyncLog>> logs_;
};

class WarpClock {
 public:
  void reset(uint32_t uid_base, uint32_t warp, uint32_t warps);
  uint32_t epoch() const { return epoch_; }
  bool knows_lane(uint32_t lane, uint32_t other, uint32_t epoch) const {
    return epoch < uniform_ || (lanes_ && epoch < (*lanes_)[lane][other]);
  }
  bool knows_warp(uint32_t warp, uint32_t epoch) const { return epoch < bounds_[warp]; }
  bool knows_by_import(const Record& r, uint32_t warps_per_block) const;

  void sync_lanes(uint32_t mask, bool all_live);
  void fence();
  // An atomic or other strong access; release and acquire as the instruction says.
  void strong_access(SyncLog* log, bool reads, bool writes, bool acquire, bool release);
  bool needs_log(bool reads, bool acquire, bool release) const {
    return reads || acquire || release || fence_;
  }
  static void join(const std::vector<WarpClock*>& participants);

 private:
  std::shared_ptr<const Release> snapshot();
  void import(const Import& i);
  void promote_pending();
  uint32_t epoch_ = 1, uniform_ = 0, uid_base_ = 0, warp_ = 0;
  std::vector<uint32_t> bounds_;
  std::unique_ptr<std::array<std::array<uint32_t, 32>, 32>> lanes_;
  std::shared_ptr<const Release> fence_;  // state at the last fence, released by strong writes
  std::vector<Import> imports_, pending_;
};

}  // namespace rnk::emu
