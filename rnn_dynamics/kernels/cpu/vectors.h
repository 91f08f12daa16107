// Products of small matrices and of vectors, in vector registers.
//
// Matrices are row-major with padded rows: their length is a multiple of LANES, what pads them is
// zero. Included once per REAL.

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) && BITS == 64
#define VECTOR_BYTES 64
#else
#define VECTOR_BYTES 32
#endif
#define LANES (8 * VECTOR_BYTES / BITS)
#define ROWS 8  // of a block; a multiple of LANES
#define INLINE static inline __attribute__((always_inline))

// May lie anywhere: the rows of a caller's arrays are not aligned.
typedef REAL vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

typedef ptrdiff_t Index;

static Index padded(Index n, Index to) { return (n + to - 1) / to * to; }

INLINE vector load(const REAL *x) { return *(const vector *)x; }
INLINE void store(REAL *x, vector y) { *(vector *)x = y; }
INLINE vector all(REAL x) { return x - (vector){0}; }

// Else GCC loads an operand from memory again for each use of it.
#if defined(__x86_64__) && defined(__AVX__)
#define IN_REGISTER(x) __asm__("" : "+v"(x))
#else
#define IN_REGISTER(x)
#endif

INLINE REAL total(vector x) {
  REAL sum = 0;
  for (int i = 0; i < LANES / 2; i++) sum += x[i] + x[i + LANES / 2];
  return sum;
}

#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef MASK mask __attribute__((vector_size(VECTOR_BYTES)));
#define PICK(a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#endif
#define L(...) __VA_ARGS__
#define MEET(a, b, own, other) (PICK(a, b, own) + PICK(a, b, other))

// The totals of LANES vectors as one vector: lanes that differ in one bit are added, of two vectors
// at once.
INLINE vector totals(const vector *x) {
#if LANES == 4
#define FIRST(i) MEET(x[i], x[i + 1], L(0, 5, 2, 7), L(1, 4, 3, 6))
  vector a = FIRST(0), b = FIRST(2);
  return MEET(a, b, L(0, 1, 6, 7), L(2, 3, 4, 5));
#else
#define FIRST(i) MEET(x[i], x[i + 1], L(0, 9, 2, 11, 4, 13, 6, 15), L(1, 8, 3, 10, 5, 12, 7, 14))
  vector a = FIRST(0), b = FIRST(2), c = FIRST(4), d = FIRST(6);
  vector e = MEET(a, b, L(0, 1, 10, 11, 4, 5, 14, 15), L(2, 3, 8, 9, 6, 7, 12, 13));
  vector f = MEET(c, d, L(0, 1, 10, 11, 4, 5, 14, 15), L(2, 3, 8, 9, 6, 7, 12, 13));
  return MEET(e, f, L(0, 1, 2, 3, 12, 13, 14, 15), L(4, 5, 6, 7, 8, 9, 10, 11));
#endif
}

// How a product meets what is there.
typedef enum { SET, ADD, SUBTRACT } Mode;

// rows x (columns vectors) of C from A, whose entry (i, l) is A[i * down + l * across], and B. All
// of them are read before C is written.
INLINE void tile(int rows, int columns, Index depth, const REAL *A, Index down, Index across,
                 const REAL *B, Index ldb, REAL *C, Index ldc, Mode mode) {
  vector sum[8][4];
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) sum[i][j] = (vector){0};
  for (Index l = 0; l < depth; l++) {
    vector b[4];
    for (int j = 0; j < columns; j++) {
      b[j] = load(B + l * ldb + j * LANES);
      IN_REGISTER(b[j]);
    }
    for (int i = 0; i < rows; i++) {
      vector a = all(A[i * down + l * across]);
      for (int j = 0; j < columns; j++) sum[i][j] += a * b[j];
    }
  }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) {
      REAL *c = C + i * ldc + j * LANES;
      if (mode == SET) store(c, sum[i][j]);
      if (mode == ADD) store(c, load(c) + sum[i][j]);
      if (mode == SUBTRACT) store(c, load(c) - sum[i][j]);
    }
}

INLINE void strip(int columns, Index rows, Index depth, const REAL *A, Index down, Index across,
                  const REAL *B, Index ldb, REAL *C, Index ldc, Mode mode) {
  Index i = 0;
  if (columns == 1)
    for (; i + 8 <= rows; i += 8)
      tile(8, columns, depth, A + i * down, down, across, B, ldb, C + i * ldc, ldc, mode);
  for (; i + 4 <= rows; i += 4)
    tile(4, columns, depth, A + i * down, down, across, B, ldb, C + i * ldc, ldc, mode);
  if (i + 2 <= rows) {
    tile(2, columns, depth, A + i * down, down, across, B, ldb, C + i * ldc, ldc, mode);
    i += 2;
  }
  if (i < rows) tile(1, columns, depth, A + i * down, down, across, B, ldb, C + i * ldc, ldc, mode);
}

// C = A B, or added to or subtracted from C: (rows, depth) with strides (down, across) times
// (depth, width), width padded.
INLINE void product_as(Mode mode, Index rows, Index width, Index depth, const REAL *A, Index down,
                       Index across, const REAL *B, Index ldb, REAL *C, Index ldc) {
  Index j = 0, left = width / LANES;
  while (left > 0) {
    int columns = left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3;
    const REAL *b = B + j * LANES;
    REAL *c = C + j * LANES;
    if (columns == 1) strip(1, rows, depth, A, down, across, b, ldb, c, ldc, mode);
    if (columns == 2) strip(2, rows, depth, A, down, across, b, ldb, c, ldc, mode);
    if (columns == 3) strip(3, rows, depth, A, down, across, b, ldb, c, ldc, mode);
    j += columns, left -= columns;
  }
}

