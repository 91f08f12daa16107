// The GPU's kernel, to be called on a CPU.

// clang-format off
#include "emulated.h"
#include "gradient.cu"
// clang-format on

static int all_members;
static const Plan *the_plan;
static const REAL *in[6];
static REAL *out[6];
static const int *before;
static int *after, *enough;

static void call(void) {
  rnn_dynamics_gradients(all_members, *the_plan, in[0], in[1], in[2], in[3], in[4], in[5], before,
                         out[0], out[1], out[2], out[3], out[4], after, enough, out[5]);
}

void emulate(int blocks, int members, const Plan *plan, const REAL **given, const int *turns,
             REAL **found, int *next_turns, int *attempts) {
  all_members = members, the_plan = plan, before = turns, after = next_turns, enough = attempts;
  memcpy(in, given, sizeof in);
  memcpy(out, found, sizeof out);
  launch(call, blocks, THREADS);
}

// Bytes of shared memory for problems of a size.
int shared_bytes(int size) {
  Space space;
  return (int)sizeof(REAL) * lay_out(&space, (REAL *)shared_memory, size);
}
