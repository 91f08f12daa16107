// The gradient of a large network near a solution, where that of `reduced.h` is a difference of numbers that agree to most digits: what the
// student and the target have in common cancels in k - k*, and an error of eps is one of eps / sqrt(loss).
//
// The rows of Q span both bases. The network that Galerkin's condition makes of Q,
//
//   W_Q = (Q Q^T)^-1 Q W Q^T,    u_Q = (Q Q^T)^-1 Q u,    v_Q = Q v,
//
// has the impulse response k up to a product of what V and what U leave out, so that it is exact where either misses the digits of a float, and as
// exact as its own numbers are: these have twice the digits, and so have its Gramians, beside the target, by a step of iterative refinement
// (`loss/refined.py`, whose notation this keeps). States are taken back by Q in the digits of a float. Source: Antoulas, Approximation of
// Large-Scale Dynamical Systems, 11 (projections from both sides).

#define REFINES (BITS == 64)
#define SAME 0.1           // what is left of a unit vector that is of rounding alone
#define TAKEN_BACK 1000.0  // of eps: what states and gradients lose in bases; at most 400 in 124 networks

typedef struct {
  Space space;                // the small problem
  Index most, rows;           // of Q there may be, and there are
  REAL *Q, *across;           // Q, and [Q^T | u | v]
  Pair image, overlaps;       // Q W, and Q [Q^T | u | v]
  Pair W, ends[2];            // of the difference of student and target: W, and u and v
  Pair joined, half;          // [W | x / 2], and its product with [X; x^T]
  REAL *both, *inverse;       // [X; x^T], and the transpose of (p + A)^-1
  REAL *more[2], *last, *by;  // what X and Y lack; vectors
  REAL *room;
} Refined;

// Lays out what a refinement needs of bases with up to `most` dimensions, the target's included, or only counts its numbers if `memory` is NULL.
static size_t lay_out_refined(Refined *f, REAL *memory, Index units, Index target_units,
                              Index most) {
  const Index both = 2 * (most - target_units);
  f->most = most = both < units ? both : units;
  size_t used = lay_out(&f->space, memory, units, target_units, most + target_units + 1);
  const Index n = f->space.n, ld = f->space.ld, wide = n > ld ? n : ld;
  struct {
    REAL **where;
    Index numbers;
  } every[] = {
      {&f->Q, most * n},
      {&f->across, n * ld},
      {&f->image.high, most * n},
      {&f->image.low, most * n},
      {&f->overlaps.high, ld * ld},
      {&f->overlaps.low, ld * ld},
      {&f->W.high, ld * ld},
      {&f->W.low, ld * ld},
      {&f->ends[0].high, ld},
      {&f->ends[0].low, ld},
      {&f->ends[1].high, ld},
      {&f->ends[1].low, ld},
      {&f->joined.high, ld * ld},
      {&f->joined.low, ld * ld},
      {&f->half.high, ld * ld},
      {&f->half.low, ld * ld},
      {&f->both, ld * ld},
      {&f->inverse, ld * ld},
      {&f->more[0], ld * ld},
      {&f->more[1], ld * ld},
      {&f->last, ld},
      {&f->by, ld},
      {&f->room, 4 * (most + target_units) * wide + 3 * wide * wide},
  };
  for (size_t i = 0; i < sizeof every / sizeof *every; i++) {
    if (memory) *every[i].where = memory + used;
    used += (size_t)every[i].numbers;
  }
  return used;
}

// The rows of Q: V, and what U adds to it. They are orthonormal to rounding, however little that is.
static void span(const Space *s, Index m, Refined *f) {
  Index n = s->n;
  f->rows = 0;
  for (Index j = 0; j < 2 * m && f->rows < f->most; j++) {
    REAL *x = f->Q + f->rows * n, rest = 0;
    copy(n, x, j < m ? s->V + j * n : s->U + (j - m) * n);
    for (int pass = 0; pass < 3; pass++) {
      dots(f->rows, n, f->Q, n, x, f->last);
      add_rows(f->rows, n, f->Q, n, f->last, -1, x);
      rest = SQRT(dot(n, x, x));
      if (!(rest > (pass > 0 ? (REAL)SAME : 0))) break;
      for (Index i = 0; i < n; i++) x[i] /= rest;
      if (pass == 2) f->rows++;
    }
  }
}

