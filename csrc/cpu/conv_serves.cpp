#include "conv_serves.h"

#include "winograd.h"

namespace rnk::cpu {

bool conv_serves(const ConvShape& shape) { return winograd_serves(shape); }

bool conv_wgrad_serves(const ConvShape& shape) { return winograd_wgrad_serves(shape); }

}  // namespace rnk::cpu
