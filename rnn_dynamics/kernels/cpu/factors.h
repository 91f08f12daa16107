// A matrix M as (1 + L) D (1 + U) in blocks of ROWS rows, and solutions with it from both sides at
// once.
//
// L and U lie below and above the blocks of the diagonal, which hold the inverses of D. Source:
// Golub and Van Loan, Matrix
// Computations, 3.2 (block elimination).

// In place; n is a multiple of ROWS. Without pivots: what was lost, the caller sees by a residual.
static void factorise(Index n, REAL *M, Index ld) {
  for (Index k = 0; k < n; k += ROWS) {
    Index after = n - k - ROWS;
    REAL *row = M + k * ld, *column = M + k, *block = row + k, *below = block + ROWS * ld;
    subtract_product(n - k, ROWS, k, row, ld, 1, column, ld, block, ld);
    subtract_product(ROWS, after, k, row, ld, 1, column + ROWS, ld, block + ROWS, ld);
    invert_block(block, ld);
    product(after, ROWS, ROWS, below, ld, 1, block, ld, below, ld);
  }
  for (Index k = 0; k < n; k += ROWS) {
    REAL *block = M + k * ld + k;
    for (Index j = ROWS; j < n - k; j += LANES) {
      vector have[ROWS];
      for (int i = 0; i < ROWS; i++) have[i] = load(block + i * ld + j);
      for (int i = 0; i < ROWS; i++) {
        vector sum = {0};
        for (int l = 0; l < ROWS; l++) sum += all(block[i * ld + l]) * have[l];
        store(block + i * ld + j, sum);
      }
    }
  }
}

INLINE void subtract(Index n, REAL *x, const REAL *y) {
  for (Index i = 0; i < n; i += LANES) store(x + i, load(x + i) - load(y + i));
}

// x -= sum_i h[i] rows_i of a block.
INLINE void take_rows(Index width, const REAL *rows, Index ld, const REAL *h, REAL *x) {
  vector factor[ROWS];
  for (int i = 0; i < ROWS; i++) factor[i] = all(h[i]);
  for (Index j = 0; j < width; j += LANES) {
    vector sum = load(x + j);
    for (int i = 0; i < ROWS; i++) sum -= factor[i] * load(rows + i * ld + j);
    store(x + j, sum);
  }
}

// x = M^-1 x and, unless z is NULL, z = M^-T z in place: two passes over the factors.
static void solve(Index n, const REAL *M, Index ld, REAL *x, REAL *z) {
  REAL sums[ROWS];
  for (Index k = 0; k < n; k += ROWS) {
    const REAL *row = M + k * ld;
    some_dots(ROWS, k, row, ld, x, sums);
    subtract(ROWS, x + k, sums);
    if (z) take_rows(n - k - ROWS, row + k + ROWS, ld, z + k, z + k + ROWS);
  }
  for (Index k = 0; k < n; k += ROWS) {
    const REAL *block = M + k * ld + k;
    some_dots(ROWS, ROWS, block, ld, x + k, sums);
    for (int i = 0; i < ROWS; i += LANES) store(x + k + i, load(sums + i));
    if (z == NULL) continue;
    REAL left[ROWS] = {0};
    add_rows(ROWS, ROWS, block, ld, z + k, 1, left);
    for (int i = 0; i < ROWS; i += LANES) store(z + k + i, load(left + i));
  }
  for (Index k = n - ROWS; k >= 0; k -= ROWS) {
    const REAL *row = M + k * ld;
    some_dots(ROWS, n - k - ROWS, row + k + ROWS, ld, x + k + ROWS, sums);
    subtract(ROWS, x + k, sums);
    if (z) take_rows(k, row, ld, z + k, z);
  }
}
