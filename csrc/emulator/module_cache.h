// Parsed modules, decoded kernels and their accumulated coverage, for the life of the process.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "device_image.h"
#include "launch.h"

namespace rnk::emu {

class LoadedModule {
 public:
  explicit LoadedModule(std::string ptx);
  const Module& module() const { return *module_; }
  std::shared_ptr<const Kernel> kernel(const std::string& name);
  DeviceImage& image() { return image_; }
  std::atomic<bool> embedded{false};  // inside this library
  Counters launch(LaunchRequest request, const std::string& kernel);

  struct LineCoverage {
    uint32_t line;
    uint64_t warps, threads;
  };
  // One row an instruction; empty counts for a kernel that never ran.
  std::vector<LineCoverage> coverage(const std::string& kernel);
  // Kernels launched since the start or since the coverage was forgotten.
  std::vector<std::string> launched();
  void forget_coverage();

  // Runs this text from now on, for mutation tests: the host code launches its kernels by name.
  // Nothing may be running or hold the address of a device variable.
  void replace(std::string ptx);

 private:
  std::shared_ptr<const Module> module_;
  DeviceImage image_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const Kernel>> kernels_;
  std::map<std::string, Coverage> coverage_;
};

// The module of this text, parsed once.
std::shared_ptr<LoadedModule> load_module(const std::string& ptx);
// Those loaded and those embedded in this library, launched or not.
std::vector<std::shared_ptr<LoadedModule>> all_modules();

// Modules inside this library, read when first needed.
using Loader = std::shared_ptr<LoadedModule> (*)(void* embedded);
void add_embedded(Loader loader, void* embedded);
size_t embedded_count();

}  // namespace rnk::emu
