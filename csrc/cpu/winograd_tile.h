// The transforms of F(2x2, 3x3) and F(4x4, 3x3) on native vectors of channels, for one instruction
// set. d patch of the input, g 3x3 filter, m products: y = A' [(G g G') . (B' d B)] A.
RNK_ISA_BEGIN

template <int kSize>
struct Patch {
  FloatVec at[kSize][kSize];
};

// One line each of B' d, A' m and G g.
template <int kOut>
struct WinogradLines;

// Interpolates at 0, 1, -1 and infinity.
template <>
struct WinogradLines<2> {
  // In place; d's stride is `step` vectors.
  RNK_INLINE static void input(FloatVec* v, int step) {
    const FloatVec a = v[0], b = v[step], c = v[2 * step], d = v[3 * step];
    v[0] = a - c;
    v[step] = b + c;
    v[2 * step] = c - b;
    v[3 * step] = b - d;
  }

  RNK_INLINE static void output(const FloatVec (&m)[4], FloatVec (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }

  RNK_INLINE static void filter(FloatVec a, FloatVec b, FloatVec c, FloatVec (&u)[4]) {
    const FloatVec half = splat(0.5f);
    u[0] = a;
    u[1] = (a + c + b) * half;
    u[2] = (a + c - b) * half;
    u[3] = c;
  }

  // What is left to multiply G g G' with at (i, j).
  RNK_INLINE static FloatVec scaled(FloatVec u, int, int) { return u; }
};

// Interpolates at 0, 1, -1, 1/2, -2 and infinity. Of the sets of small powers of two this one has
// the least error: 1/x maps it to its negative, so that neither the first outputs of a tile nor the
// last suffer. With 2 for 1/2 the last have three times the error.
template <>
struct WinogradLines<4> {
  RNK_INLINE static void input(FloatVec* v, int step) {
    const FloatVec a = v[0], b = v[step], c = v[2 * step];
    const FloatVec d = v[3 * step], e = v[4 * step], f = v[5 * step];
    const FloatVec half = splat(0.5f), two = splat(2), more = splat(1.5f);
    const FloatVec odd = d - b, even = e - c;
    const FloatVec first = odd + more * c, second = even + more * d;
    v[0] = (a - c) + even + more * odd;
    v[step] = second + first;
    v[2 * step] = second - first;
    v[3 * step] = even + two * odd;
    v[4 * step] = even - half * odd;
    v[5 * step] = (f - d) - odd + more * even;
  }

  RNK_INLINE static void output(const FloatVec (&m)[6], FloatVec (&y)[4]) {
    const FloatVec sum = m[1] + m[2], difference = m[1] - m[2];
    y[0] = m[0] + sum + m[3] + m[4];
    y[1] = difference + splat(0.5f) * m[3] - splat(2) * m[4];
    y[2] = sum + splat(0.25f) * m[3] + splat(4) * m[4];
    y[3] = difference + splat(0.125f) * m[3] - splat(8) * m[4] + m[5];
  }

  // But for the factors of `scaled`.
  RNK_INLINE static void filter(FloatVec a, FloatVec b, FloatVec c, FloatVec (&u)[6]) {
    const FloatVec sum = a + c;
    u[0] = a;
    u[1] = sum + b;
    u[2] = sum - b;
    u[3] = a + splat(0.5f) * b + splat(0.25f) * c;
    u[4] = a - splat(2) * b + splat(4) * c;
    u[5] = c;
  }

