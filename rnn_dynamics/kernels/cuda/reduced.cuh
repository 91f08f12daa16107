// The small problem in both bases, by the threads of a block: `loss/projected.py`, whose notation
// this keeps, says why.

enum { OF_VALUE, OF_GRADIENT, ERRORS };

// Relative errors that bases and rounding make of value and gradient, and whether these can be
// known: the small problem is stable and does not grow.
typedef struct {
  REAL value, truncation[ERRORS], rounding[ERRORS];
  int reliable;
} Found;

DEVICE REAL positive(REAL x) { return x > 0 ? x : 0; }

DEVICE REAL relative(REAL error, REAL length) { return length == 0 ? 0 : error / length; }

// M^-1 in place of m rows of n, by a team; `lines` has room for two vectors. Without pivots, as
// `invert` in registers.
DEVICE void invert_together(int m, int n, REAL *M, REAL *lines) {
  REAL *row = lines, *column = lines + n;
#pragma unroll 1
  for (int k = 0; k < m; k++) {
#pragma unroll 1
    for (int i = MEMBER; i < m; i += TEAM) row[i] = M[k * n + i], column[i] = M[i * n + k];
    MEET();
    const REAL pivot = row[k], inverse = 1 / pivot;
    int i = MEMBER / m, j = MEMBER % m;
#pragma unroll 1
    for (int entry = MEMBER; entry < m * m; entry += TEAM) {
      const REAL r = j == k ? 1 + inverse : row[j] * inverse, c = i == k ? pivot - 1 : column[i];
      M[i * n + j] -= c * r;
      for (j += TEAM; j >= m; j -= m) i++;
    }
    MEET();
  }
}

// E = the transpose of D = 2p (p + A)^-1 - 1 of a small system in rows of n, padded by zeros; its
// start, also
// in T, and what its response is read by. By a team.
DEVICE void small_system(Space *s, int m, int side, int n, REAL *E, REAL *T) {
  const int count = TARGET_UNITS, size = m + count;
  const REAL shift = 1 + (REAL)SHIFT, rate = 2 * (REAL)SHIFT, scale = rate / shift;
  const REAL *H = coupling(s, side);
  int i = MEMBER / n, j = MEMBER % n;
#pragma unroll 1
  for (int entry = MEMBER; entry < n * n; entry += TEAM) {
    const int k = i - m, l = j - m;
    REAL x = i == j && i < size ? -1 : 0;
    if (k < 0 && l < 0) {
      const REAL h = H[i * (s->most + 1) + j];
      if (INVERSE_IN_REGISTERS)
        x += (h + (i == j ? 1 : 0)) * scale;
      else
        x = (i == j ? shift : 0) - h;
    }
    if (k >= 0 && l >= 0 && i < size && j < size)
      x += rate * s->outer[side ? k * count + l : l * count + k];
    E[entry] = x;
    for (j += TEAM; j >= n; j -= n) i++;
  }
  if (!INVERSE_IN_REGISTERS) {
    MEET();
    invert_together(m, n, E, T);
    int i = MEMBER / m, j = MEMBER % m;
#pragma unroll 1
    for (int entry = MEMBER; entry < m * m; entry += TEAM) {
      E[i * n + j] = rate * E[i * n + j] - (i == j ? 1 : 0);
      for (j += TEAM; j >= m; j -= m) i++;
    }
  }
#pragma unroll 1
  for (int i = MEMBER; i < n; i += TEAM) {
    REAL start = i == 0 ? s->norms[side] : 0, end = 0;
    if (i < m) {
      // vectors begin with u / |u| and v / |v|: V v and U u
      end = s->norms[1 - side] * s->overlaps[side ? i * n : i];
    } else if (i < size) {
      start = side ? -s->target_v[i - m] : s->target_u[i - m];
      end = side ? s->target_u[i - m] : -s->target_v[i - m];
    }
    s->start[side * n + i] = T[i] = start;
    s->ends[side * n + i] = end;
  }
  MEET();
}

// The sum over a team, the same bits in each.
DEVICE REAL team_total(Space *s, REAL x) {
  x = total(x);
  if (TEAM == 32) return x;
  REAL *each = s->sums + SUMS - WARPS;
  if (LANE == 0) each[WARP] = x;
  MEET();
  x = 0;
  for (int i = 0; i < WARPS; i++) x += each[i];
  MEET();
  return x;
}

DEVICE REAL squares_together(Space *s, int count, const REAL *x) {
  REAL sum = 0;
#pragma unroll 1
  for (int i = MEMBER; i < count; i += TEAM) sum += x[i] * x[i];
  return team_total(s, sum);
}

