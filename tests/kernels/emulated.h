// A block of a GPU on a CPU: its threads are coroutines that take turns wherever they wait for each other.
//
// Included before a CUDA source that is compiled as C. Lanes or threads that do not meet end the process.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define DEVICE static inline
#define CALLED static
#define KERNEL void
#define PER_LAUNCH const
#define SHARED_MEMORY(name) unsigned char *name = shared_memory

typedef struct { double x, y; } __attribute__((aligned(16))) double2;
typedef struct { float x, y; } __attribute__((aligned(8))) float2;

enum { MOST_THREADS = 1024, STACK_BYTES = 1 << 16, SHARED_BYTES = 232448, TURNS = 1 << 22 };

typedef struct { int arrived, generation; } Meeting;

static struct { unsigned x; } threadIdx, blockIdx, gridDim;
static __attribute__((aligned(16))) unsigned char shared_memory[SHARED_BYTES];
static unsigned char stacks[MOST_THREADS][STACK_BYTES];
static ucontext_t contexts[MOST_THREADS], scheduler;
static Meeting block, warps[MOST_THREADS / 32];
static double lanes[2][MOST_THREADS];
static int parity[MOST_THREADS], ended[MOST_THREADS], number_of_threads;
static void (*body)(void);

static void meet(Meeting *meeting, int count) {
  const int generation = meeting->generation, self = (int)threadIdx.x;
  if (++meeting->arrived == count) {
    meeting->arrived = 0;
    meeting->generation++;
    return;
  }
  for (int turns = 0; meeting->generation == generation; turns++) {
    if (turns == TURNS) {
      fprintf(stderr, "thread %d waits for others for ever\n", self);
      abort();
    }
    swapcontext(&contexts[self], &scheduler);
  }
}

static double rsqrt(double x) { return 1 / sqrt(x); }
static float rsqrtf(float x) { return 1 / sqrtf(x); }
static void __syncthreads(void) { meet(&block, number_of_threads); }

static void __syncwarp(void) { meet(&warps[threadIdx.x / 32], 32); }

static double exchange(double x, int from) {
  const int self = (int)threadIdx.x, which = parity[self] ^= 1;
  lanes[which][self] = x;
  meet(&warps[self / 32], 32);
  return lanes[which][from];
}

static double __shfl_xor_sync(unsigned mask, double x, int apart) {
  return exchange(x, (int)threadIdx.x ^ apart);
}

static void run_thread(void) {
  body();
  ended[threadIdx.x] = 1;
}

// Runs blocks one after the other, with shared memory of NaN.
static void launch(void (*kernel)(void), int blocks, int threads) {
  body = kernel, number_of_threads = threads, gridDim.x = (unsigned)blocks;
  for (int b = 0; b < blocks; b++) {
    memset(shared_memory, 0xff, sizeof shared_memory);
    memset(ended, 0, sizeof ended);
    blockIdx.x = (unsigned)b;
    for (int i = 0; i < threads; i++) {
      getcontext(&contexts[i]);
      contexts[i].uc_stack.ss_sp = stacks[i], contexts[i].uc_stack.ss_size = STACK_BYTES;
      contexts[i].uc_link = &scheduler;
      makecontext(&contexts[i], run_thread, 0);
    }
    for (int left = threads; left > 0;) {
      left = 0;
      for (int i = 0; i < threads; i++) {
        if (ended[i]) continue;
        threadIdx.x = (unsigned)i;
        swapcontext(&scheduler, &contexts[i]);
        left += !ended[i];
      }
    }
  }
}
