// The small problem in both bases, with the target as it is: `loss/projected.py`, whose notation
// this keeps, says why.

enum { OF_VALUE, OF_GRADIENT, ERRORS };

// Relative errors that bases and rounding make of value and gradient, and whether these can be
// known: the small problem is stable and does not grow.
typedef struct {
  REAL value, truncation[ERRORS], rounding[ERRORS];
  int reliable;
} Found;

static REAL squares(Index rows, Index width, const REAL *x, Index ld) {
  vector sums = {0};
  REAL sum = 0;
  for (Index i = 0; i < rows; i++) {
    const REAL *row = x + i * ld;
    Index j = 0;
    for (; j + LANES <= width; j += LANES) sums += load(row + j) * load(row + j);
    for (; j < width; j++) sum += row[j] * row[j];
  }
  return sum + total(sums);
}

static REAL norm(Index rows, Index width, const REAL *x, Index ld) {
  return SQRT(squares(rows, width, x, ld));
}

static REAL positive(REAL x) { return x > 0 ? x : 0; }

static REAL relative(REAL error, REAL length) { return length == 0 ? 0 : error / length; }

// (p + A)^-1 of the target.
static void small_target(Space *s, const Problem *p) {
  Index count = p->target_units;
  for (Index i = 0; i < count * count; i++) s->outer[i] = -p->target_W[i];
  for (Index i = 0; i < count; i++) s->outer[i * count + i] += 1 + (REAL)SHIFT;
  invert(count, s->outer, count);
}

// E = the transpose of B = (p + A)^-1 of the small system: of a basis by its H, of the target by
// `outer`, transposed or not.
static void small_system(Space *s, Index m, Index count, const REAL *H, int transposed) {
  Index ld = s->ld;
  const REAL shift = 1 + (REAL)SHIFT;
  clear((m + count) * ld, s->E);
  for (Index i = 0; i < m; i++) {
    REAL *row = s->E + i * ld;
    for (Index j = 0; j < m; j++) row[j] = s->inverted ? H[i * ld + j] / shift : -H[i * ld + j];
    row[i] += s->inverted ? 1 / shift : shift;
  }
  if (!s->inverted) invert(m, s->E, ld);
  for (Index i = 0; i < count; i++)
    for (Index j = 0; j < count; j++)
      s->E[(m + i) * ld + m + j] = s->outer[transposed ? i * count + j : j * count + i];
}

// P += D P D^T + D^2 P (D^2)^T + ..., by doubling the number of steps, of which `doublings` were
// made before. E holds D^T, `next` is room for
// its powers. Returns the doublings. Reliable is what decays without growing before.
static int add_steps(Space *s, Index size, REAL *E, REAL *next, int doublings, REAL *P,
                     int *reliable) {
  Index ld = s->ld, width = padded(size, LANES);
  const REAL most = SQRT(SQRT(EPSILON)) * SQRT(SQRT(EPSILON));  // of the squared norm
  const REAL largest = (REAL)LARGEST_GROWTH * (REAL)LARGEST_GROWTH * (REAL)size;
  for (;;) {
    REAL left = squares(size, width, E, ld);
    *reliable &= left <= largest;
    product(size, width, size, P, ld, 1, E, ld, s->T, ld);
    add_product(size, width, size, E, 1, ld, s->T, ld, P, ld);
    doublings++;
    if (!(left > most) || doublings == MOST_DOUBLINGS) {
      *reliable &= left <= most;
      return doublings;
    }
    product(size, width, size, E, ld, 1, E, ld, next, ld);
    REAL *swap = E;
    E = next, next = swap;
  }
}

