#include "control_flow.h"

#include <algorithm>

#include "block.h"

namespace rnk::emu {
namespace {

constexpr uint32_t kNoTail = kLeaves | kBranches | kCalls | kSynchronises;

// Instructions 0 to n - 1 and the exit n, each with the instructions that may follow.
class Graph {
 public:
  Graph(const Kernel& k, uint32_t n) : after_(n + 1), before_(n + 1) {
    for (uint32_t i = 0; i < n; ++i) {
      const Instr& in = k.code[i];
      bool falls_through = in.guard >= 0 || !(in.flags & (kLeaves | kBranches));
      if (in.flags & kLeaves) add(i, n);
      if (in.flags & kBranches && in.aux)
        for (uint32_t t : *static_cast<const std::vector<uint32_t>*>(in.aux)) add(i, t);
      else if (in.flags & kBranches)
        add(i, in.target);
      if (falls_through) add(i, i + 1);
    }
  }
  uint32_t exit() const { return static_cast<uint32_t>(after_.size()) - 1; }

  std::vector<bool> reaching(const std::vector<uint32_t>& goals) const {
    std::vector<bool> seen(after_.size());
    std::vector<uint32_t> open = goals;
    while (!open.empty()) {
      uint32_t i = open.back();
      open.pop_back();
      for (uint32_t b : before_[i]) {
        if (seen[b]) continue;
        seen[b] = true;
        open.push_back(b);
      }
    }
    return seen;
  }

  // The nearest instruction that follows each one on all paths to the exit (Cooper, Harvey and
  // Kennedy's algorithm on the reversed graph); exit() where there is none.
  std::vector<uint32_t> post_dominators() const {
    std::vector<uint32_t> order = reversed_postorder(), rank(after_.size(), 0);
    for (uint32_t i = 0; i < order.size(); ++i) rank[order[i]] = i + 1;  // 0: cannot exit
    std::vector<uint32_t> next(after_.size(), exit());
    std::vector<bool> known(after_.size());
    known[exit()] = true;
    for (bool changed = true; changed;) {
      changed = false;
      for (uint32_t i : order) {
        if (i == exit()) continue;
        uint32_t best = exit() + 1;
        for (uint32_t a : after_[i]) {
          if (!known[a] || !rank[a]) continue;
          if (best > exit()) best = a;
          for (uint32_t other = a; best != other;)
            if (rank[other] > rank[best])
              other = next[other];
            else
              best = next[best];
        }
        if (best > exit() || (known[i] && next[i] == best)) continue;
        next[i] = best;
        known[i] = changed = true;
      }
    }
    return next;
  }

 private:
  void add(uint32_t from, uint32_t to) {
    after_[from].push_back(to);
    before_[to].push_back(from);
  }
  std::vector<uint32_t> reversed_postorder() const {
    std::vector<uint32_t> order;
    std::vector<uint32_t> child(after_.size(), 0);
    std::vector<bool> seen(after_.size());
    std::vector<uint32_t> path{exit()};
    seen[exit()] = true;
    while (!path.empty()) {
      uint32_t i = path.back();
      if (child[i] == before_[i].size()) {
        order.push_back(i);
        path.pop_back();
        continue;
      }
      uint32_t b = before_[i][child[i]++];
      if (seen[b]) continue;
      seen[b] = true;
      path.push_back(b);
    }
    std::reverse(order.begin(), order.end());
    return order;
  }
  std::vector<std::vector<uint32_t>> after_, before_;
};

void run_tail(Warp& w, const Instr& in, uint32_t mask) {
  w.passed_tail |= mask;
  w.block->launch.kernel->tail(w, in, mask);
}

}  // namespace

void find_tail(Kernel& kernel, uint32_t size) {
  auto synchronises = [](const Instr& in) { return (in.flags & kSynchronises) != 0; };
  bool in_callees = std::any_of(kernel.code.begin() + size, kernel.code.end(), synchronises);
  uint32_t wanted = in_callees ? kSynchronises | kCalls : kSynchronises;
  std::vector<uint32_t> barriers;
  for (uint32_t i = 0; i < size; ++i)
    if (kernel.code[i].flags & wanted) barriers.push_back(i);
  if (barriers.empty()) return;
  Graph graph(kernel, size);
  std::vector<bool> before_barrier = graph.reaching(barriers);
  std::vector<uint32_t> next = graph.post_dominators();
  uint32_t tail = graph.exit();
  bool every_call = true;
  for (uint32_t b : barriers) {
    uint32_t last = graph.exit();
    for (uint32_t i = next[b]; i != graph.exit(); i = next[i])
      if (!before_barrier[i] && !(kernel.code[i].flags & kNoTail)) last = i;
    if (tail == graph.exit()) tail = last;
    if (last == tail && last != graph.exit())
      kernel.code[b].flags |= kHasTail;
    else
      every_call &= !(kernel.code[b].flags & kCalls);
  }
  if (tail == graph.exit()) return;
  for (auto in = kernel.code.begin() + size; every_call && in != kernel.code.end(); ++in)
    if (synchronises(*in)) in->flags |= kHasTail;
  kernel.tail = kernel.code[tail].run;
  kernel.code[tail].run = run_tail;
}

}  // namespace rnk::emu
