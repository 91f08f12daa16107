// Student and target side by side in balanced units, and one panel of time: `model/balancing.py`
// and `loss/panels.py`, whose notation this keeps, say why.

enum { NODES = NUM_NODES, DEGREE = LARGEST_DEGREE, PANEL_ROWS = DEGREE + 4 };

static const double NODE[NODES] = GAUSS_NODES, WEIGHT[NODES] = GAUSS_WEIGHTS;

// What one network after the other is computed in: square matrices of n rows, the units of both
// padded with zeros.
typedef struct {
  Index units, n;
  REAL *W, *F, *transposed, *next, *P, *Q, *T;
  REAL *columns[2], *powers[2];  // rows of n
  REAL *u, *v, *units_of_state, *row, *remote, *gets, *gives, *by_u, *by_v;
} Dense;

// Lays out a space in `memory`, or only counts its numbers if that is NULL.
static size_t lay_out_dense(Dense *s, REAL *memory, Index units) {
  Index n = padded(units, ROWS), most = n > NODES ? 2 * n : 2 * NODES;
  size_t used = 0;
  *s = (Dense){.units = units, .n = n};
  struct {
    REAL **where;
    Index rows;
  } every[] = {
      {&s->W, n},
      {&s->F, n},
      {&s->transposed, n},
      {&s->next, n},
      {&s->P, n},
      {&s->Q, n},
      {&s->T, n},
      {&s->columns[0], most},
      {&s->columns[1], most},
      {&s->powers[0], PANEL_ROWS},
      {&s->powers[1], PANEL_ROWS},
      {&s->u, 1},
      {&s->v, 1},
      {&s->units_of_state, 1},
      {&s->row, 1},
      {&s->remote, 1},
      {&s->gets, 1},
      {&s->gives, 1},
      {&s->by_u, 1},
      {&s->by_v, 1},
  };
  for (size_t i = 0; i < sizeof every / sizeof *every; i++) {
    if (memory) *every[i].where = memory + used;
    used += (size_t)(every[i].rows * n);
  }
  return used;
}

static void square_product(const Dense *s, const REAL *A, const REAL *B, REAL *C) {
  product(s->units, s->n, s->units, A, s->n, 1, B, s->n, C, s->n);
}

static void transpose(const Dense *s, const REAL *from, REAL *to) {
  for (Index i = 0; i < s->n; i++)
    for (Index j = 0; j < s->n; j++) to[j * s->n + i] = from[i * s->n + j];
}

static REAL size_of(const Dense *s, const REAL *x) { return norm(s->units, s->n, x, s->n); }

// Student and target of reversed sign side by side. Returns whether every parameter is finite.
static int assemble(Dense *s, const Problem *p) {
  Index N = p->units, count = p->target_units, n = s->n;
  REAL sum = 0;
  clear(n * n, s->W), clear(n, s->u), clear(n, s->v);
  for (Index i = 0; i < N; i++) copy(N, s->W + i * n, p->W + i * N);
  for (Index i = 0; i < count; i++) copy(count, s->W + (N + i) * n + N, p->target_W + i * count);
  copy(N, s->u, p->u), copy(count, s->u + N, p->target_u);
  copy(N, s->v, p->v);
  for (Index i = 0; i < count; i++) s->v[N + i] = -p->target_v[i];
  for (Index i = 0; i < n * n; i++) sum += 0 * s->W[i];
  for (Index i = 0; i < n; i++) sum += 0 * (s->u[i] + s->v[i]);
  return sum == 0;
}

// Perron vectors x and y of the scaled couplings Z as sums over paths, in `gets` and `gives`; none
// if they are equal anyway.
static int perron_vectors(Dense *s, REAL *Z, REAL *next) {
  Index N = s->units, n = s->n;
  REAL largest = 0;
  for (Index i = 0; i < N; i++) largest = FMAX(largest, FABS(1 - s->W[i * n + i]));
  for (Index i = 0; i < N; i++)
    s->row[i] = SQRT(FMAX(FABS(1 - s->W[i * n + i]), (REAL)SMALLEST_RATE * largest));
  clear(n * n, Z), clear(n, s->gets), clear(n, s->gives);
  for (Index i = 0; i < N; i++)
    for (Index j = 0; j < N; j++) {
      if (i == j) continue;
      REAL z = FABS(s->W[i * n + j]) / (s->row[i] * s->row[j]);
      Z[i * n + j] = z, s->gets[i] += z, s->gives[j] += z;
    }
  const REAL most = N < FEW ? (REAL)LARGEST_RATIO_OF_FEW : (REAL)LARGEST_RATIO;
  int unequal = 0;
  for (Index i = 0; i < N; i++)
    unequal |= FMAX(s->gets[i], s->gives[i]) > most * FMIN(s->gets[i], s->gives[i]);
  if (!unequal) return 0;
  for (Index i = 0; i < N; i++) s->gets[i] = s->gives[i] = 1;
  for (Index covered = 1; covered <= 2 * N; covered *= 2) {
    REAL *x = s->row, *y = s->remote, trace = 0, most_x = 0, most_y = 0;
    copy(n, x, s->gets), copy(n, y, s->gives);
    both_products(n, n, Z, n, s->gets, x, s->gives, y);
    square_product(s, Z, Z, next);
    for (Index i = 0; i < N; i++) {
      trace += next[i * n + i];
      most_x = FMAX(most_x, x[i]), most_y = FMAX(most_y, y[i]);
    }
    const REAL scale = FMAX(trace / (REAL)N, 1);
    for (Index i = 0; i < N * n; i++) next[i] /= scale;
    for (Index i = 0; i < N; i++) s->gets[i] = x[i] / most_x, s->gives[i] = y[i] / most_y;
    REAL *swap = Z;
    Z = next, next = swap;
  }
  return 1;
}