  // The rows of G in these units are 1, 1/3, -1/3, -16/15, 1/15, 1. By thirds and fifths: a
  // multiple of 3 times the float next to 1/3 is exact, and so with 1/9, 1/5 and 1/25, but not
  // with 1/15. Last of all, where no sum can take a product in before it is rounded.
  RNK_INLINE static FloatVec scaled(FloatVec u, int i, int j) {
    constexpr double kThirds[] = {1, 1 / 3.0, -1 / 3.0, -16 / 3.0, 1 / 3.0, 1};
    constexpr double kFifths[] = {1, 1, 1, 0.2, 0.2, 1};
    return u * splat(static_cast<float>(kThirds[i] * kThirds[j])) *
           splat(static_cast<float>(kFifths[i] * kFifths[j]));
  }
};

// B' d B in place.
template <int kOut>
RNK_INLINE void input_transform(Patch<kOut + 2>& d) {
  constexpr int kSize = kOut + 2;
  RNK_UNROLL for (int j = 0; j < kSize; ++j) WinogradLines<kOut>::input(&d.at[0][j], kSize);
  RNK_UNROLL for (int i = 0; i < kSize; ++i) WinogradLines<kOut>::input(&d.at[i][0], 1);
}

// y [kOut][kOut] = A' m A, m read as load(i, j).
template <int kOut, typename Load>
RNK_INLINE void output_transform(const Load& load, FloatVec (&y)[kOut][kOut]) {
  constexpr int kSize = kOut + 2;
  FloatVec rows[kOut][kSize];
  RNK_UNROLL for (int j = 0; j < kSize; ++j) {
    FloatVec m[kSize], column[kOut];
    RNK_UNROLL for (int i = 0; i < kSize; ++i) m[i] = load(i, j);
    WinogradLines<kOut>::output(m, column);
    RNK_UNROLL for (int i = 0; i < kOut; ++i) rows[i][j] = column[i];
  }
  RNK_UNROLL for (int i = 0; i < kOut; ++i) WinogradLines<kOut>::output(rows[i], y[i]);
}

// G g G'.
template <int kOut>
RNK_INLINE Patch<kOut + 2> filter_transform(const FloatVec (&g)[3][3]) {
  constexpr int kSize = kOut + 2;
  FloatVec rows[kSize][3];
  RNK_UNROLL for (int j = 0; j < 3; ++j) {
    FloatVec u[kSize];
    WinogradLines<kOut>::filter(g[0][j], g[1][j], g[2][j], u);
    RNK_UNROLL for (int i = 0; i < kSize; ++i) rows[i][j] = u[i];
  }
  Patch<kSize> u;
  RNK_UNROLL for (int i = 0; i < kSize; ++i) {
    WinogradLines<kOut>::filter(rows[i][0], rows[i][1], rows[i][2], u.at[i]);
    RNK_UNROLL for (int j = 0; j < kSize; ++j) {
      u.at[i][j] = WinogradLines<kOut>::scaled(u.at[i][j], i, j);
    }
  }
  return u;
}

// A dy A' of F(2x2, 3x3): 2x2 gradients of the outputs to 4x4 of the products.
RNK_INLINE Patch<4> gradient_transform(const FloatVec (&dy)[2][2]) {
  FloatVec rows[4][2];
  RNK_UNROLL for (int j = 0; j < 2; ++j) {
    rows[0][j] = dy[0][j];
    rows[1][j] = dy[0][j] + dy[1][j];
    rows[2][j] = dy[0][j] - dy[1][j];
    rows[3][j] = -dy[1][j];
  }
  Patch<4> d;
  RNK_UNROLL for (int i = 0; i < 4; ++i) {
    d.at[i][0] = rows[i][0];
    d.at[i][1] = rows[i][0] + rows[i][1];
    d.at[i][2] = rows[i][0] - rows[i][1];
    d.at[i][3] = -rows[i][1];
  }
  return d;
}

// G' u: a line of 4 to one of 3.
RNK_INLINE void filter_gradient_line(FloatVec a, FloatVec b, FloatVec c, FloatVec d,
                                     FloatVec (&g)[3]) {
  const FloatVec half = splat(0.5f);
  g[0] = a + (b + c) * half;
  g[1] = (b - c) * half;
  g[2] = (b + c) * half + d;
}

// G' u G: the gradient of the filter from that of the transformed one.
RNK_INLINE void filter_gradient(const Patch<4>& u, FloatVec (&g)[3][3]) {
  FloatVec rows[3][4];
  RNK_UNROLL for (int j = 0; j < 4; ++j) {
    FloatVec line[3];
    filter_gradient_line(u.at[0][j], u.at[1][j], u.at[2][j], u.at[3][j], line);
    RNK_UNROLL for (int i = 0; i < 3; ++i) rows[i][j] = line[i];
  }
  RNK_UNROLL for (int i = 0; i < 3; ++i) {
    filter_gradient_line(rows[i][0], rows[i][1], rows[i][2], rows[i][3], g[i]);
  }
}

RNK_ISA_END
