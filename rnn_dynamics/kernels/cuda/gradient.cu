// The gradients of a batch of networks on a GPU, a block for each: `loss/columns.py` says what is
// tried, and when.

// clang-format off
#include "block.cuh"
#include "workspace.cuh"
#if INVERSE_IN_REGISTERS
#include "inverse_in_registers.cuh"
#else
#include "streaming.cuh"
#endif
#include "bases.cuh"
#include "reduced.cuh"
// clang-format on

enum { DONE = -2, ANEW = -1, MOST_ATTEMPTS = 16 };

// The attempts of one launch are those from `first` to before `last`.
typedef struct {
  double aim;
  double largest[MOST_ATTEMPTS];  // weight scale for which each is tried first
  int size[MOST_ATTEMPTS];
  int count, first, last;
} Plan;

typedef struct {
  REAL *value, *W, *u, *v, *errors;
} Gradient;

// That of the weight scale.
DEVICE int first_attempt(const Plan *plan, REAL squared) {
  const double scale = sqrt((double)squared / UNITS);
  int turn = 0;
#pragma unroll 1
  while (turn < plan->count && scale > plan->largest[turn]) turn++;
  return turn;
}

// Back from the bases: W = U^T C V, u = U^T du, v = V^T dv.
DEVICE void expand(Space *s, int m, const Gradient *out) {
  const REAL *V = basis(s, 0), *U = basis(s, 1), *C = s->E + s->square;
#pragma unroll 1
  for (int i = THREAD; i < 2 * PADDED; i += THREADS) {
    const int side = i / PADDED, column = i - side * PADDED;
    const REAL *rows = (side ? V : U) + column, *with = side ? s->by_v : s->by_u;
    REAL sum = 0;
#pragma unroll 4
    for (int k = 0; k < m; k++) sum += with[k] * rows[k * PADDED];
    if (column < UNITS) (side ? out->v : out->u)[column] = sum;
  }
  expand_square(s, m, padded(m + TARGET_UNITS), C, s->E + 2 * s->square, out->W);
}

DEVICE void find_nothing(const Gradient *out) {
#pragma unroll 1
  for (int i = THREAD; i < UNITS * UNITS; i += THREADS) out->W[i] = NAN;
  for (int i = THREAD; i < UNITS; i += THREADS) out->u[i] = out->v[i] = NAN;
  if (THREAD == 0) *out->value = out->errors[OF_VALUE] = out->errors[OF_GRADIENT] = NAN;
}

// Tries from an attempt on. Returns whose turn it is: DONE, or the next launch's, or the count of
// sizes if none was enough.
DEVICE int find(Space *s, const Plan *plan, const Problem *p, int turn, const Gradient *out,
                int *attempt) {
#if INVERSE_IN_REGISTERS
  REAL a[TILE * TILE];
#else
  const REAL *a = p->W;
#endif
  const REAL residual = prepare(s, p, a);
  if (isnan(residual)) return DONE;
  if (residual > (REAL)LARGEST_RESIDUAL * EPSILON) return plan->count;
  if (turn == ANEW) turn = first_attempt(plan, s->sums[0]);
  if (turn >= plan->last) return turn;
  for (int count = 0; turn < plan->last; turn++) {
    int m = plan->size[turn] - TARGET_UNITS;
    grow(s, a, count, m);
    count = m;
    Found small = reduce(s, m, residual);
    const double aims[ERRORS] = {LARGEST_VALUE_ERROR, plan->aim};
    int enough = small.reliable;
    for (int i = 0; i < ERRORS; i++)
      enough &= small.truncation[i] <= fmax(aims[i], (double)small.rounding[i]);
    if (!enough) continue;
    expand(s, m, out);
    if (THREAD == 0) *out->value = small.value;
    if (THREAD < ERRORS) out->errors[THREAD] = small.truncation[THREAD] + small.rounding[THREAD];
    *attempt = turn;
    return DONE;
  }
  return turn;
}

// Members that were not found are NaN after every launch. Without INVERSE_IN_REGISTERS the bases
// are in `vectors`,
// which has as many numbers for each member as those of
// the largest size are.
KERNEL rnn_dynamics_gradients(int members, PER_LAUNCH Plan plan, const REAL *W, const REAL *u,
                              const REAL *v, const REAL *target_W, const REAL *target_u,
                              const REAL *target_v, const int *turns, REAL *value, REAL *by_W,
                              REAL *by_u, REAL *by_v, REAL *errors, int *next_turns, int *attempts,
                              REAL *vectors) {
  SHARED_MEMORY(memory);
  Space space;
  const int n = UNITS, count = TARGET_UNITS;
  lay_out(&space, (REAL *)memory, plan.size[plan.last - 1]);
  for (int i = (int)blockIdx.x; i < members; i += (int)gridDim.x) {
    const int turn = turns[i];
    // after the first, a launch has nothing to say of what is not its own
    if (plan.first > 0 && (turn < plan.first || turn >= plan.count)) continue;
    const Problem p = {
        W + (size_t)i * n * n, u + i * n,           v + i * n, target_W + i * count * count,
        target_u + i * count,  target_v + i * count};
    const Gradient out = {value + i, by_W + (size_t)i * n * n, by_u + i * n, by_v + i * n,
                          errors + ERRORS * i};
    int attempt = ANEW, next = turn;
    if (!INVERSE_IN_REGISTERS)
      space.vectors =
          vectors + (size_t)i * numbers_of_vectors(plan.size[plan.count - 1] - TARGET_UNITS);
    if (turn >= ANEW && turn < plan.last) next = find(&space, &plan, &p, turn, &out, &attempt);
    if (attempt == ANEW) find_nothing(&out);
    if (THREAD == 0) next_turns[i] = next, attempts[i] = attempt;
    __syncthreads();
  }
}
