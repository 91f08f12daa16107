// One step of iterative refinement of a gradient that has cancelled near a solution.
//
// Residuals of both Lyapunov equations, and the last products, have the digits of a long double:
//
//     R = u u^T - A P - P A^T,    A dP + dP A^T = R,    (Q + dQ) (P + dP),    and so on
//
// A correction is a sum over steps h, to the leading order in h A, which is SHARE_OF_CHANGE of it:
//
//     dP = h (R / 2 + E R E^T + E^2 R (E^2)^T + ...),    E = e^{-Ah}
//
// Source: Higham, Accuracy and Stability of Numerical Algorithms, 12.

// Where a long double has more digits; steps are this much shorter than a panel.
enum { REFINES = BITS == 64 && LDBL_MANT_DIG > DBL_MANT_DIG, SHORTER = 16 };
#define SHARE_OF_CHANGE 0.01

#define ENTRIES(i, j)                  \
  for (Index i = 0; i < s->units; i++) \
    for (Index j = 0; j < s->units; j++)

typedef long double Long;

static Long long_dot(Index count, const REAL *x, const REAL *y) {
  Long even = 0, odd = 0;
  Index k = 0;
  for (; k + 2 <= count; k += 2) even += (Long)x[k] * y[k], odd += (Long)x[k + 1] * y[k + 1];
  if (k < count) even += (Long)x[k] * y[k];
  return even + odd;
}

// R = x x^T - A G - G A^T of a symmetric G.
static void lyapunov_residual(const Dense *s, const REAL *W, const REAL *x, const REAL *G,
                              REAL *R) {
  Index N = s->units, n = s->n;
  for (Index i = 0; i < N; i++)
    for (Index j = 0; j <= i; j++) {
      const REAL *by_i = G + i * n, *by_j = G + j * n;
      Long sum = (Long)x[i] * x[j] - 2 * (Long)G[i * n + j];
      sum += long_dot(N, W + i * n, by_j) + long_dot(N, by_i, W + j * n);
      R[i * n + j] = R[j * n + i] = (REAL)sum;
    }
}

// The gradient goes to T, by_u and by_v.
static void refine(Dense *s) {
  Index N = s->units, n = s->n;
  REAL *G[2] = {s->columns[0], s->columns[1]}, *R[2] = {G[0] + n * n, G[1] + n * n};
  REAL *const X[2] = {s->P, s->Q}, *const ends[2] = {s->u, s->v};
  for (int side = 0; side < 2; side++)
    ENTRIES(i, j) G[side][i * n + j] = (X[side][i * n + j] + X[side][j * n + i]) / 2;
  const REAL h = longest_panel(s) / SHORTER;
  transpose(s, s->W, s->transposed);
  for (int side = 0; side < 2; side++) {
    lyapunov_residual(s, side ? s->transposed : s->W, ends[side], G[side], R[side]);
    copy(n * n, X[side], R[side]);
  }

  // F = e^{-Ah} - 1 to the fourth power of Ah
  generator(s, h, s->transposed);
  copy(n * n, s->F, s->transposed);
  for (int k = 4; k > 1; k--) {
    square_product(s, s->F, s->transposed, s->next);
    ENTRIES(i, j) s->F[i * n + j] = s->transposed[i * n + j] + s->next[i * n + j] / (REAL)k;
  }
  const REAL tolerance = SQRT(SQRT(EPSILON));
  Propagator E = measured(s, 1);
  for (int more = 1; more;) {
    more = E.returned > tolerance;
    double_gramians(s, E.offset), square_propagator(s, E.offset), E = measured(s, E.offset);
  }
  for (int side = 0; side < 2; side++)
    ENTRIES(i, j) X[side][i * n + j] = h * (X[side][i * n + j] - R[side][i * n + j] / 2);

  // (Q + dQ) (P + dP), (Q + dQ) u, (P + dP) v
  square_product(s, G[1], s->P, s->T);
  add_product(N, n, N, s->Q, n, 1, G[0], n, s->T, n);
  ENTRIES(i, j) s->T[i * n + j] += (REAL)long_dot(N, G[1] + i * n, G[0] + j * n);
  for (Index i = 0; i < N; i++) {
    s->by_u[i] = (REAL)(long_dot(N, G[1] + i * n, s->u) + dot(n, s->Q + i * n, s->u));
    s->by_v[i] = (REAL)(long_dot(N, G[0] + i * n, s->v) + dot(n, s->P + i * n, s->v));
  }
}
