#include "clock.h"

#include <algorithm>

namespace rnk::emu {
namespace {

void add_import(std::vector<Import>& list, const Import& i) {
  for (Import& have : list) {
    if (have.log != i.log || have.block_scope != i.block_scope) continue;
    bool more_lanes = i.lanes & ~have.lanes, fewer_lanes = have.lanes & ~i.lanes;
    if (have.count >= i.count && !more_lanes) return;
    if (have.count > i.count || fewer_lanes) continue;
    have = i;
    return;
  }
  list.push_back(i);
}

}  // namespace

bool Release::covers(const Record& r) const {
  uint32_t warp = r.uid - uid_base;
  if (r.epoch < bounds[warp]) return true;
  for (const LaneBounds& l : lanes)
    if (l.warp == warp && r.epoch < l.bound[r.lane()]) return true;
  return false;
}

void Release::add(const Release& o) {
  uid_base = o.uid_base;
  bounds.resize(o.bounds.size());
  for (size_t w = 0; w < bounds.size(); ++w) bounds[w] = std::max(bounds[w], o.bounds[w]);
  lanes.insert(lanes.end(), o.lanes.begin(), o.lanes.end());
  auto is_covered = [&](const LaneBounds& l) {
    return *std::max_element(l.bound.begin(), l.bound.end()) <= bounds[l.warp];
  };
  lanes.erase(std::remove_if(lanes.begin(), lanes.end(), is_covered), lanes.end());
  for (const Import& i : o.imports) add_import(imports, i);
}

void SyncLog::append(std::shared_ptr<const Release> r, bool block_scope) {
  std::lock_guard<std::mutex> hold(mutex_);
  auto& of_block = by_block_[r->uid_base];
  if (!of_block.empty()) {
    const Entry& last = entries_[of_block.back()];
    if (last.release == r && last.block_scope == block_scope) return;
  }
  auto index = static_cast<uint32_t>(entries_.size());
  of_block.push_back(index);
  if (!r->imports.empty()) with_imports_.push_back(index);
  entries_.push_back({std::move(r), block_scope});
}

uint32_t SyncLog::size() {
  std::lock_guard<std::mutex> hold(mutex_);
  return static_cast<uint32_t>(entries_.size());
}

bool SyncLog::covers(const Lookup& l, const Record& r, std::vector<Lookup>* more) {
  std::lock_guard<std::mutex> hold(mutex_);
  auto valid = [&](uint32_t index) {
    const Entry& e = entries_[index];
    if (index >= l.import.count) return false;
    return e.release->uid_base == l.reader || !(e.block_scope || l.import.block_scope);
  };
  uint32_t warps = entries_.empty() ? 1 : entries_[0].release->bounds.size();
  if (auto it = by_block_.find((r.uid - 1) / warps * warps + 1); it != by_block_.end())
    for (auto index = it->second.rbegin(); index != it->second.rend(); ++index)
      if (valid(*index) && entries_[*index].release->covers(r)) return true;
  for (uint32_t index : with_imports_) {
    if (!valid(index)) continue;
    const Release& release = *entries_[index].release;
    for (const Import& i : release.imports) more->push_back({i, release.uid_base});
  }
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
  fences_.clear();
  imports_.clear();
  pending_.clear();
}

bool WarpClock::knows_by_import(const Record& r, uint32_t lane) const {
  if (imports_.empty() || r.epoch == kPendingEpoch) return false;
  std::vector<Lookup> open;
  for (const Import& i : imports_)
    if (i.lanes >> lane & 1) open.push_back({i, uid_base_});
  // What was seen through one log by different blocks differs only in block scope.
  std::unordered_map<uint64_t, uint32_t> seen;
  while (!open.empty()) {
    Lookup l = open.back();
    open.pop_back();
    uint64_t key = reinterpret_cast<uint64_t>(l.import.log) * 2 + l.import.block_scope;
    if (l.import.block_scope) key ^= uint64_t{l.reader} << 48;
    uint32_t& count = seen[key];
    if (l.import.count <= count) continue;
    count = l.import.count;
    if (l.import.log->covers(l, r, &open)) return true;
  }
  return false;
}

void WarpClock::sync_lanes(uint32_t mask, bool all_live) {
  ++epoch_;
  if (!pending_.empty()) promote_pending(mask, false);
  uint32_t known_to = all_live ? 0xFFFFFFFF : mask;
  for (Import& i : imports_)
    if (i.lanes & mask) i.lanes |= known_to;
  for (Fence& f : fences_)
    if (f.lanes & mask) f.lanes |= known_to;
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

std::shared_ptr<const Release> WarpClock::snapshot(uint32_t mask, bool all_live) {
  auto r = std::make_shared<Release>();
  r->uid_base = uid_base_;
  r->bounds = bounds_;
  ++epoch_;
  r->bounds[warp_] = all_live ? epoch_ : std::max(uniform_, bounds_[warp_]);
  if (!all_live) {
    LaneBounds known{warp_, {}};
    for (uint32_t o = 0; o < 32; ++o) {
      for (uint32_t l = 0; l < 32 && lanes_; ++l)
        if (mask >> l & 1) known.bound[o] = std::max(known.bound[o], (*lanes_)[l][o]);
      if (mask >> o & 1) known.bound[o] = epoch_;
    }
    r->lanes.push_back(known);
  }
  for (const Import& i : imports_)
    if (i.lanes & mask) add_import(r->imports, i);
  return r;
}

// Relaxed reads become acquires, by a fence of the lanes that read or by a barrier after them.
void WarpClock::promote_pending(uint32_t mask, bool block_scope) {
  for (Import& p : pending_) {
    if (!(p.lanes & mask)) continue;
    add_import(imports_, {p.log, p.count, p.lanes & mask, p.block_scope || block_scope});
    if (!block_scope) p.lanes &= ~mask;
  }
  pending_.erase(std::remove_if(pending_.begin(), pending_.end(),
                                [](const Import& p) { return p.lanes == 0; }),
                 pending_.end());
}

void WarpClock::fence(uint32_t mask, bool all_live, bool block_scope) {
  promote_pending(mask, block_scope);
  uint32_t lanes = all_live ? 0xFFFFFFFF : mask;
  for (Fence& f : fences_)
    if (f.block_scope || !block_scope) f.lanes &= ~lanes;
  fences_.erase(
      std::remove_if(fences_.begin(), fences_.end(), [](const Fence& f) { return f.lanes == 0; }),
      fences_.end());
  fences_.push_back({lanes, block_scope, snapshot(mask, all_live)});
}

void WarpClock::strong_access(SyncLog* log, const SyncKind& k) {
  if (k.reads) {
    Import i{log, log->size(), k.lanes, k.block_scope};
    if (i.count) add_import(k.acquire ? imports_ : pending_, i);
  }
  if (!k.writes) return;
  if (k.release) return log->append(snapshot(k.lanes, k.all_live), k.block_scope);
  for (const Fence& f : fences_)
    if (f.lanes & k.lanes) log->append(f.release, f.block_scope || k.block_scope);
}

// After a barrier, a strong write of any thread releases what any of them had fenced before.
void WarpClock::share_fences(const std::vector<WarpClock*>& participants, bool block_scope) {
  std::vector<std::shared_ptr<const Release>> distinct;
  size_t holders = 0;
  for (WarpClock* c : participants)
    for (const Fence& f : c->fences_) {
      if (f.block_scope != block_scope) continue;
      holders += f.lanes == 0xFFFFFFFF;
      if (std::find(distinct.begin(), distinct.end(), f.release) == distinct.end())
        distinct.push_back(f.release);
    }
  if (distinct.empty() || (distinct.size() == 1 && holders == participants.size())) return;
  auto all = std::make_shared<Release>();
  for (const auto& r : distinct) all->add(*r);
  for (WarpClock* c : participants) {
    auto same = [&](const Fence& f) { return f.block_scope == block_scope; };
    c->fences_.erase(std::remove_if(c->fences_.begin(), c->fences_.end(), same), c->fences_.end());
    c->fences_.push_back({0xFFFFFFFF, block_scope, all});
  }
}

void WarpClock::join(const std::vector<WarpClock*>& participants) {
  std::vector<uint32_t> bounds;
  std::vector<Import> imports;
  for (WarpClock* c : participants) {
    c->promote_pending(0xFFFFFFFF, false);
    ++c->epoch_;
    c->uniform_ = c->epoch_;
    c->lanes_.reset();
    bounds.resize(c->bounds_.size());
    c->bounds_[c->warp_] = c->epoch_;
    for (size_t w = 0; w < bounds.size(); ++w) bounds[w] = std::max(bounds[w], c->bounds_[w]);
    for (Import i : c->imports_) {
      i.lanes = 0xFFFFFFFF;
      add_import(imports, i);
    }
  }
  for (WarpClock* c : participants) {
    c->bounds_ = bounds;
    c->imports_ = imports;
  }
  share_fences(participants, false);
  share_fences(participants, true);
}

}  // namespace rnk::emu
