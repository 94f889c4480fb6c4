#include "clock.h"

#include <algorithm>

namespace rnk::emu {

void SyncLog::append(std::shared_ptr<const Release> r) {
  std::lock_guard<std::mutex> hold(mutex_);
  auto& of_block = by_block_[r->uid_base];
  if (!of_block.empty() && entries_[of_block.back()] == r) return;
  auto index = static_cast<uint32_t>(entries_.size());
  of_block.push_back(index);
  if (!r->imports.empty()) with_imports_.push_back(index);
  entries_.push_back(std::move(r));
}

uint32_t SyncLog::size() {
  std::lock_guard<std::mutex> hold(mutex_);
  return static_cast<uint32_t>(entries_.size());
}

bool SyncLog::covers(uint32_t count, const Record& r, uint32_t uid_base,
                     std::vector<Import>* more) {
  std::lock_guard<std::mutex> hold(mutex_);
  if (auto it = by_block_.find(uid_base); it != by_block_.end())
    for (uint32_t index : it->second)
      if (index < count && r.epoch < entries_[index]->bounds[r.uid - uid_base]) return true;
  for (uint32_t index : with_imports_)
    if (index < count)
      more->insert(more->end(), entries_[index]->imports.begin(), entries_[index]->imports.end());
  return false;
}

SyncLog* SyncLogs::at(uint64_t address) {
  std::lock_guard<std::mutex> hold(mutex_);
  auto& slot = logs_[address];
  if (!slot) slot = std::make_unique<SyncLog>();
  return slot.get();
}

void WarpClock::reset(uint32_t uid_base, uint32_t warp, uint32_t warps) {
  epoch_ = 1;
  uniform_ = 0;
  uid_base_ = uid_base;
  warp_ = warp;
  bounds_.assign(warps, 0);
  lanes_.reset();
  fence_.reset();
  imports_.clear();
  pending_.clear();
}

bool WarpClock::knows_by_import(const Record& r, uint32_t warps_per_block) const {
  if (imports_.empty() || r.epoch == kPendingEpoch) return false;
  uint32_t uid_base = (r.uid - 1) / warps_per_block * warps_per_block + 1;
  std::unordered_map<SyncLog*, uint32_t> seen;
  std::vector<Import> open = imports_;
  while (!open.empty()) {
    Import i = open.back();
    open.pop_back();
    uint32_t& count = seen[i.log];
    if (i.count <= count) continue;
    count = i.count;
    if (i.log->covers(i.count, r, uid_base, &open)) return true;
  }
  return false;
}

void WarpClock::sync_lanes(uint32_t mask, bool all_live) {
  ++epoch_;
  if (all_live) {
    uniform_ = epoch_;
    lanes_.reset();
    return;
  }
  if (!lanes_) lanes_ = std::make_unique<std::array<std::array<uint32_t, 32>, 32>>();
  std::array<uint32_t, 32> joined{};
  for (int l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    for (int o = 0; o < 32; ++o) joined[o] = std::max(joined[o], (*lanes_)[l][o]);
  }
  for (int o = 0; o < 32; ++o)
    if (mask >> o & 1) joined[o] = epoch_;
  for (int l = 0; l < 32; ++l)
    if (mask >> l & 1) (*lanes_)[l] = joined;
}

std::shared_ptr<const Release> WarpClock::snapshot() {
  auto r = std::make_shared<Release>();
  r->uid_base = uid_base_;
  r->bounds = bounds_;
  r->bounds[warp_] = ++epoch_;
  r->imports = imports_;
  return r;
}

void WarpClock::import(const Import& i) {
  for (Import& have : imports_) {
    if (have.log != i.log) continue;
    have.count = std::max(have.count, i.count);
    return;
  }
  imports_.push_back(i);
}

void WarpClock::promote_pending() {
  for (const Import& i : pending_) import(i);
  pending_.clear();
}

void WarpClock::fence() {
  promote_pending();
  fence_ = snapshot();
}

void WarpClock::strong_access(SyncLog* log, bool reads, bool writes, bool acquire, bool release) {
  if (reads) {
    Import i{log, log->size()};
    if (i.count && acquire) {
      import(i);
    } else if (i.count) {
      auto same = [&](const Import& p) { return p.log == log; };
      auto it = std::find_if(pending_.begin(), pending_.end(), same);
      if (it != pending_.end())
        it->count = std::max(it->count, i.count);
      else
        pending_.push_back(i);
    }
  }
  if (!writes) return;
  if (release)
    log->append(snapshot());
  else if (fence_)
    log->append(fence_);
}

void WarpClock::join(const std::vector<WarpClock*>& participants) {
  std::vector<uint32_t> bounds;
  std::vector<Import> imports;
  for (WarpClock* c : participants) {
    c->promote_pending();
    ++c->epoch_;
    c->uniform_ = c->epoch_;
    c->lanes_.reset();
    bounds.resize(c->bounds_.size());
    c->bounds_[c->warp_] = c->epoch_;
    for (size_t w = 0; w < bounds.size(); ++w) bounds[w] = std::max(bounds[w], c->bounds_[w]);
    imports.insert(imports.end(), c->imports_.begin(), c->imports_.end());
  }
  for (WarpClock* c : participants) {
    c->bounds_ = bounds;
    for (const Import& i : imports) c->import(i);
  }
}

}  // namespace rnk::emu
