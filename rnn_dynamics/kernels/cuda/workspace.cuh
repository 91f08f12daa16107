// What a block computes in, and the network that it is told of.

typedef struct {
  const REAL *W, *u, *v, *target_W, *target_u, *target_v;
} Problem;

// All of it is shared memory but, of W that is not kept, the vectors. A pair of arrays, (right,
// left), lies one after the other; where systems take
// turns, E and T are of either.
typedef struct {
  int most;    // vectors of a basis, but for the one that is left out
  int square;  // numbers of a small matrix
  REAL *vectors, *H, *E, *P, *T, *overlaps, *parts, *outer, *target_u, *target_v;
  REAL *start, *ends, *remote, *more, *by_u, *by_v, *responses, *norms, *sums;
} Space;

enum { SUMS = 24 };
enum { SYSTEMS = TEAM == 32 ? 2 : 1 };  // that are at work at once

DEVICE int padded(int n) { return (n + 3) / 4 * 4; }

DEVICE REAL *some(REAL **free, int count) {
  REAL *found = *free;
  *free += padded(count);
  return found;
}

DEVICE int numbers_of_vectors(int most) { return 2 * (most + 1) * PADDED; }

// Lays out a space for small problems of up to `size` dimensions. `_bytes` of `loss/cuda.py` says
// how long it is.
DEVICE int lay_out(Space *s, REAL *memory, int size) {
  REAL *free = memory;
  const int m = size - TARGET_UNITS, n = padded(size), rows = n < COLUMNS ? COLUMNS : n;
#if INVERSE_IN_REGISTERS
  const int least = (m * PADDED + 5) / 6;  // six of them take C V
#else
  // three a strip of C V, five parts of a vector
  const int strip = (m * SQUARE + 2) / 3, parts = (WARPS * PADDED + 4) / 5;
  const int least = strip < parts ? parts : strip;
#endif
  s->most = m;
  s->square = padded(least);
  if (s->square < rows * n) s->square = rows * n;
  if (INVERSE_IN_REGISTERS) s->vectors = some(&free, numbers_of_vectors(m));
  s->H = some(&free, 2 * m * (m + 1));
  s->E = some(&free, 4 * s->square / (3 - SYSTEMS));
  s->P = some(&free, 2 * s->square);
  s->T = some(&free, 2 * s->square / (3 - SYSTEMS));
  s->overlaps = some(&free, n * n);
  s->parts = INVERSE_IN_REGISTERS ? some(&free, WARPS * PADDED) : s->E;
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

// E of a system and what it is squared into, side by side, and T.
DEVICE REAL *powers(const Space *s, int side) { return s->E + side % SYSTEMS * 2 * s->square; }
DEVICE REAL *products(const Space *s, int side) { return s->T + side % SYSTEMS * s->square; }

// u and v where the bases begin, and 1 + p - W of the target, which is to be inverted.
DEVICE void load_vectors(Space *s, const Problem *p) {
  REAL *first[2] = {basis(s, 0), basis(s, 1)};
  for (int i = THREAD; i < PADDED; i += THREADS) {
    first[0][i] = i < UNITS ? p->u[i] : 0;
    first[1][i] = i < UNITS ? p->v[i] : 0;
  }
#pragma unroll 1
  for (int i = THREAD; i < TARGET_UNITS * TARGET_UNITS; i += THREADS)
    s->outer[i] = (i % (TARGET_UNITS + 1) == 0 ? 1 + (REAL)SHIFT : 0) - p->target_W[i];
#pragma unroll 1
  for (int i = THREAD; i < TARGET_UNITS; i += THREADS)
    s->target_u[i] = p->target_u[i], s->target_v[i] = p->target_v[i];
}

// Divides the first vectors by their lengths, and keeps these, and |W|².
DEVICE void normalise(Space *s, const REAL lengths[2], REAL squared) {
  REAL *first[2] = {basis(s, 0), basis(s, 1)};
  for (int i = THREAD; i < PADDED; i += THREADS) {
    first[0][i] *= lengths[0] > 0 ? 1 / lengths[0] : 0;
    first[1][i] *= lengths[1] > 0 ? 1 / lengths[1] : 0;
  }
  if (THREAD == 0) s->norms[0] = lengths[0], s->norms[1] = lengths[1], s->sums[0] = squared;
}
