// Krylov bases of one network from both sides, one vector after the other: `loss/arnoldi.py`, whose
// notation this keeps, says why.

typedef struct {
  Index units, target_units;
  const REAL *W, *u, *v, *target_W, *target_u, *target_v;
} Problem;

// What one network after the other is computed in. Vectors have n numbers, the units padded; small
// matrices rows of ld.
typedef struct {
  Index n, ld, count;  // count: of the products that either basis holds already
  // of rows of the factors: a power of two would put a column into few lines of the cache
  Index apart;
  int inverted;
  const REAL *W;  // with rows of n
  REAL norms[2];  // of u and v
  REAL *own, *factors, *signs, *V, *U, *H, *F, *more;
  REAL *overlaps, *outer, *E, *square, *X, *Y, *T, *rows, *middle, *left, *right, *wide;
  REAL *start, *ends[2], *remote, *du, *dv;
} Space;

// Lays out a space in `memory`, or only counts its numbers if that is NULL.
static size_t lay_out(Space *s, REAL *memory, Index units, Index target_units, Index most) {
  Index n = padded(units, ROWS), ld = padded(most + 1, ROWS), m = most - target_units;
  Index k = padded(target_units, ROWS);
  size_t used = 0;
  *s = (Space){.n = n, .ld = ld, .apart = n + ROWS, .inverted = units <= MOST_INVERTED};
  struct {
    REAL **where;
    Index rows, width;
  } every[] = {
      {&s->own, n, n},           {&s->factors, s->inverted ? n : 0, s->apart},
      {&s->signs, 2, n},         {&s->V, m + 1, n},
      {&s->U, m + 1, n},         {&s->wide, m, s->apart},
      {&s->H, m, ld},            {&s->F, m, ld},
      {&s->more, 1, ld},         {&s->overlaps, m + 1, ld},
      {&s->outer, k, k},         {&s->E, ld, ld},
      {&s->square, ld, ld},      {&s->X, ld, ld},
      {&s->Y, ld, ld},           {&s->T, ld, ld},
      {&s->rows, COLUMNS, ld},   {&s->middle, ld, ld},
      {&s->left, ld, ld},        {&s->right, ld, ld},
      {&s->start, 1, ld},        {&s->ends[0], 1, ld},
      {&s->ends[1], 1, ld},      {&s->remote, 1, ld},
      {&s->du, 1, ld},           {&s->dv, 1, ld},
  };
  for (size_t i = 0; i < sizeof every / sizeof *every; i++) {
    if (memory) *every[i].where = memory + used;
    used += (size_t)(every[i].rows * every[i].width);
  }
  return used;
}

static void clear(Index n, REAL *x) { memset(x, 0, (size_t)n * sizeof(REAL)); }

static void copy(Index n, REAL *to, const REAL *from) {
  memcpy(to, from, (size_t)n * sizeof(REAL));
}

static REAL first_vector(Index n, Index N, const REAL *from, REAL *x) {
  clear(n, x);
  copy(N, x, from);
  REAL length = SQRT(dot(n, x, x)), inverse = length > 0 ? 1 / length : 0;
  for (Index i = 0; i < n; i++) x[i] *= inverse;
  return length;
}

// Prepares for a network: W in padded rows, the first vectors and, if that pays, the factors of (1
// + p) - W.
// Returns the relative error of what the factors say of random signs; NaN if a parameter is not
// finite.
static REAL prepare(Space *s, const Problem *p) {
  Index N = p->units, n = s->n;
  REAL *signs = s->signs, *made = signs + n;
  s->W = p->W, s->count = 0;
  if (n != N) {
    clear(n * n, s->own);
    for (Index i = 0; i < N; i++) copy(N, s->own + i * n, p->W + i * N);
    s->W = s->own;
  }
  s->norms[0] = first_vector(n, N, p->u, s->V);
  s->norms[1] = first_vector(n, N, p->v, s->U);
  clear(n, signs);
  const REAL one = 1 / SQRT((REAL)N);
  for (Index i = 0; i < N; i++) signs[i] = (uint32_t)i * 2654435761u >> 16 & 1 ? one : -one;
  dots(n, n, s->W, n, signs, made);
  if (!isfinite(dot(n, made, made) + s->norms[0] + s->norms[1])) return NAN;
  if (!s->inverted) return 0;

  const REAL shift = 1 + (REAL)SHIFT;
  for (Index i = 0; i < n; i++) {
    REAL *row = s->factors + i * s->apart;
    for (Index j = 0; j < n; j += LANES) store(row + j, -load(s->W + i * n + j));
    row[i] += i < N ? shift : 1;
  }
  factorise(n, s->factors, s->apart);
  // what is left of signs after (1 + p - W) and back
  for (Index i = 0; i < n; i += LANES)
    store(made + i, all(shift) * load(signs + i) - load(made + i));
  solve(n, s->factors, s->apart, made, NULL);
  subtract(n, made, signs);
  REAL gap = SQRT(dot(n, made, made));
  return isfinite(gap) ? gap : INFINITY;
}

// x = K v and z = K^T u.
static void apply(const Space *s, const REAL *v, const REAL *u, REAL *x, REAL *z) {
  Index n = s->n;
  if (!s->inverted) {
    for (Index i = 0; i < n; i += LANES) store(x + i, (vector){0}), store(z + i, (vector){0});
    both_products(n, n, s->W, n, v, x, u, z);
    return;
  }
  for (Index i = 0; i < n; i += LANES) store(x + i, load(v + i)), store(z + i, load(u + i));
  solve(n, s->factors, s->apart, x, z);
  const vector shift = all(1 + (REAL)SHIFT);
  for (Index i = 0; i < n; i += LANES) {
    store(x + i, shift * load(x + i) - load(v + i));
    store(z + i, shift * load(z + i) - load(u + i));
  }
}

// Vector j + 1, a product with vector j, becomes orthonormal to those before; row j of H is what it
// was made of.
static void orthogonalise(Space *s, Index j, REAL *vectors, REAL *H) {
  Index n = s->n;
  REAL *row = H + j * s->ld, *x = vectors + (j + 1) * n, length = 0, left = 0;
  for (Index i = 0; i < s->ld; i += LANES) store(row + i, (vector){0});
  for (int pass = 0; pass == 0 || (pass == 1 && left < (REAL)REPEAT * length); pass++) {
    dots(j + 1, n, vectors, n, x, s->more);
    add_rows(j + 1, n, vectors, n, s->more, -1, x);
    left = dot(n, x, x);
    for (Index i = 0; i <= j; i++) row[i] += s->more[i];
    if (pass > 0) continue;
    length = left;  // of what x was, by Pythagoras
    for (Index i = 0; i <= j; i++) length += row[i] * row[i];
  }
  REAL rest = SQRT(left), least = 2 * EPSILON * ((s->inverted ? 1 : 0) + SQRT(length));
  if (!(rest > least)) rest = 0;
  row[j + 1] = rest;
  const vector inverse = all(rest > 0 ? 1 / rest : 0);
  for (Index i = 0; i < n; i += LANES) store(x + i, load(x + i) * inverse);
}

// Lets both bases grow to m vectors and one more.
static void grow(Space *s, Index m) {
  for (; s->count < m; s->count++) {
    REAL *v = s->V + s->count * s->n, *u = s->U + s->count * s->n;
    apply(s, v, u, v + s->n, u + s->n);
    orthogonalise(s, s->count, s->V, s->H);
    orthogonalise(s, s->count, s->U, s->F);
  }
}
