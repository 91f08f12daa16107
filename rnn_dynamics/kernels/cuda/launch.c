// Launches `gradient.cu`, compiled elsewhere, as a call that XLA makes: the driver's functions are
// looked up, so that nothing of CUDA is
// needed to compile this.

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

enum { MOST_KERNELS = 256, MOST_ATTEMPTS = 16, PARAMETERS = 7, RESULTS = 8, TURNS = 5 };
enum { SHARED_BYTES_OF_KERNEL = 8 };  // CUfunction_attribute
enum {
  PROCESSORS = 16,
  SHARED_BYTES = 81,
  SHARED_BYTES_OF_BLOCK = 97,
  LIMITS = 3
};  // CUdevice_attribute

typedef int Status;  // 0 is success
static struct {
  Status (*cuInit)(unsigned);
  Status (*cuDeviceGetCount)(int *);
  Status (*cuDeviceGet)(int *, int);
  Status (*cuDeviceGetAttribute)(int *, int, int);
  Status (*cuLibraryLoadData)(void **, const void *, void *, void **, unsigned, void *, void **,
                              unsigned);
  Status (*cuLibraryGetKernel)(void **, void *, const char *);
  Status (*cuKernelSetAttribute)(int, int, void *, int);
  Status (*cuLaunchKernel)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                           unsigned, void *, void **, void **);
  Status (*cuGetErrorString)(Status, const char **);
} driver;

// As `gradient.cu` knows it.
typedef struct {
  double aim;
  double largest[MOST_ATTEMPTS];
  int size[MOST_ATTEMPTS];
  int count, first, last;
} Plan;

static struct {
  int64_t id;
  void *kernel;
} kernels[MOST_KERNELS];
static int count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *text_of(Status status) {
  const char *text = NULL;
  if (driver.cuGetErrorString) driver.cuGetErrorString(status, &text);
  return text ? text : "the driver failed";
}

static const char *find_driver(void) {
  static const char *const names[] = {"cuInit",
                                      "cuDeviceGetCount",
                                      "cuDeviceGet",
                                      "cuDeviceGetAttribute",
                                      "cuLibraryLoadData",
                                      "cuLibraryGetKernel",
                                      "cuKernelSetAttribute",
                                      "cuLaunchKernel",
                                      "cuGetErrorString"};
  if (driver.cuGetErrorString) return NULL;
  void *library = dlopen("libcuda.so.1", RTLD_NOW);
  if (library == NULL) return "there is no CUDA driver";
  void *found[sizeof names / sizeof *names];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if ((found[i] = dlsym(library, names[i])) == NULL) return "the CUDA driver is older than 12.0";
  memcpy(&driver, found, sizeof found);
  Status status = driver.cuInit(0);
  return status ? text_of(status) : NULL;
}

// The least of all devices: of processors, and bytes of shared memory of one and of a block.
// Returns what is wrong, or NULL.
const char *rnn_dynamics_limits(int *limits) {
  static const int asked[LIMITS] = {PROCESSORS, SHARED_BYTES, SHARED_BYTES_OF_BLOCK};
  int devices = 0, device, limit;
  const char *wrong = find_driver();
  if (wrong) return wrong;
  Status status = driver.cuDeviceGetCount(&devices);
  for (int i = 0; i < devices && !status; i++) {
    if ((status = driver.cuDeviceGet(&device, i))) break;
    for (int j = 0; j < LIMITS && !status; j++) {
      status = driver.cuDeviceGetAttribute(&limit, asked[j], device);
      if (i == 0 || limit < limits[j]) limits[j] = limit;
    }
  }
  return status ? text_of(status) : devices ? NULL : "there is no device";
}

// Loads a kernel under a number, to be called with up to so many bytes of shared memory. Returns
// what is wrong, or NULL.
const char *rnn_dynamics_load(int64_t id, const void *compiled, int bytes) {
  void *library, *kernel;
  int devices = 0, device;
  const char *wrong = find_driver();
  if (wrong) return wrong;
  Status status = driver.cuLibraryLoadData(&library, compiled, NULL, NULL, 0, NULL, NULL, 0);
  if (!status) status = driver.cuLibraryGetKernel(&kernel, library, "rnn_dynamics_gradients");
  if (!status) status = driver.cuDeviceGetCount(&devices);
  for (int i = 0; i < devices && !status; i++) {
    status = driver.cuDeviceGet(&device, i);
    if (!status)
      status = driver.cuKernelSetAttribute(SHARED_BYTES_OF_KERNEL, bytes, kernel, device);
  }
  if (status) return text_of(status);
  pthread_mutex_lock(&lock);
  int room = count < MOST_KERNELS;
  if (room) {
    kernels[count].id = id, kernels[count].kernel = kernel;
    count++;
  }
  pthread_mutex_unlock(&lock);
  return room ? NULL : "there are too many kernels";
}

