// Sixteen floats at once: one AVX-512 register, two AVX2 registers, or a plain array that any
// compiler takes. Only what the kernels use. Every operation rounds the same way everywhere
// (nothing is fused), so results do not depend on the instruction set.
#pragma once
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
struct Float16 {
  __m512 v;
  static Float16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Float16 all(float x) { return {_mm512_set1_ps(x)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
};
inline Float16 operator+(Float16 a, Float16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Float16 operator-(Float16 a, Float16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Float16 operator*(Float16 a, Float16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Float16 min(Float16 a, Float16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Float16 max(Float16 a, Float16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Mask16 less(Float16 a, Float16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask16 at_least(Float16 a, Float16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
inline Mask16 operator&(Mask16 a, Mask16 b) { return {__mmask16(a.m & b.m)}; }
inline Float16 where(Mask16 m, Float16 a) { return {_mm512_maskz_mov_ps(m.m, a.v)}; }
// 2^x split into whole and fractional part: returns x - floor(x) and scales `p` by 2^floor(x).
inline Float16 fraction(Float16 x, __m512i* whole) {
  const __m512 f = _mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  *whole = _mm512_cvttps_epi32(f);
  return {_mm512_sub_ps(x.v, f)};
}
inline Float16 scale_by(Float16 p, __m512i whole) {
  const __m512i bits = _mm512_slli_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(127)), 23);
  return {_mm512_mul_ps(p.v, _mm512_castsi512_ps(bits))};
}
using Whole16 = __m512i;

#elif defined(__AVX2__)

struct Mask16 {
  __m256 lo, hi;
  uint32_t bits() const { return uint32_t(_mm256_movemask_ps(lo)) | uint32_t(_mm256_movemask_ps(hi)) << 8; }
};
struct Float16 {
  __m256 lo, hi;
  static Float16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static Float16 all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  void store(float* p) const { _mm256_storeu_ps(p, lo); _mm256_storeu_ps(p + 8, hi); }
};
#define GS_BOTH(op) {op(a.lo, b.lo), op(a.hi, b.hi)}
inline Float16 operator+(Float16 a, Float16 b) { return GS_BOTH(_mm256_add_ps); }
inline Float16 operator-(Float16 a, Float16 b) { return GS_BOTH(_mm256_sub_ps); }
inline Float16 operator*(Float16 a, Float16 b) { return GS_BOTH(_mm256_mul_ps); }
inline Float16 min(Float16 a, Float16 b) { return GS_BOTH(_mm256_min_ps); }
inline Float16 max(Float16 a, Float16 b) { return GS_BOTH(_mm256_max_ps); }
inline Mask16 operator&(Mask16 a, Mask16 b) { return GS_BOTH(_mm256_and_ps); }
#undef GS_BOTH
inline Mask16 less(Float16 a, Float16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
inline Mask16 at_least(Float16 a, Float16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_GE_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GE_OQ)};
}
inline Float16 where(Mask16 m, Float16 a) { return {_mm256_and_ps(m.lo, a.lo), _mm256_and_ps(m.hi, a.hi)}; }
struct Whole16 { __m256i lo, hi; };
inline Float16 fraction(Float16 x, Whole16* whole) {
  const __m256 lo = _mm256_floor_ps(x.lo), hi = _mm256_floor_ps(x.hi);
  *whole = {_mm256_cvttps_epi32(lo), _mm256_cvttps_epi32(hi)};
  return {_mm256_sub_ps(x.lo, lo), _mm256_sub_ps(x.hi, hi)};
}
inline Float16 scale_by(Float16 p, Whole16 whole) {
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i lo = _mm256_slli_epi32(_mm256_add_epi32(whole.lo, bias), 23);
  const __m256i hi = _mm256_slli_epi32(_mm256_add_epi32(whole.hi, bias), 23);
  return {_mm256_mul_ps(p.lo, _mm256_castsi256_ps(lo)), _mm256_mul_ps(p.hi, _mm256_castsi256_ps(hi))};
}

#else

struct Mask16 {
  bool v[16];
  uint32_t bits() const { uint32_t m = 0; for (int i = 0; i < 16; ++i) m |= uint32_t(v[i]) << i; return m; }
};
struct Float16 {
  float v[16];
  static Float16 load(const float* p) { Float16 r; memcpy(r.v, p, sizeof r.v); return r; }
  static Float16 all(float x) { Float16 r; for (float& f : r.v) f = x; return r; }
  void store(float* p) const { memcpy(p, v, sizeof v); }
};
#define GS_EACH(type, expr) type r; for (int i = 0; i < 16; ++i) r.v[i] = (expr); return r
inline Float16 operator+(Float16 a, Float16 b) { GS_EACH(Float16, a.v[i] + b.v[i]); }
inline Float16 operator-(Float16 a, Float16 b) { GS_EACH(Float16, a.v[i] - b.v[i]); }
inline Float16 operator*(Float16 a, Float16 b) { GS_EACH(Float16, a.v[i] * b.v[i]); }
inline Float16 min(Float16 a, Float16 b) { GS_EACH(Float16, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline Float16 max(Float16 a, Float16 b) { GS_EACH(Float16, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline Mask16 less(Float16 a, Float16 b) { GS_EACH(Mask16, a.v[i] < b.v[i]); }
inline Mask16 at_least(Float16 a, Float16 b) { GS_EACH(Mask16, a.v[i] >= b.v[i]); }
inline Mask16 operator&(Mask16 a, Mask16 b) { GS_EACH(Mask16, a.v[i] && b.v[i]); }
inline Float16 where(Mask16 m, Float16 a) { GS_EACH(Float16, m.v[i] ? a.v[i] : 0.0f); }
struct Whole16 { int32_t v[16]; };
inline Float16 fraction(Float16 x, Whole16* whole) {
  Float16 r;
  for (int i = 0; i < 16; ++i) {
    int32_t w = int32_t(x.v[i]);
    w -= float(w) > x.v[i];
    whole->v[i] = w;
    r.v[i] = x.v[i] - float(w);
  }
  return r;
}
inline Float16 scale_by(Float16 p, Whole16 whole) {
  Float16 r;
  for (int i = 0; i < 16; ++i) {
    const int32_t bits = (whole.v[i] + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    r.v[i] = p.v[i] * scale;
  }
  return r;
}
#undef GS_EACH

#endif

inline float highest(Float16 a) {
  float v[16], top;
  a.store(v);
  top = v[0];
  for (int i = 1; i < 16; ++i) top = v[i] > top ? v[i] : top;
  return top;
}

}  // namespace simd