static void project(const Space *s, const Problem *p, Index m, Refined *f) {
  span(s, m, f);
  Index n = s->n, N = p->units, ld = f->space.ld, M = f->rows, count = p->target_units;
  Index width = padded(M + 2, LANES);
  clear(n * ld, f->across);
  for (Index i = 0; i < N; i++) {
    REAL *row = f->across + i * ld;
    for (Index j = 0; j < M; j++) row[j] = f->Q[j * n + i];
    row[M] = p->u[i], row[M + 1] = p->v[i];
  }
  exact_product(M, n, n, f->Q, n, s->W, n, f->image, f->room);
  exact_product(M, width, n, f->Q, n, f->across, ld, f->overlaps, f->room);
  exact_product(M, width, n, f->image.high, n, f->across, ld, f->W, f->room);
  add_product(M, width, n, f->image.low, n, 1, f->across, ld, f->W.low, ld);

  Pair u = f->ends[0], v = f->ends[1], own = f->overlaps;
  for (int left = 0; left < 2; left++) clear(ld, f->ends[left].high), clear(ld, f->ends[left].low);
  REAL *gap = f->joined.high;  // Q Q^T - 1
  clear(M * ld, gap);
  for (Index i = 0; i < M; i++) {
    for (Index j = 0; j < M; j++)
      gap[i * ld + j] = (own.high[i * ld + j] - (i == j)) + own.low[i * ld + j];
    u.high[i] = own.high[i * ld + M], u.low[i] = own.low[i * ld + M];
    v.high[i] = own.high[i * ld + M + 1], v.low[i] = own.low[i * ld + M + 1];
  }
  subtract_product(M, width, M, gap, ld, 1, f->W.high, ld, f->W.low, ld);
  dots(M, width, gap, ld, u.high, f->last);
  for (Index i = 0; i < M; i++) u.low[i] -= f->last[i];

  clear(count * ld, f->W.high + M * ld), clear(count * ld, f->W.low + M * ld);
  for (Index i = 0; i < M; i++)
    clear(ld - M, f->W.high + i * ld + M), clear(ld - M, f->W.low + i * ld + M);
  for (Index i = 0; i < count; i++) {
    copy(count, f->W.high + (M + i) * ld + M, p->target_W + i * count);
    u.high[M + i] = p->target_u[i], v.high[M + i] = -p->target_v[i];
  }
}

// The Gramian of the right or the left system in the digits of a float, symmetric.
static void coarse(Refined *f, Index size, int left, REAL *X, int *reliable) {
  Space *s = &f->space;
  Index ld = s->ld;
  REAL *E = f->inverse;
  clear(size * ld, E);
  for (Index i = 0; i < size; i++) {
    for (Index j = 0; j < size; j++) E[i * ld + j] = -f->W.high[left ? i * ld + j : j * ld + i];
    E[i * ld + i] += 1 + (REAL)SHIFT;
  }
  invert(size, E, ld);
  copy(size * ld, s->E, E);
  copy(ld, s->start, f->ends[left].high);
  clear(size * ld, X);
  gramian(s, size, X, reliable, NULL, NULL);
  for (Index i = 0; i < size; i++)
    for (Index j = 0; j < i; j++)
      X[i * ld + j] = X[j * ld + i] = (X[i * ld + j] + X[j * ld + i]) / 2;
}

// What a Gramian lacks, by the residual of its equation. Returns its share of the Gramian.
static REAL refine(Refined *f, Index size, int left, const REAL *X, REAL *more) {
  Space *s = &f->space;
  Index ld = s->ld, width = padded(size, LANES);
  Pair x = f->ends[left], half = f->half;
  clear(size * ld, f->joined.high), clear(size * ld, f->joined.low);
  for (Index i = 0; i < size; i++) {
    for (Index j = 0; j < size; j++) {
      Index from = left ? j * ld + i : i * ld + j;
      f->joined.high[i * ld + j] = f->W.high[from], f->joined.low[i * ld + j] = f->W.low[from];
    }
    f->joined.high[i * ld + size] = x.high[i] / 2, f->joined.low[i * ld + size] = x.low[i];
  }
  copy(size * ld, f->both, X);
  copy(ld, f->both + size * ld, x.high);
  exact_product(size, width, size + 1, f->joined.high, ld, f->both, ld, half, f->room);
  add_product(size, width, size + 1, f->joined.low, ld, 1, f->both, ld, half.low, ld);

  REAL *R = f->both, *E = s->E;
  for (Index i = 0; i < size; i++)
    for (Index j = 0; j < size; j++) {
      Index here = i * ld + j, there = j * ld + i;
      REAL lost, less;
      REAL sum = sum_exactly(-2 * X[here], half.high[here], &lost);
      sum = sum_exactly(sum, half.high[there], &less);
      R[here] = sum + (lost + less + half.low[here] + half.low[there]);
    }

  // 2p B R B^T and what follows it, where E is B^T
  int reliable;
  product(size, width, size, R, ld, 1, f->inverse, ld, s->T, ld);
  product(size, width, size, f->inverse, 1, ld, s->T, ld, more, ld);
  for (Index i = 0; i < size; i++) {
    for (Index j = 0; j < width; j++) {
      more[i * ld + j] *= 2 * (REAL)SHIFT;
      E[i * ld + j] = 2 * (REAL)SHIFT * f->inverse[i * ld + j];
    }
    E[i * ld + i] -= 1;
  }
  add_steps(s, size, E, s->square, 0, more, &reliable);
  return relative(norm(size, width, more, ld), norm(size, width, X, ld));
}

