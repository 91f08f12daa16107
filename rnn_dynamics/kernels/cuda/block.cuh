// What the threads of a block do together for one network: sums over lanes, and small products.
// Included once per REAL and UNITS.
//
// The threads are a square grid, each of which has a tile of a square of PADDED or, if W is not
// INVERSE_IN_REGISTERS, SQUARE numbers. Numbers of a tile lie apart
// in pairs, PLACE(t, e) being the row or column of number e in tile t, so that what neighbours read
// together lies together.

#ifdef __CUDACC__
#define DEVICE static __device__ __forceinline__
#define CALLED static __device__ __noinline__  // by many: what is small runs faster
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
#define PER_LAUNCH const __grid_constant__
#define SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#define NAN __int_as_float(0x7fffffff)
#define INFINITY __int_as_float(0x7f800000)
#endif

#if BITS == 64
#define REAL double
#define PAIR double2
#define SQRT sqrt
#define RSQRT rsqrt
#define EPSILON ((REAL)2.220446049250313e-16)
#else
#define REAL float
#define PAIR float2
#define SQRT sqrtf
#define RSQRT rsqrtf
#define EPSILON ((REAL)1.1920928955078125e-7f)
#endif
#define ALL_LANES 0xffffffffu

// INVERSE_IN_REGISTERS: whether the threads keep (1 + p - W)^-1 in registers, in whose bases the
// problem becomes
// small. Otherwise these are of W, which is read
// from memory for each pair of vectors, and may be larger.
#if INVERSE_IN_REGISTERS
#define GRID (UNITS <= 64 ? 8 : 16)
#define TILE (2 * ((UNITS + 2 * GRID - 1) / (2 * GRID)))
#define FOLDED (TILE <= 2 ? 2 : TILE <= 4 ? 4 : TILE <= 8 ? 8 : 16)
#define PADDED (GRID * TILE)
#else
#define GRID 16
#define TILE 4
#define SQUARE (GRID * TILE)
#define PADDED ((UNITS + SQUARE - 1) / SQUARE * SQUARE)
#endif
#define THREADS (GRID * GRID)
#define WARPS (THREADS / 32)
#define NUM_PAIRS ((PADDED + 63) / 64)  // of a vector in a lane

#define THREAD ((int)threadIdx.x)
#define WARP (THREAD / 32)
#define LANE (THREAD % 32)
#define DOWN (THREAD / GRID)
#define ACROSS (THREAD % GRID)
#define PLACE(t, e) (2 * GRID * ((e) / 2) + 2 * (t) + (e) % 2)

// Who finds the Gramian of a small system: a warp for each, both at once, or all threads, one after
// the other, in less memory.
#if INVERSE_IN_REGISTERS
#define TEAM 32
#define MEMBER LANE
#define MEET() __syncwarp()
#else
#define TEAM THREADS
#define MEMBER THREAD
#define MEET() __syncthreads()
#endif

// The sum over the lanes of a warp, the same bits in each.
DEVICE REAL total(REAL x) {
#pragma unroll
  for (int apart = 1; apart < 32; apart *= 2) x += __shfl_xor_sync(ALL_LANES, x, apart);
  return x;
}

// Sums of `count` numbers each over some lanes, a power of two, that are `apart`: in x is what is
// left to this lane, count / lanes of them, or
// one. Returns the index of the first.
DEVICE int fold(REAL *x, int count, int apart, int lanes) {
  int base = 0;
#pragma unroll
  for (int level = 1; level < lanes; level *= 2) {
    const int upper = THREAD / apart % 2;
    if (count > 1) {
      count /= 2;
#pragma unroll
      for (int i = 0; i < count; i++) {
        REAL keep = upper ? x[i + count] : x[i], send = upper ? x[i] : x[i + count];
        x[i] = keep + __shfl_xor_sync(ALL_LANES, send, apart);
      }
      base += upper * count;
    } else {
      x[0] += __shfl_xor_sync(ALL_LANES, x[0], apart);
    }
    apart *= 2;
  }
  return base;
}

// This lane's part of the sum of x[i * across] * y[i * along].
CALLED REAL part_of_dot(int count, const REAL *x, int across, const REAL *y, int along) {
  REAL sum = 0;
#pragma unroll 1
  for (int i = LANE; i < count; i += 32) sum += x[i * across] * y[i * along];
  return sum;
}

