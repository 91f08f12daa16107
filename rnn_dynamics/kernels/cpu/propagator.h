// The Gramians P and Q of covered time by doubling, with E = e^{-At} at its end.

// The propagator E = F + offset over the panels that are covered; an entry of E that is near 1
// keeps its digits with an offset of 1.
typedef struct {
  REAL offset, size, returned;  // norms of E in balanced units, and in those of the caller
} Propagator;

static Propagator measured(Dense *s, REAL offset) {
  Index N = s->units, n = s->n;
  const REAL *d = s->units_of_state;
  REAL largest = 0, sum = 0, returned = 0;
  for (Index i = 0; i < N; i++)
    for (Index j = 0; j < N; j++) {
      REAL entry = s->F[i * n + j] + (i == j ? offset : 0), ratio = d[j] / d[i];
      largest = FMAX(largest, FABS(entry)), sum += entry * entry;
      returned += entry * entry * ratio * ratio;
    }
  if (offset != 0 && !(largest > (REAL)0.5)) {
    for (Index i = 0; i < N; i++) s->F[i * n + i] += offset;
    offset = 0;
  }
  return (Propagator){offset, SQRT(sum), SQRT(returned)};
}

// G += E G E^T - of the transposed of F, for Q - by T = G F^T.
static void add_image(Dense *s, REAL offset, const REAL *F, const REAL *F_transposed, REAL *G) {
  Index N = s->units, n = s->n;
  square_product(s, G, F_transposed, s->T);
  for (Index i = 0; i < N && offset != 0; i++)
    for (Index j = 0; j <= i; j++) {
      const REAL mixed = s->T[i * n + j] + s->T[j * n + i];
      G[i * n + j] = G[j * n + i] = 2 * G[i * n + j] + mixed;
    }
  add_product(N, n, N, F, n, 1, s->T, n, G, n);
}

static void double_gramians(Dense *s, REAL offset) {
  transpose(s, s->F, s->transposed);
  add_image(s, offset, s->F, s->transposed, s->P);
  add_image(s, offset, s->transposed, s->F, s->Q);
}

// F of E^2, with the same offset.
static void square_propagator(Dense *s, REAL offset) {
  square_product(s, s->F, s->F, s->next);
  for (Index i = 0; i < s->units * s->n; i++) s->F[i] = 2 * offset * s->F[i] + s->next[i];
}

static REAL spoiled(const Dense *s, REAL size) {
  return EPSILON * size * size * FMAX(size / SQRT((REAL)s->units), 1);
}

// Whether the spectral radius of E = 1 + F of one panel is above 1 by more than rounding can have
// caused.
static int grows(Dense *s) {
  Index N = s->units, n = s->n;
  REAL *E = s->F, *next = s->next, length = 1, spread = 1, rate = 0;
  first_panel(s);
  for (Index i = 0; i < N; i++) E[i * n + i] += 1;
  REAL size = size_of(s, E);
  rate = LOG(size);
  for (int k = 0; k < NUM_SQUARINGS; k++, length *= 2) {
    for (Index i = 0; i < N * n; i++) E[i] /= size;
    square_product(s, E, E, next);
    size = size_of(s, next);
    rate += LOG(size) / (2 * length), spread = FMAX(spread, 1 / size);
    REAL *swap = E;
    E = next, next = swap;
  }
  return rate > 10 * (REAL)N * EPSILON * spread + LOG((REAL)N * spread) / length;
}