// P = sum_j x_j x_j^T of x_j = sqrt(2p) D^j B start, by doubling: of COLUMNS columns first. E holds
// B^T and then powers of D^T.
// Returns the doublings of one step; with `end`, sets the energy of end . x_j too, and leaves what
// reads the x_j after the first in `remote`.
static int gramian(Space *s, Index size, REAL *P, int *reliable, const REAL *end, REAL *energy) {
  Index ld = s->ld, width = padded(size, LANES);
  REAL *E = s->E, *next = s->square, *remote = s->remote;
  const REAL rate = 2 * (REAL)SHIFT;
  const REAL largest = (REAL)LARGEST_GROWTH * (REAL)LARGEST_GROWTH * (REAL)size;
  int doublings = 0;
  *reliable = 1;
  clear(ld, s->rows);
  add_rows(size, width, E, ld, s->start, SQRT(rate), s->rows);
  for (Index i = 0; i < size; i++) {
    for (Index j = 0; j < width; j++) E[i * ld + j] *= rate;
    E[i * ld + i] -= 1;
  }
  for (Index have = 1; have < COLUMNS; have *= 2, doublings++) {
    *reliable &= squares(size, width, E, ld) <= largest;
    product(have, width, size, s->rows, ld, 1, E, ld, s->rows + have * ld, ld);
    product(size, width, size, E, ld, 1, E, ld, next, ld);
    REAL *swap = E;
    E = next, next = swap;
  }
  if (end) {
    *energy = 0;
    for (Index j = 0; j < COLUMNS; j++) {
      REAL response = dot(width, end, s->rows + j * ld);
      *energy += response * response;
    }
    clear(ld, remote);
    dots(size, width, E, ld, end, remote);
  }
  product(size, width, COLUMNS, s->rows, 1, ld, s->rows, ld, P, ld);
  doublings = add_steps(s, size, E, next, doublings, P, reliable);
  if (end) {
    clear(ld, s->T);
    add_rows(size, width, P, ld, remote, 1, s->T);
    REAL rest = dot(width, remote, s->T);
    *energy = (*energy + (rest < 0 ? 0 : rest)) / 2;  // but for rounding
  }
  return doublings;
}

// Both Gramians: X of the right and Y of the left system.
static int gramians(Space *s, const Problem *p, Index m, Found *found) {
  Index count = p->target_units, size = m + count;
  int doublings[2], reliable[2];
  for (int left = 0; left < 2; left++) {
    small_system(s, m, count, left ? s->F : s->H, left);
    clear(s->ld, s->start);
    s->start[0] = s->norms[left];
    for (Index i = 0; i < count; i++)
      s->start[m + i] = left ? -p->target_v[i] : p->target_u[i];
    // vectors begin with u / |u| and v / |v|: V v and U u
    REAL *end = s->ends[left];
    clear(s->ld, end);
    for (Index i = 0; i < m; i++)
      end[i] = s->norms[1 - left] * s->overlaps[left ? i * s->ld : i];
    for (Index i = 0; i < count; i++) end[m + i] = left ? p->target_u[i] : -p->target_v[i];
    doublings[left] =
        gramian(s, size, left ? s->Y : s->X, reliable + left, left ? NULL : end, &found->value);
  }
  found->reliable = reliable[0] && reliable[1];
  return doublings[0] > doublings[1] ? doublings[0] : doublings[1];
}

