// W of a network whose inverse does not pay, or is too large to be kept: read once for each pair of
// vectors, by rows, of which every warp has some.

// Of a warp at a time: rows, and pairs of columns of a lane.
enum { ROWS = 8, PANEL = NUM_PAIRS < 4 ? NUM_PAIRS : 4 };

// Numbers 2k and 2k + 1 of a row of W; zero where it is padded.
DEVICE PAIR entries(const REAL *W, int row, int k) {
  PAIR have = {0, 0};
  const int column = 2 * k, inside = row < UNITS;
  const REAL *at = W + (size_t)row * UNITS + column;
  if (UNITS % 2 == 0) {
    if (inside && column < UNITS) have = *(const PAIR *)at;
  } else {
    if (inside && column < UNITS) have.x = at[0];
    if (inside && column + 1 < UNITS) have.y = at[1];
  }
  return have;
}

// Loads a network. Returns 0, or NaN if a parameter is not finite. Leaves |W|² in `sums`, the
// inverse of the target's 1 + p - W in `outer`, and the
// first vectors in the bases.
DEVICE REAL prepare(Space *s, const Problem *p, const REAL *W) {
  load_vectors(s, p);
  REAL squared = 0, nothing = 0;
#pragma unroll 1
  for (int row = WARP; row < UNITS; row += WARPS)
#pragma unroll
    for (int i = 0; i < NUM_PAIRS; i++) {
      const PAIR have = entries(W, row, LANE + 32 * i);
      squared += have.x * have.x + have.y * have.y;
      nothing +=
          0 * have.x + 0 * have.y;  // NaN by what is not finite, if a square overflows or not
    }
  squared = total(squared), nothing = total(nothing);
  if (LANE == 0) s->sums[WARP] = squared, s->sums[WARPS + WARP] = nothing;
  __syncthreads();
  if (THREAD == 0) invert_alone(TARGET_UNITS, s->outer);
  squared = nothing = 0;
  for (int i = 0; i < WARPS; i++) squared += s->sums[i], nothing += s->sums[WARPS + i];
  const REAL of_u = total(part_of_squares(PADDED, basis(s, 0), 1));
  const REAL of_v = total(part_of_squares(PADDED, basis(s, 1), 1));
  if (!isfinite(nothing + of_u + of_v)) return NAN;
  const REAL lengths[2] = {SQRT(of_u), SQRT(of_v)};
  __syncthreads();
  normalise(s, lengths, squared);
  __syncthreads();
  return 0;
}

// y = W x, and z = W^T w in parts, one of every warp. A panel of columns after another, so that
// there are registers for many loads at a time.
DEVICE void both_products(const REAL *W, const REAL *x, const REAL *w, REAL *y, REAL *parts) {
#pragma unroll 1
  for (int left = LANE; left < PADDED / 2; left += 32 * PANEL) {
    PAIR own[PANEL], z[PANEL];
#pragma unroll
    for (int i = 0; i < PANEL; i++) {
      own[i].x = own[i].y = z[i].x = z[i].y = 0;
      if (left + 32 * i < PADDED / 2) own[i] = ((const PAIR *)x)[left + 32 * i];
    }
#pragma unroll 1
    for (int first = WARP * ROWS; first < PADDED; first += WARPS * ROWS) {
      REAL sums[ROWS];
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const REAL by = w[first + r];
        sums[r] = 0;
#pragma unroll
        for (int i = 0; i < PANEL; i++) {
          const PAIR have = entries(W, first + r, left + 32 * i);
          sums[r] += have.x * own[i].x + have.y * own[i].y;
          z[i].x += by * have.x, z[i].y += by * have.y;
        }
      }
      const int r = fold(sums, ROWS, 1, 32);
      if (LANE < ROWS) y[first + r] = (left < 32 * PANEL ? 0 : y[first + r]) + sums[0];
    }
#pragma unroll
    for (int i = 0; i < PANEL; i++)
      if (left + 32 * i < PADDED / 2) ((PAIR *)(parts + WARP * PADDED))[left + 32 * i] = z[i];
  }
}

// U_i . V_j of all vectors, in rows of ld; a warp has one i and eight j at a time.
DEVICE void overlap(Space *s, int m, int ld) {
  const int wide = m / 8 + 1;
#pragma unroll 1
  for (int piece = WARP; piece < (m + 1) * wide; piece += WARPS) {
    const int i = piece / wide, first = piece % wide * 8;
    const PAIR *u = (const PAIR *)(basis(s, 1) + i * PADDED);
    REAL h[8];
#pragma unroll
    for (int k = 0; k < 8; k++) {
      const PAIR *v = (const PAIR *)(basis(s, 0) + (first + k <= m ? first + k : m) * PADDED);
      h[k] = 0;
#pragma unroll 4
      for (int l = LANE; l < PADDED / 2; l += 32) h[k] += u[l].x * v[l].x + u[l].y * v[l].y;
    }
    const int j = first + fold(h, 8, 1, 32);
    if (LANE < 8 && j <= m) s->overlaps[i * ld + j] = h[0];
  }
  __syncthreads();
}

// W = U^T C V, C in rows of n, a strip of C V after another.
DEVICE void expand_square(Space *s, int m, int n, const REAL *C, REAL *wide, REAL *W) {
#pragma unroll 1
  for (int left = 0; left < PADDED; left += SQUARE) {
    const REAL *V = basis(s, 0) + left;
#pragma unroll 1
    for (int piece = THREAD; piece < m * (SQUARE / 2); piece += THREADS) {
      const int k = piece / (SQUARE / 2), pair = piece % (SQUARE / 2);
      PAIR sum = {0, 0};
#pragma unroll 4
      for (int l = 0; l < m; l++) {
        const PAIR have = ((const PAIR *)(V + l * PADDED))[pair];
        sum.x += C[k * n + l] * have.x, sum.y += C[k * n + l] * have.y;
      }
      ((PAIR *)(wide + k * SQUARE))[pair] = sum;
    }
    __syncthreads();
#pragma unroll 1
    for (int top = 0; top < PADDED; top += SQUARE) {
      REAL a[TILE * TILE];
#pragma unroll
      for (int i = 0; i < TILE * TILE; i++) a[i] = 0;
#pragma unroll 2
      for (int k = 0; k < m; k++) add_outer(basis(s, 1) + k * PADDED + top, wide + k * SQUARE, a);
      store_tile(a, W, top, left);
    }
    __syncthreads();
  }
}
