// The gradients of a batch of networks, one after the other, as a call that XLA makes: `loss/columns.py` says what is tried, and when.

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "xla/ffi/api/c_api.h"

#if BITS == 64
#define REAL double
#define MASK int64_t
#define SQRT sqrt
#define FABS fabs
#define EPSILON ((REAL)2.220446049250313e-16)
#define TYPE XLA_FFI_DataType_F64
#else
#define REAL float
#define MASK int32_t
#define SQRT sqrtf
#define FABS fabsf
#define EPSILON ((REAL)1.1920928955078125e-7f)
#define TYPE XLA_FFI_DataType_F32
#endif

// clang-format off
#include "vectors.h"
#include "factors.h"
#include "bases.h"
#include "reduced.h"
#include "digits.h"
#include "refined.h"
// clang-format on

enum { DONE = -2, ANEW = -1 };
enum { W, U, V, TARGET_W, TARGET_U, TARGET_V, PARAMETERS };
enum { VALUE, FOUND_W, FOUND_U, FOUND_V, FOUND_ERRORS, NUMBERS };
enum { RATES = 3 };

typedef struct {
  double aim;
  Index count;            // of the sizes to be tried
  const double *largest;  // weight scale for which each is tried first
  const int32_t *sizes;
} Plan;

// Of all members: what is given, what is found, whose turn it is before and after, and which attempt was enough. With rates a step of
// gradient descent is made: networks move, in place, once their gradient is found.
typedef struct {
  Index members, units, target_units;
  const REAL *given[PARAMETERS], *rates[RATES];
  REAL *found[NUMBERS];
  const int32_t *turn;
  int32_t *next_turn, *attempt;
} Batch;

static int32_t first_attempt(const Plan *plan, const Problem *p) {
  double scale = norm(p->units, p->units, p->W, p->units) / sqrt((double)p->units);
  int32_t turn = 0;
  while (turn < plan->count && scale > plan->largest[turn]) turn++;
  return turn;
}

// A gradient in bases of m vectors, left and right, in the space `in`.
typedef struct {
  Found found;
  Space *in;
  Index m;
  const REAL *left, *right;
} Reduced;

static Reduced reduced_to(Space *s, const Problem *p, Index m, REAL residual) {
  return (Reduced){reduce(s, p, m, residual), s, m, s->U, s->V};
}

// Whether bases leave out no more than is wanted, or than rounding makes anyway.
static int is_enough(const Found *found, const Plan *plan) {
  const double aims[ERRORS] = {LARGEST_VALUE_ERROR, plan->aim};
  int enough = found->reliable;
  for (int i = 0; i < ERRORS; i++)
    enough &= found->truncation[i] <= fmax(aims[i], found->rounding[i]);
  return enough;
}

// Instead of a gradient that has cancelled the same, refined. Returns whether any attempt from this one on is enough for that.
static int refine_instead(Reduced *r, Refined *f, const Plan *plan, const Problem *p, int32_t turn,
                           REAL residual) {
  for (; turn < plan->count; turn++) {
    Index m = plan->sizes[turn] - p->target_units;
    grow(r->in, m);
    Found found = reduce_refined(f, r->in, p, m, residual);
    if (!found.reliable || !(found.truncation[OF_GRADIENT] <= plan->aim)) continue;
    *r = (Reduced){found, &f->space, f->rows, f->Q, f->Q};
    return 1;
  }
  return 0;
}