// C, the gradient in the bases, stays in `right`, those in u and v in `du` and `dv`.
static Found reduce(Space *s, const Problem *p, Index m, REAL residual) {
  Index ld = s->ld, count = p->target_units, size = m + count;
  Found found;
  for (Index i = 0; i <= m; i++)
    dots(m + 1, s->n, s->V, s->n, s->U + i * s->n, s->overlaps + i * ld);
  int doublings = gramians(s, p, m, &found);

  // Y diag(U V^T, 1) X; the last column and row, for the vectors that are left out, are Y U v+ and
  // X V u+
  clear((size + 1) * ld, s->middle);
  for (Index i = 0; i < m; i++) {
    copy(m, s->middle + i * ld, s->overlaps + i * ld);
    s->middle[i * ld + size] = s->overlaps[i * ld + m];
  }
  for (Index i = m; i < size; i++) s->middle[i * ld + i] = 1;
  copy(m, s->middle + size * ld, s->overlaps + m * ld);
  REAL *C = s->right, *missed = C + m * ld;
  product(m, padded(size + 1, LANES), size, s->Y, ld, 1, s->middle, ld, s->left, ld);
  copy(size, s->left + m * ld, s->middle + size * ld);
  product(m + 1, padded(m, LANES), size, s->left, ld, 1, s->X, ld, C, ld);
  dots(m, padded(size, LANES), s->Y, ld, s->ends[1], s->du);
  dots(m, padded(size, LANES), s->X, ld, s->ends[0], s->dv);

  Index last = m - 1;
  REAL by_V = SQRT(squares(m, 1, C + last, ld) + s->dv[last] * s->dv[last]);
  REAL by_U = SQRT(squares(1, m, C + last * ld, ld) + s->du[last] * s->du[last]);
  const REAL h = s->H[last * ld + m], f = s->F[last * ld + m];
  REAL left_out = norm(m, 1, s->left + size, ld) * norm(m, 1, s->X + last, ld);
  REAL below = norm(1, m, missed, ld) * norm(m, 1, s->Y + last, ld);

  // of the loss: its derivative in the coupling of the vector that is left out, v+^T Q P e_m;
  // rounding of the samples of k, and after them
  REAL coupling = 0, later = 0, outer = 0, states[2] = {0};
  for (Index i = 0; i < size; i++) {
    REAL by_Y = 0, by_X = i < m ? 0 : s->X[i * ld + last];
    for (Index j = 0; j < m; j++) by_Y += s->Y[i * ld + j] * s->middle[j * ld + size];
    for (Index j = 0; j < m && i < m; j++) by_X += s->middle[i * ld + j] * s->X[j * ld + last];
    coupling += by_Y * by_X;
    const REAL right = positive(s->X[i * ld + i]), left = positive(s->Y[i * ld + i]);
    later += FABS(s->remote[i]) * SQRT(right);
    if (i < m) states[0] += right, states[1] += left;
    if (i >= m) outer += FABS(s->ends[0][i]) * SQRT(right);
  }
  // both bases leave out products of what either does
  const REAL missed_right = h * SQRT(positive(s->X[last * ld + last]));
  const REAL missed_left = f * SQRT(positive(s->Y[last * ld + last]));
  const REAL both = missed_right * missed_left, sizes = SQRT(states[0] * states[1]);
  REAL neglected = h * (by_V + left_out) + f * (by_U + below) + both * sizes;
  REAL length = SQRT(squares(m, m, C, ld) + squares(1, m, s->du, ld) + squares(1, m, s->dv, ld));
  REAL steps = (REAL)ROUNDING * (REAL)((uint64_t)1 << doublings), eps = EPSILON + residual;
  REAL products = norm(size, size, s->X, ld) * norm(size, size, s->Y, ld);
  REAL samples = eps * (s->norms[1] * SQRT(states[0]) + outer), root = SQRT(2 * found.value);
  // else all digits of the response are lost in what it is a sum of
  found.reliable &= samples <= (REAL)LARGEST_LOSS * outer;
  REAL rounded = samples * (root + samples) + eps * steps * later * later;
  REAL changed = h * FABS(coupling) + both * (root + both);
  found.truncation[OF_VALUE] = relative((REAL)SAFETY * changed, found.value);
  found.truncation[OF_GRADIENT] = relative((REAL)SAFETY * neglected, length);
  found.rounding[OF_VALUE] = relative(rounded, found.value);
  found.rounding[OF_GRADIENT] = relative(eps * steps * products, length);
  return found;
}

typedef struct {
  REAL *value, *W, *u, *v, *errors;
} Results;

// Back from bases of m vectors: W = U^T C V, u = U^T du, v = V^T dv.
static void expand(Space *s, Index N, Index m, const Results *out) {
  Index n = s->n;
  REAL *whole = n == N ? out->W : s->own, *by_u = s->signs, *by_v = s->signs + n;
  product(m, n, m, s->right, s->ld, 1, s->V, n, s->wide, s->apart);
  product(N, n, m, s->U, 1, n, s->wide, s->apart, whole, n);
  for (Index i = 0; i < N && n != N; i++) copy(N, out->W + i * N, whole + i * n);
  clear(2 * n, by_u);
  add_rows(m, n, s->U, n, s->du, 1, by_u);
  add_rows(m, n, s->V, n, s->dv, 1, by_v);
  copy(N, out->u, by_u), copy(N, out->v, by_v);
}

static void no_result(const Problem *p, const Results *out, REAL value, REAL error) {
  Index N = p->units;
  *out->value = value;
  for (Index i = 0; i < N * N; i++) out->W[i] = NAN;
  for (Index i = 0; i < N; i++) out->u[i] = out->v[i] = NAN;
  for (int i = 0; i < ERRORS; i++) out->errors[i] = error;
}