// Balanced units of the state, powers of two, and the network in them.
static void balance(Dense *s) {
  Index N = s->units, n = s->n;
  REAL *d = s->units_of_state, mean = 0;
  const REAL limit = LARGEST_EXPONENT;
  for (Index i = 0; i < n; i++) d[i] = 1;
  if (!perron_vectors(s, s->F, s->next)) return;
  for (Index i = 0; i < N; i++) {
    REAL exponent = rint(log2(s->gives[i] / s->gets[i]) / 2);
    if (isnan(exponent)) exponent = 0;
    s->row[i] = FMAX(-limit, FMIN(exponent, limit)), mean += s->row[i];
  }
  mean = rint(mean / (REAL)N);
  for (Index i = 0; i < N; i++) d[i] = ldexp(1, (int)(s->row[i] - mean));
  for (Index i = 0; i < N; i++) {
    s->u[i] *= d[i], s->v[i] /= d[i];
    for (Index j = 0; j < N; j++) s->W[i * n + j] *= d[i] / d[j];
  }
}

// The longest panel that is exact: `panels.longest_panel`.
static REAL longest_panel(Dense *s) {
  square_product(s, s->W, s->W, s->P);
  square_product(s, s->P, s->P, s->T);
  const REAL rate = SQRT(SQRT(size_of(s, s->T)));
  return FMIN(1 / rate, (REAL)1.5 / (1 + rate));
}

// B = -A h.
static void generator(const Dense *s, REAL h, REAL *B) {
  Index N = s->units, n = s->n;
  clear(n * n, B);
  for (Index i = 0; i < N; i++)
    for (Index j = 0; j < N; j++) B[i * n + j] = h * (s->W[i * n + j] - (i == j));
}

// One panel: F = e^{-Ah} - 1 by a Taylor series, and the samples of both states at Gauss-Legendre
// nodes as rows of `columns`.
static void first_panel(Dense *s) {
  Index N = s->units, n = s->n;
  REAL *B = s->transposed, *B2 = s->P, *B3 = s->Q, *B4 = s->T, *sum = s->next, *other = s->F;
  const REAL h = longest_panel(s);
  generator(s, h, B);
  square_product(s, B, B, B2);
  square_product(s, B2, B, B3);
  square_product(s, B2, B2, B4);

  double factorial[PANEL_ROWS + 1] = {1};
  for (int k = 1; k <= PANEL_ROWS; k++) factorial[k] = k * factorial[k - 1];
  clear(n * n, sum), clear(n * n, other);
  for (Index i = 0; i < N * n; i++) sum[i] = B4[i] / (REAL)factorial[DEGREE];
  for (int low = DEGREE - 4; low >= 0; low -= 4) {
    if (low < DEGREE - 4) {
      square_product(s, sum, B4, other);
      REAL *swap = sum;
      sum = other, other = swap;
    }
    for (Index i = 0; i < N * n; i++)
      sum[i] += B[i] / (REAL)factorial[low + 1] + B2[i] / (REAL)factorial[low + 2] +
                B3[i] / (REAL)factorial[low + 3];
    for (Index i = 0; i < N && low; i++) sum[i * n + i] += 1 / (REAL)factorial[low];
  }
  if (sum != s->F) copy(n * n, s->F, sum);

  REAL *const *K = s->powers;
  clear(PANEL_ROWS * n, K[0]), clear(PANEL_ROWS * n, K[1]);
  copy(n, K[0], s->u), copy(n, K[1], s->v);
  for (int k = 0; k + 1 < PANEL_ROWS; k++)
    both_products(n, n, B, n, K[0] + k * n, K[0] + (k + 1) * n, K[1] + k * n, K[1] + (k + 1) * n);
  REAL taylor[NODES * PANEL_ROWS];
  for (int j = 0; j < NODES; j++)
    for (int k = 0; k < PANEL_ROWS; k++)
      taylor[j * PANEL_ROWS + k] =
          (REAL)(pow(NODE[j], k) / factorial[k] * sqrt(WEIGHT[j] * (double)h));
  for (int side = 0; side < 2; side++)
    product(NODES, n, PANEL_ROWS, taylor, PANEL_ROWS, 1, K[side], n, s->columns[side], n);
}
