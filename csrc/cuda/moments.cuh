// Count, mean and M2 = sum (x - mean)^2 of disjoint sets, merged by Chan's formula. A mean is the
// sum of `mean` and a small `low`: rounded to one number, the means of many small parts of data far
// from zero would cost M2 most of its digits.
#pragma once

namespace rnk::cuda {

template <typename T>
struct Moments {
  T mean, low, m2;

  // share: of the other's count in both; weight: the product of the counts over their sum.
  __device__ void merge(const Moments& other, T share, T weight) {
    const T delta = (other.mean - mean) + (other.low - low);
    m2 += other.m2 + delta * delta * weight;
    const T moved = low + delta * share, sum = mean + moved;
    low = moved - (sum - mean);
    mean = sum;
  }
};

}  // namespace rnk::cuda
