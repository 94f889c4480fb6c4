// Which fp32 channels_last convolutions our own kernels run.
#pragma once

#include "../common/conv_params.h"

namespace rnk::cpu {

bool conv_serves(const ConvShape& shape);
bool conv_wgrad_serves(const ConvShape& shape);

}  // namespace rnk::cpu
