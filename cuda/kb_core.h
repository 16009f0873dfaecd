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

// A point on the screen. Axes: u right, v down, in the unit of the pixel centres; z = depth.
struct alignas(16) Point {
  float u, v, z, r;
};

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
KB_HD void pixel_span(const Axis& a, float u, float r, int* first, int* last) {
  const float c = sub(mul(add(u, a.half), a.scale), 0.5f);
  const float reach = mul(r, a.scale);
  const float wide = add(reach, add(0.02f, mul(1e-6f, add(fabsf(c), reach))));
  const float n = float(a.n);
  float lo = sub(c, wide), hi = add(c, wide);
  lo = lo > 0.0f ? lo : 0.0f;
  lo = lo < n ? lo : n;
  hi = hi < n - 1.0f ? hi : n - 1.0f;
  hi = hi > -1.0f ? hi : -1.0f;
  *first = int(lo) + (float(int(lo)) < lo);  // ceil
  *last = int(hi + 1.0f) - 1;                // floor; the sum can only round up
}

// The pixel that contains position u, or -1 outside the image.
KB_HD int pixel_at(const Axis& a, float u) {
  const float t = mul(add(u, a.half), a.scale);
  return t >= 0.0f && t < float(a.n) ? int(t) : -1;
}

KB_HD float squared_distance(float dx, float dy) { return add(mul(dx, dx), mul(dy, dy)); }

// One row of a [3, 4] matrix times (x, y, z, 1), in a fixed order of operations.
KB_HD float affine(const float* row, const float* p) {
  return add(add(mul(row[0], p[0]), mul(row[1], p[1])), add(mul(row[2], p[2]), row[3]));
}

// World point to screen: `m` [3, 4] holds intrinsics times world-to-camera.
KB_HD Point project(const float* m, const float* p) {
  const float z = affine(m + 8, p);
  return {div(affine(m, p), z), div(affine(m + 4, p), z), z, 0.0f};
}

// False for NaN and for +-inf.
KB_HD bool finite(float f) { return fabsf(f) < INFINITY; }

// Points that take part: finite, not nearer than z_near (>= 0), of a real size.
KB_HD bool drawable(const Point& p, float z_near) {
  return p.z >= z_near && finite(p.z) && finite(p.u) && finite(p.v) && p.r > 0.0f;
}

}  // namespace kb