static void *kernel_of(int64_t id) {
  void *found = NULL;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < count; i++)
    if (kernels[i].id == id) found = kernels[i].kernel;
  pthread_mutex_unlock(&lock);
  return found;
}

static XLA_FFI_Error *complain(XLA_FFI_CallFrame *frame, XLA_FFI_Error_Code code, const char *why) {
  XLA_FFI_Error_Create_Args args = {
      .struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE, .message = why, .errc = code};
  return frame->api->XLA_FFI_Error_Create(&args);
}

// Arguments and results as of `gradient.c`, but that bases of W have a result of their own, the
// last. Attributes, in the order of their names: aim; blocks, that members of later launches share;
// bytes of
// shared memory of each launch; ends, the attempt before which each ends; kernel, its number;
// largest; sizes; threads.
XLA_FFI_Error *rnn_dynamics_launch(XLA_FFI_CallFrame *frame) {
  const XLA_FFI_Metadata_Extension *asked = (const void *)frame->extension_start;
  if (asked && asked->extension_base.type == XLA_FFI_Extension_Metadata) {
    asked->metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    asked->metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    asked->metadata->traits = XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE;
    asked->metadata->state_type_id.type_id = 0;  // keeps no state
    return NULL;
  }
  const int results = (int)frame->rets.size;
  if (frame->args.size != PARAMETERS || results < RESULTS - 1 || results > RESULTS ||
      frame->attrs.size != 8)
    return complain(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "Not the arguments of a gradient.");
  XLA_FFI_Buffer **in = (XLA_FFI_Buffer **)frame->args.args;
  XLA_FFI_Buffer **out = (XLA_FFI_Buffer **)frame->rets.rets;
  void **attributes = frame->attrs.attrs;
#define SCALAR(type, i) (*(type *)((const XLA_FFI_Scalar *)attributes[i])->value)
#define ARRAY(i) ((const XLA_FFI_Array *)attributes[i])
  void *kernel = kernel_of(SCALAR(int64_t, 4));
  if (kernel == NULL)
    return complain(frame, XLA_FFI_Error_Code_FAILED_PRECONDITION,
                    "This kernel was loaded by another process.");

  int members = 1;
  for (int64_t i = 0; i + 1 < in[1]->rank; i++) members *= (int)in[1]->dims[i];
  if (members == 0) return NULL;
  Plan plan = {.aim = SCALAR(double, 0), .count = (int)ARRAY(6)->size};
  if (plan.count > MOST_ATTEMPTS)
    return complain(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "More sizes than there may be.");
  memcpy(plan.largest, ARRAY(5)->data, ARRAY(5)->size * sizeof(double));
  memcpy(plan.size, ARRAY(6)->data, ARRAY(6)->size * sizeof(int32_t));
  const int32_t *bytes = ARRAY(2)->data, *ends = ARRAY(3)->data;
  XLA_FFI_Stream_Get_Args stream = {.struct_size = XLA_FFI_Stream_Get_Args_STRUCT_SIZE,
                                    .ctx = frame->ctx};
  XLA_FFI_Error *wrong = frame->api->XLA_FFI_Stream_Get(&stream);
  if (wrong) return wrong;

  void *nothing = NULL, *arguments[2 + PARAMETERS + RESULTS] = {&members, &plan};
  for (int i = 0; i < PARAMETERS; i++) arguments[2 + i] = &in[i]->data;
  for (int i = 0; i < RESULTS; i++)
    arguments[2 + PARAMETERS + i] = i < results ? &out[i]->data : &nothing;
  for (size_t i = 0; i < ARRAY(3)->size; i++) {
    plan.first = plan.last, plan.last = ends[i];
    int blocks = i == 0 || members < SCALAR(int32_t, 1) ? members : SCALAR(int32_t, 1);
    Status status =
        driver.cuLaunchKernel(kernel, (unsigned)blocks, 1, 1, (unsigned)SCALAR(int32_t, 7), 1, 1,
                              (unsigned)bytes[i], stream.stream, arguments, NULL);
    if (status) return complain(frame, XLA_FFI_Error_Code_INTERNAL, text_of(status));
    arguments[1 + PARAMETERS] = &out[TURNS]->data;  // turns as the launch before has left them
  }
  return NULL;
}
