// Runs a CUDA kernel's text on a processor: the threads of a block one after the other between two barriers, in either
// order. What depends on the order in which they run, as a missing barrier does, differs between the two orders; shared
// memory that was never written is no number; and writing beyond it is found.

#include <cmath>
#include <ucontext.h>
#include <utility>
#include <vector>

static float* shared;
static int thread_now, threads_now, block_now[2];

static int thread() { return thread_now; }
static int num_threads() { return threads_now; }
static int block(int axis) { return block_now[axis]; }

[[maybe_unused]] static float half_to_float(unsigned short bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float size = exponent ? ldexpf(1024 + fraction, exponent - 25) : ldexpf(fraction, -24);
  if (exponent == 31) size = fraction ? NAN : INFINITY;
  return bits >> 15 ? -size : size;
}

[[maybe_unused]] static unsigned short float_to_half(float value) {
  unsigned short sign = std::signbit(value) << 15;
  float size = fabsf(value);
  if (std::isnan(value)) return 0x7e00;
  if (size >= 65520.0f) return sign | 0x7c00;
  int exponent = size > 0.0f && ilogbf(size) > -14 ? ilogbf(size) : -14;
  // A fraction that is rounded up to 2048 goes over into the exponent, as it ought to.
  return sign | (((exponent + 14) << 10) + (int)nearbyintf(ldexpf(size, 10 - exponent)));
}

namespace host {
enum Fault { NONE, UNEQUAL_BARRIERS, BEYOND_SHARED_MEMORY };
const size_t STACK_BYTES = 256 * 1024;
const int GUARD = 64;  // floats behind the shared memory
const unsigned int NO_NUMBER = 0x7fc0dead;

ucontext_t scheduler;
std::vector<ucontext_t> fibers;
bool waits;
void (*body)();

void run_thread() { body(); }

void run_until_barrier(ucontext_t* fiber) {
  waits = false;
  swapcontext(&scheduler, fiber);
}

void wait() {
  waits = true;
  swapcontext(&fibers[thread_now], &scheduler);
}

Fault run_block(int shared_floats, bool backwards, std::vector<char>& stacks) {
  std::vector<unsigned int> memory(shared_floats + GUARD, NO_NUMBER);
  shared = reinterpret_cast<float*>(memory.data());
  fibers.assign(threads_now, ucontext_t());
  for (int number = 0; number < threads_now; ++number) {
    getcontext(&fibers[number]);
    fibers[number].uc_stack.ss_sp = &stacks[number * STACK_BYTES];
    fibers[number].uc_stack.ss_size = STACK_BYTES;
    fibers[number].uc_link = &scheduler;
    makecontext(&fibers[number], run_thread, 0);
  }
  for (int waiting = threads_now; waiting;) {
    waiting = 0;
    for (int number = 0; number < threads_now; ++number) {
      thread_now = backwards ? threads_now - 1 - number : number;
      run_until_barrier(&fibers[thread_now]);
      waiting += waits;
    }
    if (waiting && waiting != threads_now) return UNEQUAL_BARRIERS;
  }
  for (int place = 0; place < GUARD; ++place)
    if (memory[shared_floats + place] != NO_NUMBER) return BEYOND_SHARED_MEMORY;
  return NONE;
}

void** arguments;

template <class... Types, size_t... Places>
void call(void (*kernel)(Types...), std::index_sequence<Places...>) {
  kernel(*static_cast<Types*>(arguments[Places])...);
}

template <class... Types>
void call(void (*kernel)(Types...)) {
  call(kernel, std::index_sequence_for<Types...>());
}
}  // namespace host

static void barrier() { host::wait(); }

#define HBI_HOST
#include KERNEL_TEXT

// Like cuLaunchKernel: pointers to the kernel's arguments, in order.
extern "C" int launch(int grid_x, int grid_y, int threads, int shared_bytes, int backwards, void** arguments) {
  host::arguments = arguments;
  host::body = [] { host::call(KERNEL_NAME); };
  threads_now = threads;
  std::vector<char> stacks(threads * host::STACK_BYTES);
  for (block_now[1] = 0; block_now[1] < grid_y; ++block_now[1])
    for (block_now[0] = 0; block_now[0] < grid_x; ++block_now[0])
      if (host::Fault fault = host::run_block(shared_bytes / (int)sizeof(float), backwards, stacks)) return fault;
  return host::NONE;
}
