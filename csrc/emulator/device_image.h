// The module's .global and .const variables in host memory, shared by all launches of a module.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "module.h"

namespace rnk::emu {

class DeviceImage {
 public:
  explicit DeviceImage(const Module& module);
  // nullptr when the module has no such variable.
  char* find(const std::string& name) const;
  struct Span {
    std::string name;
    char* base;
    size_t bytes;
    bool read_only;
  };
  const std::vector<Span>& spans() const { return spans_; }

 private:
  std::vector<std::unique_ptr<char[]>> storage_;
  std::vector<Span> spans_;
  std::unordered_map<std::string, char*> index_;
};

}  // namespace rnk::emu
