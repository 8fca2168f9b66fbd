// Shared by all kernels: the threads of a block, and elements of three types, which are computed with as float.
//
// This text precedes every kernel. HBI_ELEMENT is the element type of tensors: 0 float, 1 half, 2 bfloat16. With
// HBI_HOST defined it is C++ for a processor, so that the arithmetic can be tested without a GPU: the including file
// then provides the definitions below #else, from `shared` to float_to_half.

typedef unsigned char Mask;  // element of a bool tensor
typedef long long Slot;

#ifdef HBI_HOST
#define DEVICE static inline
#define PART static  // a part of a kernel that is not inlined
#define KERNEL extern "C" void
#define MINUS_INFINITY -INFINITY
#else
#define DEVICE __device__ __forceinline__
#define PART __device__ __noinline__
#define KERNEL extern "C" __global__ void
#define MINUS_INFINITY __int_as_float(0xff800000)
extern __shared__ float shared[];
DEVICE int thread() { return threadIdx.x; }
DEVICE int num_threads() { return blockDim.x; }
DEVICE int block(int axis) { return axis == 0 ? blockIdx.x : blockIdx.y; }
DEVICE void barrier() { __syncthreads(); }
DEVICE float half_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
DEVICE unsigned short float_to_half(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#endif

#if HBI_ELEMENT == 0
typedef float Element;
DEVICE float load(const Element* from) { return *from; }
DEVICE void store(Element* to, float value) { *to = value; }
#elif HBI_ELEMENT == 1
typedef unsigned short Element;
DEVICE float load(const Element* from) { return half_to_float(*from); }
DEVICE void store(Element* to, float value) { *to = float_to_half(value); }
#else
typedef unsigned short Element;
union FloatBits {
  float value;
  unsigned int bits;
};
DEVICE float load(const Element* from) {
  FloatBits wide;
  wide.bits = (unsigned int)*from << 16;
  return wide.value;
}
DEVICE void store(Element* to, float value) {
  FloatBits wide;
  wide.value = value;
  if (value != value) {
    *to = 0x7fc0;
    return;
  }
  // Rounds to the nearest, ties to even.
  *to = (Element)((wide.bits + 0x7fff + ((wide.bits >> 16) & 1)) >> 16);
}
#endif

#define LOWEST -3.402823466e+38f
#define FARTHEST 3.402823466e+38f
#define COLUMNS 32
#define PITCH 33  // floats of a row of COLUMNS in shared memory: an odd number spreads a column over the banks

// Copies COLUMNS columns of rows (num_rows, width), from column `first` on, into shared memory; 0 beyond the last one.
DEVICE void load_columns(const Element* rows, int num_rows, int width, int first, float* tile) {
  for (int place = thread(); place < num_rows * COLUMNS; place += num_threads()) {
    int row = place / COLUMNS, column = place % COLUMNS;
    bool inside = first + column < width;
    tile[row * PITCH + column] = inside ? load(rows + (long long)row * width + first + column) : 0.0f;
  }
}

// Returns whether the value `theirs` at index j comes before `mine` at i: the larger first, ties by index.
DEVICE bool precedes(float theirs, int j, float mine, int i) { return theirs > mine || (theirs == mine && j < i); }