// P = sum_j x_j x_j^T of x_j = sqrt(2p) D^j B start of one system, by doubling: of COLUMNS columns
// first. By a team.
// Returns the doublings of one step.
DEVICE int gramian(Space *s, int m, int side, int n, int per, int *reliable) {
  const int size = m + TARGET_UNITS;
  const REAL rate = 2 * (REAL)SHIFT;
  REAL *P = s->P + side * s->square, *T = products(s, side), *E = powers(s, side),
       *next = E + s->square;
  small_system(s, m, side, n, E, T);
  // 2p B start = (D + 1) start
  product(MEMBER, TEAM, 1, size, s->start + side * n, n, 1, E, T, n, per, 1);
  MEET();
  const REAL scale = 1 / SQRT(rate);
#pragma unroll 1
  for (int i = MEMBER; i < n; i += TEAM) T[i] *= scale;
  MEET();
  const REAL largest = (REAL)LARGEST_GROWTH * (REAL)LARGEST_GROWTH * (REAL)size;
  int doublings = 0;
  *reliable = 1;
#pragma unroll 1
  for (int have = 1; have < COLUMNS; have *= 2, doublings++) {
    *reliable &= squares_together(s, size * n, E) <= largest;
    product(MEMBER, TEAM, have, size, T, n, 1, E, T + have * n, n, per, 0);
    product(MEMBER, TEAM, size, size, E, n, 1, E, next, n, per, 0);
    MEET();
    REAL *swap = E;
    E = next, next = swap;
  }
  if (side == 0)
#pragma unroll 1
    for (int i = MEMBER; i < COLUMNS + size; i += TEAM) {
      const REAL *end = s->ends, *row = i < COLUMNS ? T + i * n : E + (i - COLUMNS) * n;
      REAL sum = 0;
#pragma unroll 2
      for (int j = 0; j < size; j++) sum += end[j] * row[j];
      *(i < COLUMNS ? s->responses + i : s->remote + (i - COLUMNS)) = sum;
    }
  product(MEMBER, TEAM, size, COLUMNS, T, 1, n, T, P, n, per, 0);
  MEET();
  const REAL most = SQRT(SQRT(EPSILON)) * SQRT(SQRT(EPSILON));  // of the squared norm
#pragma unroll 1
  for (;;) {
    const REAL left = squares_together(s, size * n, E);
    *reliable &= left <= largest;
    const int last = !(left > most) || doublings + 1 == MOST_DOUBLINGS;
    product(MEMBER, TEAM, size, size, P, n, 1, E, T, n, per, 0);
    if (!last) product(MEMBER, TEAM, size, size, E, n, 1, E, next, n, per, 0);
    MEET();
    product(MEMBER, TEAM, size, size, E, 1, n, T, P, n, per, 1);
    MEET();
    doublings++;
    if (last) {
      *reliable &= left <= most;
      break;
    }
    REAL *swap = E;
    E = next, next = swap;
  }
  return doublings;
}

