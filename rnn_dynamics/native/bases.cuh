// Krylov bases of one network from both sides, by the threads of a block: `loss/arnoldi.py`, whose notation this keeps, says why.

typedef struct {
  const REAL *W, *u, *v, *target_W, *target_u, *target_v;
} Problem;

// What a block has in shared memory: a pair of arrays, (right, left), lies one after the other.
typedef struct {
  int most;    // vectors of a basis, but for the one that is left out
  int square;  // numbers of a small matrix
  REAL *vectors, *H, *E, *next, *P, *T, *overlaps, *parts, *outer, *target_u, *target_v;
  REAL *start, *ends, *remote, *more, *by_u, *by_v, *responses, *norms, *sums;
} Space;

enum { SUMS = 16 };

DEVICE int padded(int n) { return (n + 3) / 4 * 4; }

DEVICE REAL *some(REAL **free, int count) {
  REAL *found = *free;
  *free += padded(count);
  return found;
}

// Lays out a space for small problems of up to `size` dimensions. `_bytes` of `loss/cuda.py` says how long it is.
DEVICE int lay_out(Space *s, REAL *memory, int size) {
  REAL *free = memory;
  const int m = size - TARGET_UNITS, n = padded(size), rows = n < COLUMNS ? COLUMNS : n;
  s->most = m;
  s->square = padded((m * PADDED + 5) / 6);  // six of them take C V
  if (s->square < rows * n) s->square = rows * n;
  s->vectors = some(&free, 2 * (m + 1) * PADDED);
  s->H = some(&free, 2 * m * (m + 1));
  s->E = some(&free, 2 * s->square);
  s->next = some(&free, 2 * s->square);
  s->P = some(&free, 2 * s->square);
  s->T = some(&free, 2 * s->square);
  s->overlaps = some(&free, n * n);
  s->parts = some(&free, WARPS * PADDED);
  s->outer = some(&free, TARGET_UNITS * TARGET_UNITS);
  s->target_u = some(&free, TARGET_UNITS);
  s->target_v = some(&free, TARGET_UNITS);
  s->start = some(&free, 2 * n);
  s->ends = some(&free, 2 * n);
  s->remote = some(&free, 2 * n);
  s->more = some(&free, 2 * (n + 4));
  s->by_u = some(&free, n);
  s->by_v = some(&free, n);
  s->responses = some(&free, COLUMNS);
  s->norms = some(&free, 2);
  s->sums = some(&free, SUMS);
  return (int)(free - memory);
}

DEVICE REAL *basis(const Space *s, int side) { return s->vectors + side * (s->most + 1) * PADDED; }
DEVICE REAL *coupling(const Space *s, int side) { return s->H + side * s->most * (s->most + 1); }

// Loads a network, and inverts (1 + p) - W into `a`. Returns the relative error of what that says of random signs; NaN if a parameter is not
// finite. Leaves |W|² in `sums`, the inverse of the target's 1 + p - W in `outer`, and the first vectors in the bases.
DEVICE REAL prepare(Space *s, const Problem *p, REAL *a) {
  const REAL shift = 1 + (REAL)SHIFT, one = 1 / SQRT((REAL)UNITS);
  REAL *signs = s->vectors + PADDED, *made = s->parts, *gaps = made + PADDED, *lines = s->E;
  const int count = TARGET_UNITS;
  load_tile(p->W, a);
  REAL *first[2] = {basis(s, 0), basis(s, 1)};
  for (int i = THREAD; i < PADDED; i += THREADS) {
    first[0][i] = i < UNITS ? p->u[i] : 0;
    first[1][i] = i < UNITS ? p->v[i] : 0;
    signs[i] = i >= UNITS ? 0 : (unsigned)i * 2654435761u >> 16 & 1 ? one : -one;
  }
#pragma unroll 1
  for (int i = THREAD; i < count * count; i += THREADS)
    s->outer[i] = (i % (count + 1) == 0 ? shift : 0) - p->target_W[i];
#pragma unroll 1
  for (int i = THREAD; i < count; i += THREADS)
    s->target_u[i] = p->target_u[i], s->target_v[i] = p->target_v[i];
  REAL sums[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < TILE * TILE; i++) sums[0] += a[i] * a[i];
  sums[0] = total(sums[0]);
  if (LANE == 0) s->sums[WARP] = sums[0];
  __syncthreads();
  times(a, signs, made);
  if (THREAD == 0) invert_alone(count, s->outer);
  __syncthreads();
  sums[0] = 0;
  for (int i = 0; i < WARPS; i++) sums[0] += s->sums[i];
  const REAL squared = sums[0];
  sums[0] = part_of_squares(PADDED, made, 1);
  sums[1] = part_of_squares(PADDED, first[0], 1);
  sums[2] = part_of_squares(PADDED, first[1], 1);
  const REAL of_product = total(sums[0]), of_u = total(sums[1]), of_v = total(sums[2]);
  for (int i = THREAD; i < PADDED; i += THREADS) gaps[i] = shift * signs[i] - made[i];
  if (!isfinite(of_product + of_u + of_v)) return NAN;
#pragma unroll
  for (int i = 0; i < TILE; i++)
#pragma unroll
    for (int j = 0; j < TILE; j++)
      a[i * TILE + j] = (DOWN == ACROSS && i == j ? shift : 0) - a[i * TILE + j];
  invert(a, lines);
  times(a, gaps, made);
  __syncthreads();
  REAL gap = 0;
  for (int i = LANE; i < PADDED; i += 32) gap += (made[i] - signs[i]) * (made[i] - signs[i]);
  gap = SQRT(total(gap));
  const REAL lengths[2] = {SQRT(of_u), SQRT(of_v)};
  __syncthreads();
  for (int i = THREAD; i < PADDED; i += THREADS) {
    first[0][i] *= lengths[0] > 0 ? 1 / lengths[0] : 0;
    first[1][i] *= lengths[1] > 0 ? 1 / lengths[1] : 0;
  }
  if (THREAD == 0) s->norms[0] = lengths[0], s->norms[1] = lengths[1], s->sums[0] = squared;
  __syncthreads();
  return isfinite(gap) ? gap : INFINITY;
}

