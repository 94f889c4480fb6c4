// The one exception type of the emulator: what went wrong (kind) and a message for a person.
#pragma once
#include <stdexcept>
#include <string>

namespace rnk::emu {

// kind is one of: parse, unsupported, argument, out_of_bounds, misaligned, uninitialised, barrier,
// async_copy, race, budget, trap, assertion.
class Error : public std::runtime_error {
 public:
  Error(std::string kind, const std::string& message)
      : std::runtime_error(message), kind_(std::move(kind)) {}
  const std::string& kind() const { return kind_; }

 private:
  std::string kind_;
};

// Raised inside an instruction; the block scheduler adds kernel, block, thread and PTX line.
struct Fault {
  const char* kind;
  std::string message;
  int lane;  // -1: the whole warp
};

}  // namespace rnk::emu