// Tries from an attempt on. Returns whose turn it is: DONE, or the count of sizes if none was enough, or what was none to begin with.
static int32_t try(Space *s, Refined *f, const Plan *plan, const Problem *p, int32_t turn,
                   const Wanted *out, int32_t *attempt) {
  if (turn < ANEW || turn >= plan->count) return turn;
  REAL residual = prepare(s, p);
  if (isnan(residual)) return DONE;
  if (residual > (REAL)LARGEST_RESIDUAL * EPSILON) return (int32_t)plan->count;
  if (turn == ANEW) turn = first_attempt(plan, p);
  small_target(s, p);
  for (; turn < plan->count; turn++) {
    Index m = plan->sizes[turn] - p->target_units;
    grow(s, m);
    Reduced r = reduced_to(s, p, m, residual);
    int enough = is_enough(&r.found, plan);
    const int last = turn + 1 == plan->count && r.found.reliable;
    if (REFINES && r.found.rounding[OF_GRADIENT] > MOST_ERROR && (enough || last))
      enough |= refine_instead(&r, f, plan, p, turn, residual);
    if (!enough) continue;
    *out->value = r.found.value;
    for (int i = 0; i < ERRORS; i++) out->errors[i] = r.found.truncation[i] + r.found.rounding[i];
    *attempt = turn;
    if (!out->rates[0] || isfinite(*out->value + out->errors[OF_GRADIENT]))
      expand(r.in, p->units, r.m, r.left, r.right, out);
    return DONE;
  }
  return turn;
}

// What a thread computes in stays with it: a system would take so much memory back, and clear every page of it again in the next call.
typedef struct {
  Index units, target_units, most;
  REAL *memory;
} Kept;

static pthread_key_t kept_key;
static pthread_once_t kept_once = PTHREAD_ONCE_INIT;
static int kept_is_possible;

static void let_go(void *kept) {
  free(((Kept *)kept)->memory);
  free(kept);
}

static void make_key(void) { kept_is_possible = pthread_key_create(&kept_key, let_go) == 0; }

// Memory for a space, zero where it is new to this shape; NULL if memory is short.
static REAL *memory_for(Index units, Index target_units, Index most) {
  pthread_once(&kept_once, make_key);
  if (!kept_is_possible) return NULL;
  Kept *kept = pthread_getspecific(kept_key);
  if (kept == NULL) {
    kept = calloc(1, sizeof(Kept));
    if (kept == NULL || pthread_setspecific(kept_key, kept) != 0) {
      free(kept);
      return NULL;
    }
  }
  if (kept->memory && kept->units == units && kept->target_units == target_units && kept->most == most)
    return kept->memory;
  Space space;
  Refined refined;
  size_t numbers = lay_out(&space, NULL, units, target_units, most);
  if (REFINES) numbers += lay_out_refined(&refined, NULL, units, target_units, most);
  size_t bytes = padded((Index)(numbers * sizeof(REAL)), 64);
  free(kept->memory);
  *kept = (Kept){units, target_units, most, aligned_alloc(64, bytes)};
  if (kept->memory) memset(kept->memory, 0, bytes);
  return kept->memory;
}

// Returns 0 if memory is short.
static int find(const Batch *b, const Plan *plan) {
  Index N = b->units, count = b->target_units, most = plan->sizes[plan->count - 1];
  const Index given[] = {N * N, N, N, count * count, count, count}, found[] = {1, N * N, N, N, ERRORS};
  Space space;
  Refined refined;
  REAL *memory = memory_for(N, count, most);
  if (memory == NULL) return 0;
  memory += lay_out(&space, memory, N, count, most);
  if (REFINES) lay_out_refined(&refined, memory, N, count, most);
  for (Index i = 0; i < b->members; i++) {
    const REAL *own[PARAMETERS];
    REAL *out[NUMBERS];
    for (int j = 0; j < PARAMETERS; j++) own[j] = b->given[j] + i * given[j];
    for (int j = 0; j < NUMBERS; j++) out[j] = b->found[j] + i * found[j];
    Problem p = {N, count, own[W], own[U], own[V], own[TARGET_W], own[TARGET_U], own[TARGET_V]};
    Wanted wanted = {out[VALUE], out[FOUND_W], out[FOUND_U], out[FOUND_V], out[FOUND_ERRORS], {NULL}};
    for (int j = 0; j < RATES; j++) {
      int from = W + j, to = FOUND_W + j;
      if (!b->rates[j]) continue;
      wanted.rates[j] = b->rates[j] + i;
      if (own[from] != out[to]) copy(given[from], out[to], own[from]);
    }
    b->attempt[i] = ANEW;
    b->next_turn[i] = try(&space, &refined, plan, &p, b->turn[i], &wanted, b->attempt + i);
    if (b->attempt[i] != ANEW) continue;
    for (int j = 0; j < NUMBERS; j++)
      for (Index k = 0; k < found[j] && (j == VALUE || j == FOUND_ERRORS || !b->rates[0]); k++) out[j][k] = NAN;
  }
  return 1;
}