DEVICE REAL part_of_squares(int count, const REAL *x, int across) {
  return part_of_dot(count, x, across, x, across);
}

// C = A B, or added to C, in pieces of 2 x 4 that are dealt out to `threads`, of which this is
// number `own`. A has strides (down, across), B and C
// rows of `ld`, a multiple of 4, which C is as wide as; `per` is 2^16 / (ld / 4) rounded up.
CALLED void product(int own, int threads, int rows, int depth, const REAL *A, int down, int across,
                    const REAL *B, REAL *C, int ld, int per, int add) {
  const int wide = ld / 4;
#pragma unroll 1
  for (int piece = own; piece < (rows + 1) / 2 * wide; piece += threads) {
    const int strip = piece * per >> 16, i = strip * 2, j = (piece - strip * wide) * 4;
    const int second = i + 1 < rows;
    const REAL *upper = A + i * down, *lower = second ? upper + down : upper;
    REAL *out = C + i * ld + j;
    REAL x[4], y[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
      x[k] = add ? out[k] : 0;
      y[k] = add && second ? out[ld + k] : 0;
    }
#pragma unroll 4
    for (int l = 0; l < depth; l++) {
      const PAIR *row = (const PAIR *)(B + l * ld + j);
      const PAIR first = row[0], last = row[1];
      const REAL a = upper[l * across], b = lower[l * across];
      x[0] += a * first.x, x[1] += a * first.y, x[2] += a * last.x, x[3] += a * last.y;
      y[0] += b * first.x, y[1] += b * first.y, y[2] += b * last.x, y[3] += b * last.y;
    }
#pragma unroll
    for (int k = 0; k < 4; k++) out[k] = x[k];
    if (second) {
#pragma unroll
      for (int k = 0; k < 4; k++) out[ld + k] = y[k];
    }
  }
}

// The inverse of n rows in place by Gauss-Jordan elimination without pivots, by one thread; not
// finite if a pivot vanishes.
CALLED void invert_alone(int n, REAL *A) {
#pragma unroll 1
  for (int k = 0; k < n; k++) {
    REAL inverse = 1 / A[k * n + k];
    A[k * n + k] = 1;
#pragma unroll 1
    for (int j = 0; j < n; j++) A[k * n + j] *= inverse;
#pragma unroll 1
    for (int i = 0; i < n; i++) {
      if (i == k) continue;
      REAL factor = A[i * n + k];
      A[i * n + k] = 0;
#pragma unroll 1
      for (int j = 0; j < n; j++) A[i * n + j] -= factor * A[k * n + j];
    }
  }
}

// What of a vector belongs to tile t.
DEVICE void fetch(const REAL *x, int t, REAL *own) {
#pragma unroll
  for (int e = 0; e < TILE; e += 2) {
    const PAIR have = ((const PAIR *)x)[GRID * (e / 2) + t];
    own[e] = have.x, own[e + 1] = have.y;
  }
}

// Adds c r^T.
DEVICE void add_outer(const REAL *column, const REAL *row, REAL *a) {
  REAL r[TILE], c[TILE];
  fetch(column, DOWN, c);
  fetch(row, ACROSS, r);
#pragma unroll
  for (int i = 0; i < TILE; i++)
#pragma unroll
    for (int j = 0; j < TILE; j++) a[i * TILE + j] += c[i] * r[j];
}

// Stores a tile of the square that begins there in W, (UNITS, UNITS).
DEVICE void store_tile(const REAL *a, REAL *W, int top, int left) {
#pragma unroll
  for (int i = 0; i < TILE; i++)
#pragma unroll
    for (int j = 0; j < TILE; j += 2) {
      const int row = top + PLACE(DOWN, i), column = left + PLACE(ACROSS, j), inside = row < UNITS;
      const PAIR have = {a[i * TILE + j], a[i * TILE + j + 1]};
      if (UNITS % 2 == 0) {
        if (inside && column < UNITS) *(PAIR *)(W + row * UNITS + column) = have;
      } else {
        if (inside && column < UNITS) W[row * UNITS + column] = have.x;
        if (inside && column + 1 < UNITS) W[row * UNITS + column + 1] = have.y;
      }
    }
}
