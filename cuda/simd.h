// Sixteen floats at once: one AVX-512 register, two AVX2 registers, four small ones, or a plain
// array that any compiler takes. Only what the kernels use. Every operation rounds the same way
// everywhere (nothing is fused, sums have one order), so results do not depend on the instruction
// set.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace simd {

#if defined(__AVX512F__)

struct Mask16 {
  __mmask16 m;
  uint32_t bits() const { return m; }
};
using Whole16 = __m512i;
struct Float16 {
  using Whole = Whole16;
  __m512 v;
  Float16() = default;
  Float16(__m512 x) : v(x) {}
  Float16(float x) : v(_mm512_set1_ps(x)) {}  // implicit: formulas take numbers
  static Float16 all(float x) { return x; }
  static Float16 load(const float* p) { return _mm512_loadu_ps(p); }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
};
inline Float16 operator+(Float16 a, Float16 b) { return _mm512_add_ps(a.v, b.v); }
inline Float16 operator-(Float16 a, Float16 b) { return _mm512_sub_ps(a.v, b.v); }
inline Float16 operator*(Float16 a, Float16 b) { return _mm512_mul_ps(a.v, b.v); }
inline Float16 operator/(Float16 a, Float16 b) { return _mm512_div_ps(a.v, b.v); }
inline Float16 root(Float16 a) { return _mm512_sqrt_ps(a.v); }
inline Float16 min(Float16 a, Float16 b) { return _mm512_min_ps(a.v, b.v); }
inline Float16 max(Float16 a, Float16 b) { return _mm512_max_ps(a.v, b.v); }
inline Mask16 less(Float16 a, Float16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask16 at_least(Float16 a, Float16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
inline Mask16 equal(Float16 a, Float16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask16 operator&(Mask16 a, Mask16 b) { return {__mmask16(a.m & b.m)}; }
inline Mask16 operator|(Mask16 a, Mask16 b) { return {__mmask16(a.m | b.m)}; }
inline Float16 select(Mask16 m, Float16 a, Float16 b) { return _mm512_mask_mov_ps(b.v, m.m, a.v); }
inline Float16 where(Mask16 m, Float16 a) { return _mm512_maskz_mov_ps(m.m, a.v); }
inline Float16 fraction(Float16 x, Whole16* whole) {  // x - floor(x)
  const __m512 f = _mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  *whole = _mm512_cvttps_epi32(f);
  return _mm512_sub_ps(x.v, f);
}
inline Float16 scale_by(Float16 p, Whole16 whole) {  // p * 2^whole, whole in -126 ... 128
  const __m512i bits = _mm512_slli_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(127)), 23);
  return _mm512_mul_ps(p.v, _mm512_castsi512_ps(bits));
}
// x = m 2^e with m in [1, 2), for normal x > 0.
inline Float16 mantissa(Float16 x, Float16* e) {
  const __m512i bits = _mm512_castps_si512(x.v);
  *e = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_srli_epi32(bits, 23), _mm512_set1_epi32(127)));
  const __m512i fraction = _mm512_and_epi32(bits, _mm512_set1_epi32(0x7fffff));
  return _mm512_castsi512_ps(_mm512_or_epi32(fraction, _mm512_set1_epi32(0x3f800000)));
}

#elif defined(__AVX2__)

