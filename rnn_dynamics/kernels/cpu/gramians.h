// Loss and gradient by doubling in time, which proves stability: `loss/energy.py`, whose notation
// this keeps, says why.

// Samples of the response cover up to MOST_PANELS; beyond, a loss that has cancelled has the error
// of a quadratic form.
enum { MOST_PANELS = 4096 };

// What rounding does to the value and to the norm of the gradient: `doubling.rounding_errors`.
static void rounding_errors(const Dense *s, REAL growth, REAL panels, REAL sampled, REAL energy,
                            REAL tail, REAL *errors) {
  Index N = s->units, n = s->n;
  REAL by_p = 0, by_q = 0, both = 0, u = 0, v = 0;
  for (Index i = 0; i < N; i++) {
    const REAL d = s->units_of_state[i];
    const REAL p = SQRT(positive(s->P[i * n + i])) / d, q = SQRT(positive(s->Q[i * n + i])) * d;
    by_p += p * p, by_q += q * q, both += p * q;
    u += q * FABS(s->u[i] / d), v += p * FABS(s->v[i] * d);
  }
  const REAL eps = EPSILON * FMAX(growth, 1) * FMAX(growth, 1);
  const REAL rounding = ((REAL)ROUNDING_AT_ONCE + (REAL)ROUNDING_BY_PANEL * panels) * eps;
  const REAL samples = ((REAL)ROUNDING_AT_ONCE + (REAL)ROUNDING_BY_PANEL * sampled) * eps * v;
  by_p = SQRT(by_p), by_q = SQRT(by_q);
  const REAL by_W = by_p * by_q * both, by_u = by_q * u, by_v = by_p * v;
  errors[OF_VALUE] = samples * (SQRT(2 * energy) + samples) + rounding * tail;
  errors[OF_GRADIENT] = rounding * SQRT(by_W * by_W + by_u * by_u + by_v * by_v);
}

static REAL norm_of(const Results *out, Index N) {
  return SQRT(squares(N, N, out->W, N) + squares(1, N, out->u, N) + squares(1, N, out->v, N));
}

// Gives out the gradient in T, by_u and by_v, in the units of the caller. Returns the norm of what
// it changes.
static REAL give_out(const Dense *s, Index N, const Results *out) {
  const REAL *d = s->units_of_state;
  REAL changed = 0;
  for (Index i = 0; i < N; i++) {
    REAL *const to[2] = {out->u + i, out->v + i};
    const REAL found[2] = {s->by_u[i] * d[i], s->by_v[i] / d[i]};
    for (int side = 0; side < 2; side++) {
      changed += (found[side] - *to[side]) * (found[side] - *to[side]);
      *to[side] = found[side];
    }
    for (Index j = 0; j < N; j++) {
      const REAL entry = s->T[i * s->n + j] * d[i] / d[j], gap = entry - out->W[i * N + j];
      changed += gap * gap;
      out->W[i * N + j] = entry;
    }
  }
  return SQRT(changed);
}

// The loss, its gradient and what rounding does to both; a network that is not proven to be stable
// has a loss of infinity or NaN.
static void compute_dense(Dense *s, const Problem *p, int refines, const Results *out) {
  Index N = s->units, n = s->n;
  if (!assemble(s, p)) {
    no_result(p, out, NAN, NAN);
    return;
  }
  balance(s);
  first_panel(s);

  // columns of P = X X^T and Q = Z Z^T, as long as they are few
  Index have = NODES;
  REAL panels = 1;
  for (; 4 * have <= 3 * N; have *= 2, panels *= 2) {
    transpose(s, s->F, s->transposed);
    for (int side = 0; side < 2; side++) {
      REAL *x = s->columns[side];
      product(have, n, N, x, n, 1, side ? s->F : s->transposed, n, x + have * n, n);
      for (Index i = 0; i < have * n; i++) x[have * n + i] += x[i];
    }
    square_propagator(s, 1);
  }
  for (int side = 0; side < 2; side++) {
    const REAL *x = s->columns[side];
    product(N, n, have, x, 1, n, x, n, side ? s->Q : s->P, n);
  }

  // rows v^T e^{-At} at the starts of blocks as long as X give samples of k(t), until it is
  // forgotten
  const REAL tolerance = SQRT(SQRT(EPSILON));
  REAL energy = 0, covered = 0, first = tolerance * norm(1, n, s->v, n);
  copy(n, s->remote, s->v);
  for (; covered < MOST_PANELS; covered += panels) {
    if (covered >= NUM_PANELS && norm(1, n, s->remote, n) <= first) break;
    for (Index j = 0; j < have; j++) {
      const REAL sample = dot(n, s->remote, s->columns[0] + j * n);
      energy += sample * sample;
    }
    copy(n, s->row, s->remote);
    add_rows(N, n, s->F, n, s->row, 1, s->remote);
  }

  Propagator E = measured(s, 1);
  REAL rounding = panels * spoiled(s, E.size), growth = E.size;
  int stable = E.size <= tolerance && rounding < (REAL)MOST_ROUNDING;
  while (stable ? E.returned > tolerance : rounding < (REAL)MOST_ROUNDING) {
    const REAL before = E.size;
    double_gramians(s, E.offset);
    square_propagator(s, E.offset);
    E = measured(s, E.offset);
    rounding = 2 * rounding + spoiled(s, before);
    growth = FMAX(growth, E.size), panels *= 2;
    stable |= E.size <= tolerance && rounding < (REAL)MOST_ROUNDING;
  }
  double_gramians(s, E.offset), panels *= 2;
  if (!stable) {
    const int unstable = grows(s);
    no_result(p, out, unstable ? INFINITY : NAN, unstable ? NAN : INFINITY);
    return;
  }

  REAL tail = 0, left = 0;
  dots(n, n, s->P, n, s->remote, s->row);
  for (Index i = 0; i < N; i++) {
    left += s->remote[i] * s->row[i];
    tail += FABS(s->remote[i]) * SQRT(positive(s->P[i * n + i]));
  }
  energy = (energy + positive(left)) / 2, tail = tail * tail / 2;

  REAL lost[ERRORS];
  rounding_errors(s, growth / SQRT((REAL)N), panels, covered, energy, tail, lost);
  square_product(s, s->Q, s->P, s->T);
  dots(n, n, s->Q, n, s->u, s->by_u), dots(n, n, s->P, n, s->v, s->by_v);
  Index own = p->units;
  give_out(s, own, out);
  if (refines && REFINES && lost[OF_GRADIENT] > (REAL)MOST_ERROR * norm_of(out, own)) {
    refine(s);
    const REAL rest = (REAL)(LDBL_EPSILON / EPSILON) * lost[OF_GRADIENT];
    lost[OF_GRADIENT] = rest + (REAL)SHARE_OF_CHANGE * give_out(s, own, out);
    lost[OF_GRADIENT] += EPSILON * norm_of(out, own);
  }
  *out->value = energy;
  out->errors[OF_VALUE] = relative(lost[OF_VALUE], energy);
  out->errors[OF_GRADIENT] = relative(lost[OF_GRADIENT], norm_of(out, own));
}
