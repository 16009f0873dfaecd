// Arithmetic that every K-buffer rasteriser shares: which pixels a point covers and in which order
// points are drawn. Compiles with any C++17 compiler and with nvcc; the results are the same bits.
#pragma once
#if defined(__CUDACC_RTC__)  // compiled at run time: there are no headers
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define INFINITY __int_as_float(0x7f800000)
#define UINT32_MAX 0xffffffffu
#else
#include <math.h>
#include <stdint.h>
#include <string.h>
#endif

#if defined(__CUDACC__)
#define KB_HD __host__ __device__ __forceinline__
#else
#define KB_HD inline
#endif

#if defined(__CUDA_ARCH__)
#define KB_UNROLL _Pragma("unroll")
#else
#define KB_UNROLL
#endif

namespace kb {

// nvcc contracts a * b + c to one rounding unless told otherwise, so device code names the rounding.
// Host code relies on -ffp-contract=off.
KB_HD float mul(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

KB_HD float add(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

KB_HD float sub(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fsub_rn(a, b);
#else
  return a - b;
#endif
}

KB_HD float div(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

KB_HD uint32_t float_bits(float f) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(f);
#else
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
#endif
}

KB_HD float float_of_bits(uint32_t u) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(u);
#else
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
#endif
}

// What the templates below are made of. kb_simd.h has the same for eight floats at once, and every
// lane gives the bits of the one float here.
KB_HD float larger(float a, float b) { return a > b ? a : b; }   // b if either is NaN
KB_HD float smaller(float a, float b) { return a < b ? a : b; }  // b if either is NaN
KB_HD float magnitude(float a) { return fabsf(a); }
KB_HD bool less(float a, float b) { return a < b; }
KB_HD bool at_least(float a, float b) { return a >= b; }
KB_HD bool both(bool a, bool b) { return a && b; }
KB_HD float select(bool choice, float yes, float no) { return choice ? yes : no; }
KB_HD int truncate(float a) { return int(a); }
KB_HD int round_up(float a) { return int(a) + (float(int(a)) < a); }  // for a >= 0

// A point on the screen. Axes: u right, v down, in the unit of the pixel centres; z = depth,
// r = radius. T: float, or eight of them.
template <class T>
struct alignas(4 * sizeof(T)) PointOf {
  T u, v, z, r;
};
using Point = PointOf<float>;

// Drawing order. For z >= +0 the bits of a float are monotone, so one integer comparison orders by
// depth and, at equal depth, by index.
KB_HD uint64_t order_key(float z, uint32_t index) {
  return (uint64_t(float_bits(z)) << 32) | index;
}
KB_HD uint32_t key_depth(uint64_t key) { return uint32_t(key >> 32); }
KB_HD uint32_t key_index(uint64_t key) { return uint32_t(key); }

// One image axis. Pixel i has its centre near (i + 0.5) / scale - half. The exact centres are given
// apart, because only the caller knows in which order of operations they were rounded.
struct Axis {
  float half, scale;
  int n;
};

// Pixels [*first, *last] whose centres can be nearer than r to position u; empty if first > last.
// A little wide, so that no rounding here can lose a pixel: the exact test is made per pixel.
// The clamps are written so that a NaN (overflow: inf - inf) gives the whole axis.
template <class T, class Index>
KB_HD void pixel_span(const Axis& a, T u, T r, Index* first, Index* last) {
  const T c = sub(mul(add(u, T(a.half)), T(a.scale)), T(0.5f));
  const T reach = mul(r, T(a.scale));
  const T wide = add(reach, add(T(0.02f), mul(T(1e-6f), add(magnitude(c), reach))));
  const float n = float(a.n);
  *first = round_up(smaller(larger(sub(c, wide), T(0.0f)), T(n)));
  const T end = larger(smaller(add(c, wide), T(n - 1.0f)), T(-1.0f));
  *last = truncate(add(end, T(1.0f))) - 1;  // rounds down; the sum can only round up
}

// The pixel that contains position u, or -1 outside the image.
template <class T>
KB_HD auto pixel_at(const Axis& a, T u) {
  const T t = mul(add(u, T(a.half)), T(a.scale));
  const auto inside = both(at_least(t, T(0.0f)), less(t, T(float(a.n))));
  return truncate(select(inside, t, T(-1.0f)));
}

template <class T>
KB_HD T squared_distance(T dx, T dy) {
  return add(mul(dx, dx), mul(dy, dy));
}

// One row of a [3, 4] matrix times (x, y, z, 1), in a fixed order of operations.
template <class T>
KB_HD T affine(const float* row, T x, T y, T z) {
  return add(add(mul(T(row[0]), x), mul(T(row[1]), y)), add(mul(T(row[2]), z), T(row[3])));
}

// Points that take part: finite, not nearer than z_near (>= 0), of a real size.
template <class T>
KB_HD auto drawable(const PointOf<T>& p, float z_near) {
  const T end(INFINITY);
  const auto depth = both(at_least(p.z, T(z_near)), less(p.z, end));
  const auto place = both(less(magnitude(p.u), end), less(magnitude(p.v), end));
  return both(both(depth, place), less(T(0.0f), p.r));
}

}  // namespace kb
