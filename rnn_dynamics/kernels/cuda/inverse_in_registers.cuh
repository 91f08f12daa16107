// The inverse of 1 + p - W, a tile of it in the registers of each thread.

// The tile of W, (UNITS, UNITS); zero where it is padded.
DEVICE void load_tile(const REAL *W, REAL *a) {
#pragma unroll
  for (int i = 0; i < TILE; i++)
#pragma unroll
    for (int j = 0; j < TILE; j += 2) {
      const int row = PLACE(DOWN, i), column = PLACE(ACROSS, j), inside = row < UNITS;
      PAIR have = {0, 0};
      if (UNITS % 2 == 0) {
        if (inside && column < UNITS) have = *(const PAIR *)(W + row * UNITS + column);
      } else {
        if (inside && column < UNITS) have.x = W[row * UNITS + column];
        if (inside && column + 1 < UNITS) have.y = W[row * UNITS + column + 1];
      }
      a[i * TILE + j] = have.x, a[i * TILE + j + 1] = have.y;
    }
}

// y = M x of the matrix that is kept.
DEVICE void times(const REAL *a, const REAL *x, REAL *y) {
  REAL have[TILE], sums[FOLDED];
  fetch(x, ACROSS, have);
#pragma unroll
  for (int i = 0; i < FOLDED; i++) {
    sums[i] = 0;
#pragma unroll
    for (int j = 0; j < TILE; j++)
      if (i < TILE) sums[i] += a[i * TILE + j] * have[j];
  }
  const int i = fold(sums, FOLDED, 1, GRID);
  if (i < TILE) y[PLACE(DOWN, i)] = sums[0];
}

// z = M^T w in parts, one of every warp.
DEVICE void transposed_times(const REAL *a, const REAL *w, REAL *parts) {
  REAL have[TILE], sums[FOLDED];
  fetch(w, DOWN, have);
#pragma unroll
  for (int j = 0; j < FOLDED; j++) {
    sums[j] = 0;
#pragma unroll
    for (int i = 0; i < TILE; i++)
      if (j < TILE) sums[j] += a[i * TILE + j] * have[i];
  }
  const int base = fold(sums, FOLDED, GRID, 32 / GRID);
#pragma unroll
  for (int j = 0; j < FOLDED / (32 / GRID); j++)
    if (base + j < TILE) parts[WARP * PADDED + PLACE(ACROSS, base + j)] = sums[j];
}

// The inverse of the matrix that is kept, in place, by Gauss-Jordan elimination without pivots;
// `lines` has room for four vectors. Every row is one
// outer product that leaves the inverse's row and column behind.
DEVICE void invert(REAL *a, REAL *lines) {
#pragma unroll 1
  for (int t = 0; t < GRID; t++) {
#pragma unroll
    for (int e = 0; e < TILE; e++) {
      REAL *row = lines + e % 2 * 2 * PADDED, *column = row + PADDED;
      if (DOWN == t) {
#pragma unroll
        for (int j = 0; j < TILE; j += 2) {
          const PAIR own = {a[e * TILE + j], a[e * TILE + j + 1]};
          ((PAIR *)row)[GRID * (j / 2) + ACROSS] = own;
        }
      }
      if (ACROSS == t) {
#pragma unroll
        for (int i = 0; i < TILE; i += 2) {
          const PAIR own = {a[i * TILE + e], a[(i + 1) * TILE + e]};
          ((PAIR *)column)[GRID * (i / 2) + DOWN] = own;
        }
      }
      __syncthreads();
      const REAL pivot = row[PLACE(t, e)], inverse = 1 / pivot;
      REAL r[TILE];
      fetch(row, ACROSS, r);
#pragma unroll
      for (int j = 0; j < TILE; j++) r[j] *= inverse;
      if (ACROSS == t) r[e] = 1 + inverse;
#pragma unroll
      for (int i = 0; i < TILE; i += 2) {
        PAIR c = ((const PAIR *)column)[GRID * (i / 2) + DOWN];
        if (DOWN == t && i == e / 2 * 2) *(e % 2 ? &c.y : &c.x) = pivot - 1;
#pragma unroll
        for (int j = 0; j < TILE; j++) {
          a[i * TILE + j] -= c.x * r[j];
          a[(i + 1) * TILE + j] -= c.y * r[j];
        }
      }
    }
  }
}

