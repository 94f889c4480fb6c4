// The transforms of F(2x2, 3x3) on native vectors of channels, for one instruction set.
// d 4x4 input, g 3x3 filter, m 4x4 products: y = A' [(G g G') . (B' d B)] A.
RNK_ISA_BEGIN

struct Patch {
  FloatVec at[4][4];
};

// B' v: v's stride is `step` vectors.
RNK_INLINE void input_transform_line(FloatVec* v, int step) {
  const FloatVec a = v[0], b = v[step], c = v[2 * step], d = v[3 * step];
  v[0] = a - c;
  v[step] = b + c;
  v[2 * step] = c - b;
  v[3 * step] = b - d;
}

// B' d B in place.
RNK_INLINE void input_transform(Patch& d) {
  RNK_UNROLL for (int j = 0; j < 4; ++j) input_transform_line(&d.at[0][j], 4);
  RNK_UNROLL for (int i = 0; i < 4; ++i) input_transform_line(&d.at[i][0], 1);
}

// y [2][2] = A' m A, m read as load(i, j).
template <typename Load>
RNK_INLINE void output_transform(const Load& load, FloatVec (&y)[2][2]) {
  FloatVec rows[2][4];
  RNK_UNROLL for (int j = 0; j < 4; ++j) {
    const FloatVec a = load(0, j), b = load(1, j), c = load(2, j), d = load(3, j);
    rows[0][j] = a + b + c;
    rows[1][j] = b - c - d;
  }
  RNK_UNROLL for (int i = 0; i < 2; ++i) {
    y[i][0] = rows[i][0] + rows[i][1] + rows[i][2];
    y[i][1] = rows[i][1] - rows[i][2] - rows[i][3];
  }
}

// G g: a line of 3 to one of 4.
RNK_INLINE void filter_transform_line(FloatVec a, FloatVec b, FloatVec c, FloatVec (&u)[4]) {
  const FloatVec half = splat(0.5f);
  u[0] = a;
  u[1] = (a + c + b) * half;
  u[2] = (a + c - b) * half;
  u[3] = c;
}

// G g G'.
RNK_INLINE Patch filter_transform(const FloatVec (&g)[3][3]) {
  FloatVec rows[4][3];
  RNK_UNROLL for (int j = 0; j < 3; ++j) {
    FloatVec u[4];
    filter_transform_line(g[0][j], g[1][j], g[2][j], u);
    RNK_UNROLL for (int i = 0; i < 4; ++i) rows[i][j] = u[i];
  }
  Patch u;
  RNK_UNROLL for (int i = 0; i < 4; ++i) {
    filter_transform_line(rows[i][0], rows[i][1], rows[i][2], u.at[i]);
  }
  return u;
}

// A dy A': 2x2 gradients of the outputs to 4x4 of the products.
RNK_INLINE Patch gradient_transform(const FloatVec (&dy)[2][2]) {
  FloatVec rows[4][2];
  RNK_UNROLL for (int j = 0; j < 2; ++j) {
    rows[0][j] = dy[0][j];
    rows[1][j] = dy[0][j] + dy[1][j];
    rows[2][j] = dy[0][j] - dy[1][j];
    rows[3][j] = -dy[1][j];
  }
  Patch d;
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
RNK_INLINE void filter_gradient(const Patch& u, FloatVec (&g)[3][3]) {
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
