#include "matrix_math.h"

#include <cmath>

namespace rnk::emu {

void multiply_add(const double* a, const double* b, double* c, int m, int n, int k, Type d) {
  if (d == Type::kF64) {
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j)
        for (int l = 0; l < k; ++l)
          c[i * n + j] = std::fma(a[i * k + l], b[l * n + j], c[i * n + j]);
    return;
  }
  for (int i = 0; i < m; ++i)
    for (int l = 0; l < k; ++l)
      for (int j = 0; j < n; ++j) c[i * n + j] += a[i * k + l] * b[l * n + j];
}

}  // namespace rnk::emu
