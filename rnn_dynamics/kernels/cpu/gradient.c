// The gradients of a batch of networks, one after the other, as a call that XLA makes:
// `loss/dispatch.py` says what is tried, and when.

#include <float.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "xla/ffi/api/c_api.h"

#if BITS == 64
#define REAL double
#define MASK int64_t
#define SQRT sqrt
#define FABS fabs
#define LOG log
#define EPSILON ((REAL)2.220446049250313e-16)
#define TYPE XLA_FFI_DataType_F64
#else
#define REAL float
#define MASK int32_t
#define SQRT sqrtf
#define FABS fabsf
#define LOG logf
#define EPSILON ((REAL)1.1920928955078125e-7f)
#define TYPE XLA_FFI_DataType_F32
#endif

#define FMAX(x, y) ((x) > (y) ? (x) : (y))
#define FMIN(x, y) ((x) < (y) ? (x) : (y))

// clang-format off
#include "vectors.h"
#include "factors.h"
#include "bases.h"
#include "reduced.h"
#include "dense.h"
#include "propagator.h"
#include "refine.h"
#include "gramians.h"
// clang-format on

enum { SKIP = -2, BY_WEIGHT_SCALE = -1 };
enum { W, U, V, TARGET_W, TARGET_U, TARGET_V, PARAMETERS };
enum { VALUE, FOUND_W, FOUND_U, FOUND_V, FOUND_ERRORS, NUMBERS };

typedef struct {
  double tolerance;
  int refines;            // gradients that have cancelled
  Index count;            // of the sizes of bases
  const double *largest;  // weight scale for which each is tried first
  const int32_t *sizes;
} Plan;

// Of all members: parameters, results, and the index of the first basis size to try, of all there
// is, and of the one that was enough.
// An index of `count` is that of the dense Gramians.
typedef struct {
  Index members, units, target_units;
  const REAL *parameters[PARAMETERS];
  REAL *results[NUMBERS];
  const int32_t *first;
  int32_t *enough;
} Batch;

static int32_t first_size(const Plan *plan, const Problem *p) {
  double scale = norm(p->units, p->units, p->W, p->units) / sqrt((double)p->units);
  int32_t index = 0;
  while (index < plan->count && scale > plan->largest[index]) index++;
  return index;
}

// Whether bases leave out no more than is wanted, or than rounding makes anyway.
static int is_enough(const Found *found, const Plan *plan) {
  const double tolerances[ERRORS] = {LARGEST_VALUE_ERROR, plan->tolerance};
  int enough = found->reliable;
  for (int i = 0; i < ERRORS; i++)
    enough &= found->truncation[i] <= fmax(tolerances[i], found->rounding[i]);
  return enough;
}

// Bases from a size on. Returns the index of the size that was enough, `count` if none was.
static int32_t compute_in_bases(Space *s, const Plan *plan, const Problem *p, int32_t index,
                                const Results *out) {
  const int32_t none = (int32_t)plan->count;
  REAL residual = prepare(s, p);
  if (!(residual <= (REAL)LARGEST_RESIDUAL * EPSILON)) return none;
  if (index == BY_WEIGHT_SCALE) index = first_size(plan, p);
  small_target(s, p);
  for (; index < none; index++) {
    Index m = plan->sizes[index] - p->target_units;
    grow(s, m);
    Found found = reduce(s, p, m, residual);
    if (!is_enough(&found, plan)) continue;
    *out->value = found.value;
    for (int i = 0; i < ERRORS; i++) out->errors[i] = found.truncation[i] + found.rounding[i];
    expand(s, p->units, m, out);
    return index;
  }
  return none;
}

// What a thread computes in stays with it: a system would take so much memory back, and clear every
// page of it again in the next call.
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

static REAL *cleared_memory(size_t numbers) {
  size_t bytes = (size_t)padded((Index)(numbers * sizeof(REAL)), 64);
  REAL *memory = aligned_alloc(64, bytes);
  if (memory) memset(memory, 0, bytes);
  return memory;
}

// Memory for bases, zero where it is new to this shape; NULL if memory is short.
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
  if (kept->memory && kept->units == units && kept->target_units == target_units &&
      kept->most == most)
    return kept->memory;
  Space space;
  free(kept->memory);
  *kept = (Kept){units, target_units, most,
                 cleared_memory(lay_out(&space, NULL, units, target_units, most))};
  return kept->memory;
}