// C, the gradient in the bases, is the second of the squares of E, in padded rows; those in u and v
// are in `by_u` and `by_v`.
DEVICE Found reduce(Space *s, int m, REAL residual) {
  const int size = m + TARGET_UNITS, n = padded(size), last = m - 1;
  const int per = 65535 / (n / 4) + 1;
  Found found;
  overlap(s, m, n);
#pragma unroll 1
  for (int side = TEAM == 32 ? WARP : 0; side < 2; side += SYSTEMS) {
    int reliable = 0;
    const int doublings = gramian(s, m, side, n, per, &reliable);
    // the larger of both, and whether both are reliable
    if (MEMBER == 0) s->sums[side] = reliable ? (REAL)doublings : -(REAL)doublings;
  }
  __syncthreads();
  const REAL *X = s->P, *Y = s->P + s->square, *O = s->overlaps;
  REAL *left = s->E, *C = s->E + s->square, *quadratic = s->remote + n;
  const REAL both[2] = {s->sums[0], s->sums[1]};

  // Y diag(U V^T, 1) X; a last column and row, for the vectors that are left out, are Y U v+ and X
  // V u+
  product(THREAD, THREADS, m, m, Y, n, 1, O, left, n, per, 0);
#pragma unroll 1
  for (int i = THREAD; i <= m; i += THREADS) left[m * n + i] = O[m * n + i];
#pragma unroll 1
  for (int i = THREAD; i < 2 * m + size; i += THREADS) {
    const int which = i < m ? i : i < 2 * m ? i - m : i - 2 * m;
    const REAL *row = (i < m ? Y : X) + which * n;
    const REAL *with = i < m ? s->ends + n : i < 2 * m ? s->ends : s->remote;
    REAL sum = 0;
#pragma unroll 2
    for (int j = 0; j < size; j++) sum += row[j] * with[j];
    *((i < m ? s->by_u : i < 2 * m ? s->by_v : quadratic) + which) = sum;
  }
  __syncthreads();
  product(THREAD, THREADS, m + 1, m, left, n, 1, X, C, n, per, 0);
  __syncthreads();
  product(THREAD, THREADS, m, TARGET_UNITS, Y + m, n, 1, X + m * n, C, n, per, 1);
  __syncthreads();

  if (WARP == 0) {
    REAL sums[8] = {0};
    const REAL by_V = LANE == 0 ? s->by_v[last] : 0, by_U = LANE == 0 ? s->by_u[last] : 0;
    sums[0] = part_of_squares(m, C + last, n) + by_V * by_V;
    sums[1] = part_of_squares(m, C + last * n, 1) + by_U * by_U;
    sums[2] = part_of_squares(m, left + m, n);
    sums[3] = part_of_squares(m, C + m * n, 1);
    sums[4] = part_of_squares(m, X + last, n);
    sums[5] = part_of_squares(m, Y + last, n);
    int j = LANE % n;
#pragma unroll 1
    for (int entry = LANE; entry < m * n; entry += 32) {
      if (j < m) sums[6] += C[entry] * C[entry];
      for (j += 32; j >= n;) j -= n;
    }
    sums[7] = part_of_squares(m, s->by_u, 1);
    const int base = fold(sums, 8, 1, 32);
    if (LANE < 8) s->sums[base] = SQRT(sums[0]);

    // v+^T Q P e_m, what reads the states after the first, variances of both, what reads the
    // target's states, and variances of the last
    REAL more[8] = {0};
    if (LANE == 0) more[5] = positive(X[last * n + last]), more[6] = positive(Y[last * n + last]);
#pragma unroll 1
    for (int i = LANE; i < size; i += 32) {
      REAL by_Y = 0, by_X = i < m ? 0 : X[i * n + last];
#pragma unroll 1
      for (int j = 0; j < m; j++) {
        by_Y += Y[i * n + j] * O[j * n + m];
        if (i < m) by_X += O[i * n + j] * X[j * n + last];
      }
      const REAL right = positive(X[i * n + i]);
      more[0] += by_Y * by_X;
      more[1] += fabs(s->remote[i]) * SQRT(right);
      if (i < m) more[2] += right, more[3] += positive(Y[i * n + i]);
      if (i >= m) more[4] += fabs(s->ends[i]) * SQRT(right);
    }
    const int more_base = fold(more, 8, 1, 32);
    if (LANE < 8) s->sums[16 + more_base] = more[0];
  } else if (WARP == 1) {
    REAL sums[8] = {0};
    sums[0] = part_of_squares(m, s->by_v, 1);
    sums[1] = part_of_squares(size * n, X, 1);
    sums[2] = part_of_squares(size * n, Y, 1);
    sums[3] = part_of_squares(COLUMNS, s->responses, 1);
    sums[4] = part_of_dot(size, s->remote, 1, quadratic, 1);
    const int base = fold(sums, 8, 1, 32);
    if (LANE < 8) s->sums[8 + base] = 3 <= base && base < 5 ? sums[0] : SQRT(sums[0]);
  }
  __syncthreads();
  const REAL *sums = s->sums;
  const REAL doublings = fmax(fabs(both[0]), fabs(both[1]));
  const REAL h = coupling(s, 0)[last * (s->most + 1) + m],
             f = coupling(s, 1)[last * (s->most + 1) + m];
  // both bases leave out products of what either does
  const REAL both_missed = h * f * SQRT(sums[21]) * SQRT(sums[22]);
  const REAL coupled = sums[16], later = sums[17], right = sums[18], left_sum = sums[19],
             outer = sums[20];
  const REAL neglected = h * (sums[0] + sums[2] * sums[4]) + f * (sums[1] + sums[3] * sums[5]) +
                         both_missed * SQRT(right * left_sum);
  const REAL length = SQRT(sums[6] * sums[6] + sums[7] * sums[7] + sums[8] * sums[8]);
  const REAL steps = (REAL)ROUNDING * (REAL)(1ull << (int)doublings), eps = EPSILON + residual;
  found.value = (sums[11] + (sums[12] < 0 ? 0 : sums[12])) / 2;  // but for rounding
  const REAL samples = eps * (s->norms[1] * SQRT(right) + outer), root = SQRT(2 * found.value);
  const REAL rounded = samples * (root + samples) + eps * steps * later * later;
  const REAL changed = h * fabs(coupled) + both_missed * (root + both_missed);
  found.truncation[OF_VALUE] = relative((REAL)SAFETY * changed, found.value);
  found.truncation[OF_GRADIENT] = relative((REAL)SAFETY * neglected, length);
  found.rounding[OF_VALUE] = relative(rounded, found.value);
  found.rounding[OF_GRADIENT] = relative(eps * steps * sums[9] * sums[10], length);
  found.reliable = both[0] > 0 && both[1] > 0;
  // else all digits of the response are lost in what it is a sum of
  found.reliable &= samples <= (REAL)LARGEST_LOSS * outer;
  return found;
}