// Loads a network, and inverts (1 + p) - W into `a`. Returns the relative error of what that says
// of random signs; NaN if a parameter is not
// finite. Leaves |W|² in `sums`, the inverse of the target's 1 + p - W in `outer`, and the first
// vectors in the bases.
DEVICE REAL prepare(Space *s, const Problem *p, REAL *a) {
  const REAL shift = 1 + (REAL)SHIFT, one = 1 / SQRT((REAL)UNITS);
  REAL *signs = s->vectors + PADDED, *made = s->parts, *gaps = made + PADDED, *lines = s->E;
  load_tile(p->W, a);
  load_vectors(s, p);
  for (int i = THREAD; i < PADDED; i += THREADS)
    signs[i] = i >= UNITS ? 0 : (unsigned)i * 2654435761u >> 16 & 1 ? one : -one;
  REAL sums[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < TILE * TILE; i++) sums[0] += a[i] * a[i];
  sums[0] = total(sums[0]);
  if (LANE == 0) s->sums[WARP] = sums[0];
  __syncthreads();
  times(a, signs, made);
  if (THREAD == 0) invert_alone(TARGET_UNITS, s->outer);
  __syncthreads();
  sums[0] = 0;
  for (int i = 0; i < WARPS; i++) sums[0] += s->sums[i];
  const REAL squared = sums[0];
  sums[0] = part_of_squares(PADDED, made, 1);
  sums[1] = part_of_squares(PADDED, basis(s, 0), 1);
  sums[2] = part_of_squares(PADDED, basis(s, 1), 1);
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
  normalise(s, lengths, squared);
  __syncthreads();
  return isfinite(gap) ? gap : INFINITY;
}

// y = M x, and z = M^T w in parts, of the inverse.
DEVICE void both_products(const REAL *a, const REAL *x, const REAL *w, REAL *y, REAL *parts) {
  times(a, x, y);
  transposed_times(a, w, parts);
}

// U_i . V_j of all vectors, in rows of ld, by pieces of 2 x 2. Each begins somewhere else, so that
// lanes do not read the same bank.
DEVICE void overlap(Space *s, int m, int ld) {
  const int wide = (m + 2) / 2, pairs = PADDED / 2;
  const PAIR *V = (const PAIR *)basis(s, 0), *U = (const PAIR *)basis(s, 1);
#pragma unroll 1
  for (int piece = THREAD; piece < wide * wide; piece += THREADS) {
    const int i = piece / wide * 2, j = piece % wide * 2;
    const PAIR *u = U + i * pairs, *v = V + j * pairs;
    const int under = i < m ? pairs : 0, after = j < m ? pairs : 0;
    REAL x[4] = {0, 0, 0, 0};
    int k = piece % pairs;
#pragma unroll 2
    for (int l = 0; l < pairs; l++) {
      const PAIR a = u[k], b = u[k + under], c = v[k], d = v[k + after];
      x[0] += a.x * c.x + a.y * c.y, x[1] += a.x * d.x + a.y * d.y;
      x[2] += b.x * c.x + b.y * c.y, x[3] += b.x * d.x + b.y * d.y;
      k = k + 1 == pairs ? 0 : k + 1;
    }
    REAL *out = s->overlaps + i * ld + j;
    out[0] = x[0];
    if (j < m) out[1] = x[1];
    if (i < m) out[ld] = x[2];
    if (i < m && j < m) out[ld + 1] = x[3];
  }
  __syncthreads();
}


// W = U^T C V, C in rows of n.
DEVICE void expand_square(Space *s, int m, int n, const REAL *C, REAL *wide, REAL *W) {
  const REAL *V = basis(s, 0), *U = basis(s, 1);
  product(THREAD, THREADS, m, m, C, n, 1, V, wide, PADDED, 65535 / (PADDED / 4) + 1, 0);
  __syncthreads();
  REAL a[TILE * TILE];
#pragma unroll
  for (int i = 0; i < TILE * TILE; i++) a[i] = 0;
#pragma unroll 1
  for (int k = 0; k < m; k++) add_outer(U + k * PADDED, wide + k * PADDED, a);
  store_tile(a, W, 0, 0);
}
