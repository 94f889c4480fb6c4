#include "conv_serves.h"

#include <cstdlib>
#include <cstring>

namespace rnk::cpu {
namespace {

// The environment's choice, or `otherwise`. Read at every call, so that a process can compare.
bool chosen(bool otherwise) {
  const char* choice = std::getenv("RNK_CPU_CONV");
  if (choice == nullptr) return otherwise;
  if (std::strcmp(choice, "own") == 0) return true;
  return std::strcmp(choice, "torch") != 0 && otherwise;
}

}  // namespace

// With groups, oneDNN takes 0.3 to 1 of our time (ResNeXt's and MobileNet's layers, EPYC 9004).
bool conv_serves(const ConvShape& shape) { return chosen(shape.groups == 1); }

// A gradient of 3 channels fills a tenth of the register tile: 2.2 times torch's time.
bool conv_dgrad_serves(const ConvShape& shape) { return chosen(shape.groups == 1 && shape.c >= 8); }

}  // namespace rnk::cpu