struct Mask16 {
  __m256 lo, hi;
  uint32_t bits() const {
    return uint32_t(_mm256_movemask_ps(lo)) | uint32_t(_mm256_movemask_ps(hi)) << 8;
  }
};
struct Whole16 {
  __m256i lo, hi;
};
struct Float16 {
  using Whole = Whole16;
  __m256 lo, hi;
  Float16() = default;
  Float16(__m256 a, __m256 b) : lo(a), hi(b) {}
  Float16(float x) : lo(_mm256_set1_ps(x)), hi(lo) {}  // implicit: formulas take numbers
  static Float16 all(float x) { return x; }
  static Float16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  void store(float* p) const {
    _mm256_storeu_ps(p, lo);
    _mm256_storeu_ps(p + 8, hi);
  }
};
#define GS_BOTH(op) {op(a.lo, b.lo), op(a.hi, b.hi)}
#define GS_COMPARE(how) {_mm256_cmp_ps(a.lo, b.lo, how), _mm256_cmp_ps(a.hi, b.hi, how)}
inline Float16 operator+(Float16 a, Float16 b) { return GS_BOTH(_mm256_add_ps); }
inline Float16 operator-(Float16 a, Float16 b) { return GS_BOTH(_mm256_sub_ps); }
inline Float16 operator*(Float16 a, Float16 b) { return GS_BOTH(_mm256_mul_ps); }
inline Float16 operator/(Float16 a, Float16 b) { return GS_BOTH(_mm256_div_ps); }
inline Float16 root(Float16 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
inline Float16 min(Float16 a, Float16 b) { return GS_BOTH(_mm256_min_ps); }
inline Float16 max(Float16 a, Float16 b) { return GS_BOTH(_mm256_max_ps); }
inline Mask16 operator&(Mask16 a, Mask16 b) { return GS_BOTH(_mm256_and_ps); }
inline Mask16 operator|(Mask16 a, Mask16 b) { return GS_BOTH(_mm256_or_ps); }
inline Mask16 less(Float16 a, Float16 b) { return GS_COMPARE(_CMP_LT_OQ); }
inline Mask16 at_least(Float16 a, Float16 b) { return GS_COMPARE(_CMP_GE_OQ); }
inline Mask16 equal(Float16 a, Float16 b) { return GS_COMPARE(_CMP_EQ_OQ); }
#undef GS_BOTH
#undef GS_COMPARE
inline Float16 select(Mask16 m, Float16 a, Float16 b) {
  return {_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}
inline Float16 where(Mask16 m, Float16 a) {
  return {_mm256_and_ps(m.lo, a.lo), _mm256_and_ps(m.hi, a.hi)};
}
inline Float16 fraction(Float16 x, Whole16* whole) {
  const __m256 lo = _mm256_floor_ps(x.lo), hi = _mm256_floor_ps(x.hi);
  *whole = {_mm256_cvttps_epi32(lo), _mm256_cvttps_epi32(hi)};
  return {_mm256_sub_ps(x.lo, lo), _mm256_sub_ps(x.hi, hi)};
}
inline Float16 scale_by(Float16 p, Whole16 whole) {
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i lo = _mm256_slli_epi32(_mm256_add_epi32(whole.lo, bias), 23);
  const __m256i hi = _mm256_slli_epi32(_mm256_add_epi32(whole.hi, bias), 23);
  return {_mm256_mul_ps(p.lo, _mm256_castsi256_ps(lo)),
          _mm256_mul_ps(p.hi, _mm256_castsi256_ps(hi))};
}
inline __m256 mantissa8(__m256 x, __m256* e) {
  const __m256i bits = _mm256_castps_si256(x);
  *e = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(127)));
  const __m256i fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffff));
  return _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3f800000)));
}
inline Float16 mantissa(Float16 x, Float16* e) {
  return {mantissa8(x.lo, &e->lo), mantissa8(x.hi, &e->hi)};
}

#elif defined(__GNUC__)  // SSE2, NEON, ...: four vectors of four, as GCC and Clang know them

typedef float Four __attribute__((vector_size(16)));
typedef int32_t Four32 __attribute__((vector_size(16)));

