#include "module_cache.h"

#include <unordered_map>

#include "decoder.h"
#include "error.h"

namespace rnk::emu {
namespace {

std::mutex g_mutex;
std::unordered_map<std::string, std::shared_ptr<LoadedModule>>& modules() {
  static auto* m = new std::unordered_map<std::string, std::shared_ptr<LoadedModule>>;
  return *m;
}

std::vector<std::pair<Loader, void*>>& embedded_modules() {
  static auto* v = new std::vector<std::pair<Loader, void*>>;
  return *v;
}

}  // namespace

LoadedModule::LoadedModule(std::string ptx)
    : module_(parse_module(std::move(ptx))), image_(*module_) {}

std::shared_ptr<const Kernel> LoadedModule::kernel(const std::string& name) {
  std::lock_guard<std::mutex> hold(mutex_);
  std::shared_ptr<const Kernel>& slot = kernels_[name];
  if (!slot) slot = KernelDecoder(module_, image_).decode(name);
  return slot;
}

Counters LoadedModule::launch(LaunchRequest request, const std::string& name) {
  std::shared_ptr<const Kernel> k = kernel(name);
  request.kernel = k.get();
  for (const DeviceImage::Span& s : image_.spans())
    request.ranges.push_back(Range{reinterpret_cast<uint64_t>(s.base), s.bytes, s.read_only,
                                   s.read_only, "variable " + s.name});
  Coverage run;
  Counters counters = run_launch(std::move(request), &run);
  std::lock_guard<std::mutex> hold(mutex_);
  Coverage& total = coverage_[name];
  if (total.warps.empty()) total.resize(k->code.size());
  for (size_t i = 0; i < k->code.size(); ++i) {
    total.warps[i] += run.warps[i];
    total.threads[i] += run.threads[i];
  }
  return counters;
}

std::vector<LoadedModule::LineCoverage> LoadedModule::coverage(const std::string& name) {
  std::vector<LineCoverage> rows;
  std::shared_ptr<const Kernel> k;
  try {
    k = kernel(name);
  } catch (const Error&) {  // not decodable: none of it can have run
    for (const Statement& s : module_->function_index.at(name)->statements)
      rows.push_back({static_cast<uint32_t>(s.line), 0, 0});
    return rows;
  }
  std::lock_guard<std::mutex> hold(mutex_);
  auto it = coverage_.find(name);
  for (size_t i = 0; i < k->code.size(); ++i)
    rows.push_back({k->code[i].line, it == coverage_.end() ? 0 : it->second.warps[i],
                    it == coverage_.end() ? 0 : it->second.threads[i]});
  return rows;
}

std::vector<std::string> LoadedModule::launched() {
  std::lock_guard<std::mutex> hold(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, counts] : coverage_) names.push_back(name);
  return names;
}

void LoadedModule::forget_coverage() {
  std::lock_guard<std::mutex> hold(mutex_);
  coverage_.clear();
}

void LoadedModule::replace(std::string ptx) {
  std::shared_ptr<const Module> parsed = parse_module(std::move(ptx));
  DeviceImage image(*parsed);
  std::lock_guard<std::mutex> hold(mutex_);
  kernels_.clear();
  coverage_.clear();
  module_ = std::move(parsed);
  image_ = std::move(image);
}

std::shared_ptr<LoadedModule> load_module(const std::string& ptx) {
  std::lock_guard<std::mutex> hold(g_mutex);
  std::shared_ptr<LoadedModule>& slot = modules()[ptx];
  if (!slot) {
    try {
      slot = std::make_shared<LoadedModule>(ptx);
    } catch (...) {
      modules().erase(ptx);
      throw;
    }
  }
  return slot;
}

void add_embedded(Loader loader, void* embedded) {
  std::lock_guard<std::mutex> hold(g_mutex);
  embedded_modules().emplace_back(loader, embedded);
}

size_t embedded_count() {
  std::lock_guard<std::mutex> hold(g_mutex);
  return embedded_modules().size();
}

std::vector<std::shared_ptr<LoadedModule>> all_modules() {
  std::vector<std::pair<Loader, void*>> embedded;
  {
    std::lock_guard<std::mutex> hold(g_mutex);
    embedded = embedded_modules();
  }
  for (auto [loader, e] : embedded) loader(e)->embedded = true;
  std::lock_guard<std::mutex> hold(g_mutex);
  std::vector<std::shared_ptr<LoadedModule>> all;
  for (const auto& [text, m] : modules()) all.push_back(m);
  return all;
}

}  // namespace rnk::emu