static XLA_FFI_Error *complain(XLA_FFI_CallFrame *frame, XLA_FFI_Error_Code code, const char *why) {
  XLA_FFI_Error_Create_Args args = {
      .struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE, .message = why, .errc = code};
  return frame->api->XLA_FFI_Error_Create(&args);
}

// Arguments: W, u, v, those of the target, turn, and the rates of W, u and v of a step, if one is to be made, all with the same leading axes.
// Results: value, its gradient in W, u and v, or these after the step, errors of value and gradient, and, as integers, turn and attempt. Attributes, in the order of
// their names: aim, largest, sizes.
XLA_FFI_Error *rnn_dynamics_gradient(XLA_FFI_CallFrame *frame) {
  const XLA_FFI_Metadata_Extension *asked = (const void *)frame->extension_start;
  if (asked && asked->extension_base.type == XLA_FFI_Extension_Metadata) {
    asked->metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    asked->metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    asked->metadata->traits = 0;
    asked->metadata->state_type_id.type_id = 0;  // keeps no state
    return NULL;
  }
  const int steps = frame->args.size == PARAMETERS + 1 + RATES;
  if ((frame->args.size != PARAMETERS + 1 && !steps) || frame->rets.size != NUMBERS + 2 ||
      frame->attrs.size != 3)
    return complain(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "Not the arguments of a gradient.");
  XLA_FFI_Buffer **in = (XLA_FFI_Buffer **)frame->args.args;
  XLA_FFI_Buffer **out = (XLA_FFI_Buffer **)frame->rets.rets;
  const XLA_FFI_Scalar *aim = frame->attrs.attrs[0];
  const XLA_FFI_Array *largest = frame->attrs.attrs[1], *sizes = frame->attrs.attrs[2];
  if (in[W]->dtype != TYPE)
    return complain(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "Not the dtype of this gradient.");
  Plan plan = {*(double *)aim->value, (Index)sizes->size, largest->data, sizes->data};
  Batch batch = {.members = 1,
                 .units = in[U]->dims[in[U]->rank - 1],
                 .target_units = in[TARGET_U]->dims[in[TARGET_U]->rank - 1],
                 .turn = in[PARAMETERS]->data,
                 .next_turn = out[NUMBERS]->data,
                 .attempt = out[NUMBERS + 1]->data};
  for (int64_t i = 0; i + 1 < in[U]->rank; i++) batch.members *= in[U]->dims[i];
  for (int i = 0; i < PARAMETERS; i++) batch.given[i] = in[i]->data;
  for (int i = 0; i < NUMBERS; i++) batch.found[i] = out[i]->data;
  for (int i = 0; i < RATES && steps; i++) batch.rates[i] = in[PARAMETERS + 1 + i]->data;
  if (!find(&batch, &plan))
    return complain(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED,
                    "RESOURCE_EXHAUSTED: Out of memory for the bases of a network.");
  return NULL;
}

// The same without XLA, of one network in bases of one size. Returns whether that is enough.
int rnn_dynamics_gradient_of(int units, int target_units, int size, const REAL *given[],
                             REAL *found[]) {
  const double any = INFINITY, aim = sqrt(EPSILON);
  const int32_t sizes[] = {size}, turn = 0;
  int32_t next_turn, attempt;
  Plan plan = {aim, 1, &any, sizes};
  Batch batch = {1, units, target_units, {0}, {0}, {0}, &turn, &next_turn, &attempt};
  for (int i = 0; i < PARAMETERS; i++) batch.given[i] = given[i];
  for (int i = 0; i < NUMBERS; i++) batch.found[i] = found[i];
  return find(&batch, &plan) && next_turn == DONE;
}
