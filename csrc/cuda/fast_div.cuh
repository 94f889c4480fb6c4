// Division of small unsigned integers by a divisor that the host knows: a multiplication and a
// shift (Granlund and Montgomery 1994).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace rnk::cuda {

// Divides values below 2^31.
class FastDiv {
 public:
  FastDiv() = default;
  __host__ explicit FastDiv(uint32_t divisor) : divisor_(divisor) {
    while ((uint64_t{1} << shift_) < divisor) ++shift_;
    multiplier_ =
        static_cast<uint32_t>((uint64_t{1} << 32) * ((uint64_t{1} << shift_) - divisor) / divisor) +
        1;
  }

  __device__ uint32_t divide(uint32_t n) const { return (__umulhi(n, multiplier_) + n) >> shift_; }

  // n = quotient * divisor + the returned remainder.
  __device__ uint32_t divide(uint32_t n, uint32_t& remainder) const {
    const uint32_t quotient = divide(n);
    remainder = n - quotient * divisor_;
    return quotient;
  }

  __device__ uint32_t divisor() const { return divisor_; }

 private:
  uint32_t divisor_ = 1, multiplier_ = 1, shift_ = 0;
};

}  // namespace rnk::cuda
