// Krylov bases of one network from both sides, by the threads of a block: `loss/arnoldi.py`, whose
// notation this keeps, says why.

// A vector j + 1, of which x is what this lane has, becomes orthonormal to those before, by one
// warp; row j of H is what it was made of.
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
  // of length or, of an inverse, 1, whichever is larger
  const REAL least = 4 * EPSILON * EPSILON;
  const REAL inverse = left > least * fmax(length, (REAL)INVERSE_IN_REGISTERS) ? RSQRT(left) : 0;
#pragma unroll
  for (int i = 0; i < NUM_PAIRS; i++) {
    const PAIR unit = {x[i].x * inverse, x[i].y * inverse};
    if (LANE + 32 * i < PADDED / 2) ((PAIR *)(vectors + (j + 1) * PADDED))[LANE + 32 * i] = unit;
  }
  if (LANE == 0) row[j + 1] = left * inverse;
}

// Lets both bases, which hold `count` products already, grow to m vectors and one more.
DEVICE void grow(Space *s, const REAL *a, int count, int m) {
#pragma unroll 1
  for (int j = count; j < m; j++) {
    REAL *v = basis(s, 0) + j * PADDED, *u = basis(s, 1) + j * PADDED;
    both_products(a, v, u, v + PADDED, s->parts);
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
        if (INVERSE_IN_REGISTERS) {
          const REAL shift = 1 + (REAL)SHIFT;
          x[i].x = shift * x[i].x - last[k].x, x[i].y = shift * x[i].y - last[k].y;
        }
      }
      orthogonalise(s, WARP, j, x);
    }
    __syncthreads();
  }
}
