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

// With groups, oneDNN takes 0.3 to 1 of our time (ResNeXt's and MobileNet's layers, EPYC 9004).
bool serves(const ConvShape& shape, DType dtype, bool bf16_faster) {
  if (dtype == DType::kFloat32) return chosen(shape.groups == 1);
  return dtype == DType::kBFloat16 && shape.groups == 1 && chosen(bf16_faster);
}

}  // namespace

bool conv_fwd_serves(const ConvShape& shape, DType dtype) { return serves(shape, dtype, true); }

// A gradient of 3 channels fills a tenth of the register tile: 2.2 times torch's time.
bool conv_dgrad_serves(const ConvShape& shape, DType dtype) {
  return serves(shape, dtype, true) && (shape.c >= 8 || chosen(false));
}

bool conv_wgrad_serves(const ConvShape& shape, DType dtype) { return serves(shape, dtype, true); }

}  // namespace rnk::cpu