static void product(Index rows, Index width, Index depth, const REAL *A, Index down, Index across,
                    const REAL *B, Index ldb, REAL *C, Index ldc) {
  product_as(SET, rows, width, depth, A, down, across, B, ldb, C, ldc);
}

static void add_product(Index rows, Index width, Index depth, const REAL *A, Index down,
                        Index across, const REAL *B, Index ldb, REAL *C, Index ldc) {
  product_as(ADD, rows, width, depth, A, down, across, B, ldb, C, ldc);
}

static void subtract_product(Index rows, Index width, Index depth, const REAL *A, Index down,
                             Index across, const REAL *B, Index ldb, REAL *C, Index ldc) {
  product_as(SUBTRACT, rows, width, depth, A, down, across, B, ldb, C, ldc);
}

static REAL dot(Index width, const REAL *x, const REAL *y) {
  vector a = {0}, b = {0};
  Index j = 0;
  for (; j + 2 * LANES <= width; j += 2 * LANES) {
    a += load(x + j) * load(y + j);
    b += load(x + j + LANES) * load(y + j + LANES);
  }
  if (j < width) a += load(x + j) * load(y + j);
  return total(a + b);
}

// h[i] = rows_i . x of `count` rows, a multiple of LANES of up to 8: sums that do not wait for each
// other.
INLINE void some_dots(int count, Index width, const REAL *rows, Index ld, const REAL *x, REAL *h) {
  vector sum[8] = {{0}};
  for (Index j = 0; j < width; j += LANES) {
    vector y = load(x + j);
    for (int i = 0; i < count; i++) sum[i] += load(rows + i * ld + j) * y;
  }
  for (int i = 0; i < count; i += LANES) store(h + i, totals(sum + i));
}

static void dots(Index count, Index width, const REAL *rows, Index ld, const REAL *x, REAL *h) {
  Index i = 0;
  for (; i + 8 <= count; i += 8) some_dots(8, width, rows + i * ld, ld, x, h + i);
  for (; i + LANES <= count; i += LANES) some_dots(LANES, width, rows + i * ld, ld, x, h + i);
  for (; i < count; i++) h[i] = dot(width, rows + i * ld, x);
}

// x += sum_i h[i] rows_i, or x -= with sign -1.
static void add_rows(Index count, Index width, const REAL *rows, Index ld, const REAL *h, REAL sign,
                     REAL *x) {
  Index j = 0;
  for (; j + 8 * LANES <= width; j += 8 * LANES) {
    vector sum[8];
    for (int q = 0; q < 8; q++) sum[q] = load(x + j + q * LANES);
    for (Index i = 0; i < count; i++) {
      vector a = all(sign * h[i]);
      const REAL *r = rows + i * ld + j;
      for (int q = 0; q < 8; q++) sum[q] += a * load(r + q * LANES);
    }
    for (int q = 0; q < 8; q++) store(x + j + q * LANES, sum[q]);
  }
  for (; j < width; j += LANES) {
    vector sum = load(x + j);
    for (Index i = 0; i < count; i++) sum += all(sign * h[i]) * load(rows + i * ld + j);
    store(x + j, sum);
  }
}

// y += W x and z += W^T w in one pass over W; rows and width are multiples of 8.
static void both_products(Index rows, Index width, const REAL *W, Index ld, const REAL *x, REAL *y,
                          const REAL *w, REAL *z) {
  for (Index i = 0; i < rows; i += 8) {
    const REAL *r = W + i * ld;
    vector sum[8] = {{0}};
    for (Index j = 0; j < width; j += LANES) {
      vector have = load(x + j), make = load(z + j);
      for (int q = 0; q < 8; q++) {
        vector entry = load(r + q * ld + j);
        IN_REGISTER(entry);
        sum[q] += entry * have;
        make += entry * all(w[i + q]);
      }
      store(z + j, make);
    }
    for (int q = 0; q < 8; q += LANES) store(y + i + q, load(y + i + q) + totals(sum + q));
  }
}

// The inverse of n rows in place by Gauss-Jordan elimination without pivots; not finite if a pivot
// vanishes.
static void invert(Index n, REAL *A, Index ld) {
  for (Index k = 0; k < n; k++) {
    REAL *own = A + k * ld, inverse = 1 / own[k];
    own[k] = 1;
    for (Index j = 0; j < n; j++) own[j] *= inverse;
    for (Index i = 0; i < n; i++) {
      if (i == k) continue;
      REAL *row = A + i * ld, factor = row[k];
      row[k] = 0;
      for (Index j = 0; j < n; j++) row[j] -= factor * own[j];
    }
  }
}

// The same of a block of ROWS x ROWS, in registers.
static void invert_block(REAL *A, Index ld) {
  enum { WIDE = ROWS * sizeof(REAL) / VECTOR_BYTES };
  vector x[ROWS][WIDE];
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < WIDE; j++) x[i][j] = load(A + i * ld + j * LANES);
#pragma GCC unroll 8
  for (int k = 0; k < ROWS; k++) {
    REAL inverse = 1 / x[k][k / LANES][k % LANES];
    vector own[WIDE];
    x[k][k / LANES][k % LANES] = 1;
    for (int j = 0; j < WIDE; j++) own[j] = x[k][j] * all(inverse);
    for (int i = 0; i < ROWS; i++) {
      if (i == k) continue;
      vector factor = all(x[i][k / LANES][k % LANES]);
      x[i][k / LANES][k % LANES] = 0;
      for (int j = 0; j < WIDE; j++) x[i][j] -= factor * own[j];
    }
    for (int j = 0; j < WIDE; j++) x[k][j] = own[j];
  }
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < WIDE; j++) store(A + i * ld + j * LANES, x[i][j]);
}