struct Mask16 {
  Four32 q[4];  // 0 or -1
  uint32_t bits() const {
    const Four32 m = (q[0] & Four32{1, 2, 4, 8}) | (q[1] & Four32{16, 32, 64, 128}) |
                     (q[2] & Four32{256, 512, 1024, 2048}) |
                     (q[3] & Four32{4096, 8192, 16384, 32768});
    return uint32_t(m[0] | m[1] | m[2] | m[3]);
  }
};
struct Whole16 {
  Four32 q[4];
};
struct Float16 {
  using Whole = Whole16;
  Four q[4];
  Float16() = default;
  Float16(float x) {  // implicit: formulas take numbers
    for (Four& f : q) f = Four{x, x, x, x};
  }
  static Float16 all(float x) { return x; }
  static Float16 load(const float* p) {
    Float16 r;
    memcpy(r.q, p, sizeof r.q);
    return r;
  }
  void store(float* p) const { memcpy(p, q, sizeof q); }
};
inline Four pick(Four32 m, Four a, Four b) { return Four((m & Four32(a)) | (~m & Four32(b))); }
#define GS_EACH(type, expr) type r; for (int i = 0; i < 4; ++i) r.q[i] = (expr); return r
inline Float16 operator+(Float16 a, Float16 b) { GS_EACH(Float16, a.q[i] + b.q[i]); }
inline Float16 operator-(Float16 a, Float16 b) { GS_EACH(Float16, a.q[i] - b.q[i]); }
inline Float16 operator*(Float16 a, Float16 b) { GS_EACH(Float16, a.q[i] * b.q[i]); }
inline Float16 operator/(Float16 a, Float16 b) { GS_EACH(Float16, a.q[i] / b.q[i]); }
inline Float16 root(Float16 a) {
  for (Four& f : a.q) f = Four{sqrtf(f[0]), sqrtf(f[1]), sqrtf(f[2]), sqrtf(f[3])};
  return a;
}
inline Mask16 less(Float16 a, Float16 b) { GS_EACH(Mask16, Four32(a.q[i] < b.q[i])); }
inline Mask16 at_least(Float16 a, Float16 b) { GS_EACH(Mask16, Four32(a.q[i] >= b.q[i])); }
inline Mask16 equal(Float16 a, Float16 b) { GS_EACH(Mask16, Four32(a.q[i] == b.q[i])); }
inline Mask16 operator&(Mask16 a, Mask16 b) { GS_EACH(Mask16, a.q[i] & b.q[i]); }
inline Mask16 operator|(Mask16 a, Mask16 b) { GS_EACH(Mask16, a.q[i] | b.q[i]); }
inline Float16 select(Mask16 m, Float16 a, Float16 b) {
  GS_EACH(Float16, pick(m.q[i], a.q[i], b.q[i]));
}
inline Float16 where(Mask16 m, Float16 a) { GS_EACH(Float16, Four(m.q[i] & Four32(a.q[i]))); }
inline Float16 min(Float16 a, Float16 b) { return select(less(a, b), a, b); }
inline Float16 max(Float16 a, Float16 b) { return select(less(b, a), a, b); }
inline Float16 fraction(Float16 x, Whole16* whole) {
  for (int i = 0; i < 4; ++i) {
    const Four32 w = __builtin_convertvector(x.q[i], Four32);
    whole->q[i] = w + Four32(__builtin_convertvector(w, Four) > x.q[i]);  // true is -1
    x.q[i] -= __builtin_convertvector(whole->q[i], Four);
  }
  return x;
}
inline Float16 scale_by(Float16 p, Whole16 whole) {
  GS_EACH(Float16, p.q[i] * Four((whole.q[i] + 127) << 23));
}
inline Float16 mantissa(Float16 x, Float16* e) {
  for (int i = 0; i < 4; ++i)
    e->q[i] = __builtin_convertvector((Four32(x.q[i]) >> 23) - 127, Four);
  GS_EACH(Float16, Four((Four32(x.q[i]) & 0x7fffff) | 0x3f800000));
}
#undef GS_EACH

#else

