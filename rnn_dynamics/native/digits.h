// Products of matrices in twice the digits, by products of slices that are exact: it matters neither how those are summed nor what is fused.
//
// Source: Ozaki, Ogita, Oishi and Rump, Numerical Algorithms 59, 95 (2012).

#define DIGITS (BITS == 64 ? 53 : 24)

// A sum of two numbers, of which the second is small.
typedef struct {
  REAL *high, *low;
} Pair;

// x + y, and what it lacks, exactly.
INLINE REAL sum_exactly(REAL x, REAL y, REAL *lost) {
  REAL sum = x + y, own = sum - x;
  *lost = (x - (sum - own)) + (y - own);
  return sum;
}

static REAL largest(Index rows, Index width, const REAL *x, Index ld) {
  REAL most = 0;
  for (Index i = 0; i < rows; i++)
    for (Index j = 0; j < width; j++) most = fmax(most, fabs(x[i * ld + j]));
  return most;
}

// x as a sum of three matrices, one after the other in `slices`: of the first two, each entry is a whole number of `bits` bits, in units that they share.
static void slice(Index rows, Index width, const REAL *x, Index ld, int bits, REAL *slices) {
  int exponent;
  frexp(largest(rows, width, x, ld), &exponent);
  // what is added and taken away again leaves no bit below
  const vector first = all(ldexp(1.5, exponent - bits + DIGITS - 1));
  const vector second = all(ldexp(1.5, exponent - 2 * bits + DIGITS - 1));
  const Index apart = rows * ld;
  for (Index i = 0; i < rows; i++)
    for (Index j = 0; j < width; j += LANES) {
      REAL *to = slices + i * ld + j;
      vector entry = load(x + i * ld + j), upper = (entry + first) - first, rest = entry - upper;
      vector middle = (rest + second) - second;
      store(to, upper), store(to + apart, middle), store(to + 2 * apart, rest - middle);
    }
}

// A B as a pair: (rows, depth) times (depth, width), the latter with rows of ld, as the pair has; width and ld are padded. `room` is of
// 3 (rows lda + depth ld) + rows ld numbers.
static void exact_product(Index rows, Index width, Index depth, const REAL *A, Index lda, const REAL *B,
                          Index ld, Pair found, REAL *room) {
  int bits = DIGITS;
  for (Index most = 1; most < depth; most *= 2) bits--;
  bits /= 2;
  const Index aside = rows * lda, below = depth * ld;
  REAL *a = room, *b = a + 3 * aside, *middle = b + 3 * below;
  slice(rows, padded(depth, LANES), A, lda, bits, a);
  slice(depth, width, B, ld, bits, b);
  product(rows, width, depth, a, lda, 1, b, ld, found.high, ld);
  product(rows, width, depth, a, lda, 1, b + below, ld, middle, ld);
  add_product(rows, width, depth, a + aside, lda, 1, b, ld, middle, ld);
  // none of the rest needs all of its digits
  product(rows, width, depth, a, lda, 1, b + 2 * below, ld, found.low, ld);
  for (Index i = 0; i < below; i += LANES)
    store(b + below + i, load(b + below + i) + load(b + 2 * below + i));
  add_product(rows, width, depth, a + aside, lda, 1, b + below, ld, found.low, ld);
  add_product(rows, width, depth, a + 2 * aside, lda, 1, B, ld, found.low, ld);
  for (Index i = 0; i < rows; i++)
    for (Index j = 0; j < width; j++) {
      REAL *high = found.high + i * ld + j, *low = found.low + i * ld + j, lost;
      REAL sum = sum_exactly(*high, middle[i * ld + j], &lost);
      *high = sum_exactly(sum, lost + *low, low);
    }
}