// C, the gradient in Q from both sides, stays in `right`, those in u and v in `du` and `dv`.
static Found reduce_refined(Refined *f, const Space *bases, const Problem *p, Index m, REAL residual) {
  project(bases, p, m, f);
  Space *s = &f->space;
  Index ld = s->ld, M = f->rows, size = M + p->target_units, width = padded(size + 1, LANES);
  REAL *X = s->X, *Y = s->Y, *C = s->right, share[2];
  Pair u = f->ends[0], v = f->ends[1], half = f->half;
  int reliable[2];
  for (int left = 0; left < 2; left++) {
    coarse(f, size, left, left ? Y : X, reliable + left);
    share[left] = refine(f, size, left, left ? Y : X, f->more[left]);
  }

  // Y [X | u], and X v
  copy(size * ld, f->both, X);
  for (Index i = 0; i < size; i++) f->both[i * ld + size] = u.high[i];
  exact_product(M, width, size, Y, ld, f->both, ld, half, f->room);
  add_product(M, width, size, f->more[1], ld, 1, f->both, ld, half.low, ld);
  copy(size * ld, f->both, f->more[0]);
  for (Index i = 0; i < size; i++) f->both[i * ld + size] = u.low[i];
  add_product(M, width, size, Y, ld, 1, f->both, ld, half.low, ld);
  clear(M * ld, C), clear(ld, s->du), clear(ld, s->dv);
  for (Index i = 0; i < M; i++) {
    for (Index j = 0; j < M; j++) C[i * ld + j] = half.high[i * ld + j] + half.low[i * ld + j];
    s->du[i] = half.high[i * ld + size] + half.low[i * ld + size];
  }
  clear(size * ld, f->both);
  for (Index i = 0; i < size; i++) f->both[i * ld] = v.high[i];
  exact_product(size, LANES, size, X, ld, f->both, ld, half, f->room);
  REAL value = 0, summed = 0;
  dots(size, padded(size, LANES), X, ld, v.low, f->last);
  dots(size, padded(size, LANES), f->more[0], ld, v.high, f->by);
  for (Index i = 0; i < size; i++) {
    REAL response = half.high[i * ld] + (half.low[i * ld] + f->last[i] + f->by[i]);
    value += v.high[i] * response / 2, summed += FABS(v.high[i] * response);
    if (i < M) s->dv[i] = response;
  }

  // in the rows of Q, of the last vector of each basis: its share of the gradient, and of the Gramian
  REAL coupled[2], share_of[2], remote[2], *x = f->last, *image = f->by;
  for (int left = 0; left < 2; left++) {
    const REAL *vector = (left ? bases->U : bases->V) + (m - 1) * s->n;
    clear(ld, x), clear(ld, image);
    dots(M, s->n, f->Q, s->n, vector, x);
    if (left) add_rows(M, padded(M, LANES), C, ld, x, 1, image);
    else dots(M, padded(M, LANES), C, ld, x, image);
    REAL in_end = dot(padded(M, LANES), x, left ? s->du : s->dv);
    share_of[left] = SQRT(squares(1, M, image, ld) + in_end * in_end);
    dots(size, padded(size, LANES), left ? Y : X, ld, x, image);
    remote[left] = norm(1, M, image, ld);
    coupled[left] = (left ? bases->F : bases->H)[(m - 1) * bases->ld + m];
  }
  REAL neglected = coupled[0] * share_of[0] + coupled[1] * share_of[1];
  neglected += coupled[0] * coupled[1] * remote[0] * remote[1];
  if (M == p->units) neglected = 0;  // nothing is left out
  REAL length = SQRT(squares(M, M, C, ld) + squares(1, M, s->du, ld) + squares(1, M, s->dv, ld));
  REAL products = norm(size, size, X, ld) * norm(size, size, Y, ld);
  REAL shares = share[0] * share[0] + share[1] * share[1];
  REAL corrected = shares * norm(size, 1, &v.high[0], 1) * norm(size, 1, &v.high[0], 1) * norm(size, size, X, ld);
  // the loss changes by its derivative in what couples to the bases
  Found found = {.value = value < 0 ? 0 : value, .reliable = reliable[0] && reliable[1]};
  found.truncation[OF_VALUE] = relative((REAL)SAFETY * neglected, found.value);
  found.truncation[OF_GRADIENT] = relative((REAL)SAFETY * neglected, length);
  found.rounding[OF_VALUE] = relative(EPSILON * summed + corrected, found.value);
  found.rounding[OF_GRADIENT] = relative(shares * products, length);
  for (int i = 0; i < ERRORS; i++) found.rounding[i] += TAKEN_BACK * EPSILON + residual;
  return found;
}