// Returns 0 if memory is short.
static int compute(const Batch *b, const Plan *plan) {
  Index N = b->units, count = b->target_units;
  const Index given[] = {N * N, N, N, count * count, count, count},
              found[] = {1, N * N, N, N, ERRORS};
  Space space;
  Dense dense;
  REAL *for_bases = NULL, *for_dense = NULL;
  for (Index i = 0; i < b->members; i++) {
    const REAL *own[PARAMETERS];
    REAL *to[NUMBERS];
    for (int j = 0; j < PARAMETERS; j++) own[j] = b->parameters[j] + i * given[j];
    for (int j = 0; j < NUMBERS; j++) to[j] = b->results[j] + i * found[j];
    Problem p = {N, count, own[W], own[U], own[V], own[TARGET_W], own[TARGET_U], own[TARGET_V]};
    Results out = {to[VALUE], to[FOUND_W], to[FOUND_U], to[FOUND_V], to[FOUND_ERRORS]};
    b->enough[i] = b->first[i];
    if (b->first[i] == SKIP) {
      no_result(&p, &out, NAN, NAN);
      continue;
    }
    const int in_bases = plan->count > 0 && b->first[i] < plan->count;
    if (in_bases && !for_bases) {
      const Index most = plan->sizes[plan->count - 1];
      if (!(for_bases = memory_for(N, count, most))) goto short_of_memory;
      lay_out(&space, for_bases, N, count, most);
    }
    b->enough[i] = (int32_t)plan->count;
    if (in_bases) b->enough[i] = compute_in_bases(&space, plan, &p, b->first[i], &out);
    const int good = out.errors[OF_VALUE] <= (REAL)LARGEST_VALUE_ERROR &&
                     out.errors[OF_GRADIENT] <= (REAL)LARGEST_ERROR;
    if (b->enough[i] < plan->count && (good || !plan->refines || BITS < 64)) continue;
    b->enough[i] = (int32_t)plan->count;
    if (!for_dense) {
      for_dense = cleared_memory(lay_out_dense(&dense, NULL, N + count));
      if (!for_dense) goto short_of_memory;
      lay_out_dense(&dense, for_dense, N + count);
    }
    compute_dense(&dense, &p, plan->refines, &out);
  }
  free(for_dense);
  return 1;
short_of_memory:
  free(for_dense);
  return 0;
}

static XLA_FFI_Error *complain(XLA_FFI_CallFrame *frame, XLA_FFI_Error_Code code, const char *why) {
  XLA_FFI_Error_Create_Args args = {
      .struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE, .message = why, .errc = code};
  return frame->api->XLA_FFI_Error_Create(&args);
}

// Arguments: W, u, v, those of the target, and the index of the first basis size, all with the same
// leading axes.
// Results: value, its gradient in W, u and v, errors of value and gradient, and the index that was
// enough. Attributes, in the order of
// their names: largest, refines, sizes, tolerance.
XLA_FFI_Error *rnn_dynamics_gradient(XLA_FFI_CallFrame *frame) {
  const XLA_FFI_Metadata_Extension *asked = (const void *)frame->extension_start;
  if (asked && asked->extension_base.type == XLA_FFI_Extension_Metadata) {
    asked->metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    asked->metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    asked->metadata->traits = 0;
    asked->metadata->state_type_id.type_id = 0;  // keeps no state
    return NULL;
  }
  if (frame->args.size != PARAMETERS + 1 || frame->rets.size != NUMBERS + 1 ||
      frame->attrs.size != 4)
    return complain(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "Not the arguments of a gradient.");
  XLA_FFI_Buffer **in = (XLA_FFI_Buffer **)frame->args.args;
  XLA_FFI_Buffer **out = (XLA_FFI_Buffer **)frame->rets.rets;
  const XLA_FFI_Array *largest = frame->attrs.attrs[0], *sizes = frame->attrs.attrs[2];
  const XLA_FFI_Scalar *refines = frame->attrs.attrs[1], *tolerance = frame->attrs.attrs[3];
  if (in[W]->dtype != TYPE)
    return complain(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "Not the dtype of this gradient.");
  Plan plan = {*(double *)tolerance->value, *(int32_t *)refines->value, (Index)sizes->size,
               largest->data, sizes->data};
  Batch batch = {.members = 1,
                 .units = in[U]->dims[in[U]->rank - 1],
                 .target_units = in[TARGET_U]->dims[in[TARGET_U]->rank - 1],
                 .first = in[PARAMETERS]->data,
                 .enough = out[NUMBERS]->data};
  for (int64_t i = 0; i + 1 < in[U]->rank; i++) batch.members *= in[U]->dims[i];
  for (int i = 0; i < PARAMETERS; i++) batch.parameters[i] = in[i]->data;
  for (int i = 0; i < NUMBERS; i++) batch.results[i] = out[i]->data;
  if (!compute(&batch, &plan))
    return complain(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED,
                    "RESOURCE_EXHAUSTED: Out of memory for the gradient of a network.");
  return NULL;
}

// The same without XLA, of one network, from an index of one basis size on. Returns the index that
// was enough; -1 if memory is short.
int rnn_dynamics_gradient_of(int units, int target_units, int size, int first,
                             const REAL *parameters[], REAL *results[]) {
  const double any = INFINITY, tolerance = sqrt(EPSILON);
  const int32_t sizes[] = {size}, from = first;
  int32_t enough;
  Plan plan = {tolerance, 0, 1, &any, sizes};
  Batch batch = {1, units, target_units, {0}, {0}, &from, &enough};
  for (int i = 0; i < PARAMETERS; i++) batch.parameters[i] = parameters[i];
  for (int i = 0; i < NUMBERS; i++) batch.results[i] = results[i];
  return compute(&batch, &plan) ? enough : -1;
}