struct Mask16 {
  int32_t v[16];  // 0 or -1
  uint32_t bits() const {
    uint32_t m = 0;
    for (int i = 0; i < 16; ++i) m |= uint32_t(v[i] & 1) << i;
    return m;
  }
};
struct Whole16 {
  int32_t v[16];
};
struct Float16 {
  using Whole = Whole16;
  float v[16];
  Float16() = default;
  Float16(float x) {  // implicit: formulas take numbers
    for (float& f : v) f = x;
  }
  static Float16 all(float x) { return x; }
  static Float16 load(const float* p) {
    Float16 r;
    memcpy(r.v, p, sizeof r.v);
    return r;
  }
  void store(float* p) const { memcpy(p, v, sizeof v); }
};
#define GS_EACH(type, expr) type r; for (int i = 0; i < 16; ++i) r.v[i] = (expr); return r
inline Float16 operator+(const Float16& a, const Float16& b) { GS_EACH(Float16, a.v[i] + b.v[i]); }
inline Float16 operator-(const Float16& a, const Float16& b) { GS_EACH(Float16, a.v[i] - b.v[i]); }
inline Float16 operator*(const Float16& a, const Float16& b) { GS_EACH(Float16, a.v[i] * b.v[i]); }
inline Float16 operator/(const Float16& a, const Float16& b) { GS_EACH(Float16, a.v[i] / b.v[i]); }
inline Float16 root(const Float16& a) { GS_EACH(Float16, sqrtf(a.v[i])); }
inline Float16 min(const Float16& a, const Float16& b) {
  GS_EACH(Float16, a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
inline Float16 max(const Float16& a, const Float16& b) {
  GS_EACH(Float16, a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
inline Mask16 less(const Float16& a, const Float16& b) { GS_EACH(Mask16, -(a.v[i] < b.v[i])); }
inline Mask16 at_least(const Float16& a, const Float16& b) { GS_EACH(Mask16, -(a.v[i] >= b.v[i])); }
inline Mask16 equal(const Float16& a, const Float16& b) { GS_EACH(Mask16, -(a.v[i] == b.v[i])); }
inline Mask16 operator&(const Mask16& a, const Mask16& b) { GS_EACH(Mask16, a.v[i] & b.v[i]); }
inline Mask16 operator|(const Mask16& a, const Mask16& b) { GS_EACH(Mask16, a.v[i] | b.v[i]); }
inline Float16 select(const Mask16& m, const Float16& a, const Float16& b) {
  GS_EACH(Float16, m.v[i] ? a.v[i] : b.v[i]);
}
inline Float16 where(const Mask16& m, const Float16& a) {
  GS_EACH(Float16, m.v[i] ? a.v[i] : 0.0f);
}
inline Float16 fraction(Float16 x, Whole16* whole) {
  for (int i = 0; i < 16; ++i) {
    const int32_t w = int32_t(x.v[i]);
    whole->v[i] = w - (float(w) > x.v[i]);
    x.v[i] -= float(whole->v[i]);
  }
  return x;
}
inline float from_bits(int32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
inline Float16 scale_by(const Float16& p, const Whole16& whole) {
  GS_EACH(Float16, p.v[i] * from_bits(int32_t(uint32_t(whole.v[i] + 127) << 23)));
}
inline Float16 mantissa(const Float16& x, Float16* e) {
  int32_t bits[16];
  memcpy(bits, x.v, sizeof bits);
  for (int i = 0; i < 16; ++i) e->v[i] = float((bits[i] >> 23) - 127);
  GS_EACH(Float16, from_bits((bits[i] & 0x7fffff) | 0x3f800000));
}
#undef GS_EACH

#endif

inline bool any(const Mask16& m) { return m.bits() != 0; }

// Sum of the sixteen, always in the same order: halves, quarters, ...
inline float sum(const Float16& a) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
  const __m256 low = _mm512_castps512_ps256(a.v);
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1));
  const __m256 eight = _mm256_add_ps(low, high);
#else
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
#endif
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
#else
  float v[16];
  a.store(v);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
#endif
}

}  // namespace simd