// A vector j + 1, of which x is what this lane has, becomes orthonormal to those before, by one warp; row j of H is what it was made of.
DEVICE void orthogonalise(Space *s, int side, int j, PAIR *x) {
  const int ld = s->most + 1;
  REAL *vectors = basis(s, side), *more = s->more + side * (padded(s->most + TARGET_UNITS) + 4);
  REAL *row = coupling(s, side) + j * ld;
  REAL length = 0, left = 0;
#pragma unroll 1
  for (int pass = 0; pass == 0 || (pass == 1 && left < (REAL)REPEAT * length); pass++) {
    // products with vectors 0 to j, and with itself
#pragma unroll 1
    for (int first = 0; first <= j + 1; first += 8) {
      REAL h[8];
#pragma unroll
      for (int k = 0; k < 8; k++) {
        h[k] = 0;
        const PAIR *other = (const PAIR *)(vectors + (first + k <= j ? first + k : j) * PADDED);
#pragma unroll
        for (int i = 0; i < NUM_PAIRS; i++) {
          PAIR have = {0, 0};
          if (LANE + 32 * i < PADDED / 2) have = other[LANE + 32 * i];
          if (first + k > j) have = x[i];
          h[k] += have.x * x[i].x + have.y * x[i].y;
        }
      }
      const int k = first + fold(h, 8, 1, 32);
      if (LANE < 8 && k <= j + 1) more[k] = h[0];
    }
    __syncwarp();
    if (pass == 0) length = more[j + 1];
#pragma unroll 4
    for (int k = 0; k <= j; k++) {
      const REAL h = more[k];
      const PAIR *other = (const PAIR *)(vectors + k * PADDED);
#pragma unroll
      for (int i = 0; i < NUM_PAIRS; i++) {
        PAIR have = {0, 0};
        if (LANE + 32 * i < PADDED / 2) have = other[LANE + 32 * i];
        x[i].x -= h * have.x, x[i].y -= h * have.y;
      }
    }
#pragma unroll 1
    for (int k = LANE; k < ld; k += 32) row[k] = (pass ? row[k] : 0) + (k <= j ? more[k] : 0);
    left = 0;
#pragma unroll
    for (int i = 0; i < NUM_PAIRS; i++) left += x[i].x * x[i].x + x[i].y * x[i].y;
    left = total(left);
    __syncwarp();
  }
  // of length or 1, whichever is larger
  const REAL least = 4 * EPSILON * EPSILON;
  const REAL inverse = left > least * fmax(length, (REAL)1) ? RSQRT(left) : 0;
#pragma unroll
  for (int i = 0; i < NUM_PAIRS; i++) {
    const PAIR unit = {x[i].x * inverse, x[i].y * inverse};
    if (LANE + 32 * i < PADDED / 2) ((PAIR *)(vectors + (j + 1) * PADDED))[LANE + 32 * i] = unit;
  }
  if (LANE == 0) row[j + 1] = left * inverse;
}

// Lets both bases, which hold `count` products already, grow to m vectors and one more.
DEVICE void grow(Space *s, const REAL *a, int count, int m) {
  const REAL shift = 1 + (REAL)SHIFT;
#pragma unroll 1
  for (int j = count; j < m; j++) {
    REAL *v = basis(s, 0) + j * PADDED, *u = basis(s, 1) + j * PADDED;
    times(a, v, v + PADDED);
    transposed_times(a, u, s->parts);
    __syncthreads();
    if (WARP < 2) {
      const PAIR *last = (const PAIR *)(WARP ? u : v), *made = (const PAIR *)(v + PADDED);
      PAIR x[NUM_PAIRS];
#pragma unroll
      for (int i = 0; i < NUM_PAIRS; i++) {
        const int k = LANE + 32 * i;
        x[i].x = x[i].y = 0;
        if (k >= PADDED / 2) continue;
        if (WARP) {
          for (int other = 0; other < WARPS; other++) {
            const PAIR part = ((const PAIR *)(s->parts + other * PADDED))[k];
            x[i].x += part.x, x[i].y += part.y;
          }
        } else {
          x[i] = made[k];
        }
        x[i].x = shift * x[i].x - last[k].x, x[i].y = shift * x[i].y - last[k].y;
      }
      orthogonalise(s, WARP, j, x);
    }
    __syncthreads();
  }
}
