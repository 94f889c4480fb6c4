// Happens-before: who has seen which accesses. One epoch counter a warp; an access made at epoch e
// is ordered before a thread that knows a bound > e of that warp. Barriers join the clocks of a
// block; fences with atomics leave releases in a log per memory location, and a thread that reads
// the location and fences has seen the log up to there. Lanes of a warp know apart what they did
// not share by a .sync operation; scopes narrower than the device order only within the block.
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
  uint32_t where = 0;  // instruction << 7 | lane << 2 | block scope << 1 | strong
  uint32_t lane() const { return where >> 2 & 31; }
  bool strong() const { return where & 1; }
  bool block_scope() const { return where & 2; }
  uint32_t instruction() const { return where >> 7; }
  bool same_thread(const Record& o) const { return uid == o.uid && ((where ^ o.where) & 124) == 0; }
};
constexpr uint32_t kPendingEpoch = 0xFFFFFFFF;

class SyncLog;
struct Import {
  SyncLog* log;
  uint32_t count;    // entries seen
  uint32_t lanes;    // of the warp that know it
  bool block_scope;  // it orders only what the reader's own block released
};

struct LaneBounds {
  uint32_t warp;
  std::array<uint32_t, 32> bound;
};

struct Release {
  uint32_t uid_base = 0;          // of the releasing block
  std::vector<uint32_t> bounds;   // per warp of that block
  std::vector<LaneBounds> lanes;  // where more is known of some lanes than of their warp
  std::vector<Import> imports;
  bool covers(const Record& r) const;
  void add(const Release& o);
};

// What a thread looks up, on whose behalf: an import and the block that holds it.
struct Lookup {
  Import import;
  uint32_t reader;  // uid_base
};

class SyncLog {
 public:
  void append(std::shared_ptr<const Release> r, bool block_scope);
  uint32_t size();
  // True when a release that the lookup has seen covers the access; adds what those had seen.
  bool covers(const Lookup& l, const Record& r, std::vector<Lookup>* more);

 private:
  struct Entry {
    std::shared_ptr<const Release> release;
    bool block_scope;
  };
  std::mutex mutex_;
  std::vector<Entry> entries_;
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

// How an instruction synchronises, and which lanes execute it.
struct SyncKind {
  uint32_t lanes;
  bool all_live;  // lanes are all of the warp that run
  bool reads, writes, acquire, release, block_scope;
};

class WarpClock {
 public:
  void reset(uint32_t uid_base, uint32_t warp, uint32_t warps);
  uint32_t epoch() const { return epoch_; }
  bool knows_lane(uint32_t lane, uint32_t other, uint32_t epoch) const {
    return epoch < uniform_ || (lanes_ && epoch < (*lanes_)[lane][other]);
  }
  bool knows_warp(uint32_t warp, uint32_t epoch) const { return epoch < bounds_[warp]; }
  bool knows_by_import(const Record& r, uint32_t lane) const;

  void sync_lanes(uint32_t mask, bool all_live);
  void fence(uint32_t mask, bool all_live, bool block_scope);
  // An atomic or other strong access.
  void strong_access(SyncLog* log, const SyncKind& kind);
  bool needs_log(const SyncKind& k) const {
    return k.reads || k.acquire || k.release || !fences_.empty();
  }
  static void join(const std::vector<WarpClock*>& participants);

 private:
  // State at a fence, released by the strong writes of these lanes.
  struct Fence {
    uint32_t lanes;
    bool block_scope;
    std::shared_ptr<const Release> release;
  };
  std::shared_ptr<const Release> snapshot(uint32_t mask, bool all_live);
  void promote_pending(uint32_t mask, bool block_scope);
  static void share_fences(const std::vector<WarpClock*>& participants, bool block_scope);
  uint32_t epoch_ = 1, uniform_ = 0, uid_base_ = 0, warp_ = 0;
  std::vector<uint32_t> bounds_;
  std::unique_ptr<std::array<std::array<uint32_t, 32>, 32>> lanes_;
  std::vector<Fence> fences_;
  std::vector<Import> imports_, pending_;
};

}  // namespace rnk::emu
