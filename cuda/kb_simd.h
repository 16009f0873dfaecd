// Eight floats at once for the templates of kb_core.h and kb_tile.h: one AVX2 register, or plain
// arrays that any compiler takes. AVX-512 builds use this too: there, masks have to travel from
// vector to ordinary registers and back, which cost more than the longer registers saved.
#pragma once
#include "kb_core.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace kb {

constexpr int LANES = 8;

#if defined(__AVX2__)

struct Mask8 {
  __m256 m;
  uint32_t bits() const { return uint32_t(_mm256_movemask_ps(m)); }
};
struct Int8 {
  __m256i v;
  explicit Int8(__m256i a) : v(a) {}
  explicit Int8(int a) : v(_mm256_set1_epi32(a)) {}
  static Int8 count() { return Int8(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
  void store(int32_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
};
struct Float8 {
  __m256 v;
  Float8() = default;
  explicit Float8(__m256 a) : v(a) {}
  explicit Float8(float a) : v(_mm256_set1_ps(a)) {}
  static Float8 load(const float* p) { return Float8(_mm256_loadu_ps(p)); }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
};
inline Float8 mul(Float8 a, Float8 b) { return Float8(_mm256_mul_ps(a.v, b.v)); }
inline Float8 add(Float8 a, Float8 b) { return Float8(_mm256_add_ps(a.v, b.v)); }
inline Float8 sub(Float8 a, Float8 b) { return Float8(_mm256_sub_ps(a.v, b.v)); }
inline Float8 div(Float8 a, Float8 b) { return Float8(_mm256_div_ps(a.v, b.v)); }
inline Float8 larger(Float8 a, Float8 b) { return Float8(_mm256_max_ps(a.v, b.v)); }
inline Float8 smaller(Float8 a, Float8 b) { return Float8(_mm256_min_ps(a.v, b.v)); }
inline Float8 magnitude(Float8 a) {
  return Float8(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v));
}
inline Mask8 less(Float8 a, Float8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask8 at_least(Float8 a, Float8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
inline Mask8 both(Mask8 a, Mask8 b) { return {_mm256_and_ps(a.m, b.m)}; }
inline Float8 select(Mask8 choice, Float8 yes, Float8 no) {
  return Float8(_mm256_blendv_ps(no.v, yes.v, choice.m));
}
inline Int8 truncate(Float8 a) { return Int8(_mm256_cvttps_epi32(a.v)); }
inline Int8 round_up(Float8 a) { return Int8(_mm256_cvttps_epi32(_mm256_ceil_ps(a.v))); }
inline Int8 operator+(Int8 a, Int8 b) { return Int8(_mm256_add_epi32(a.v, b.v)); }
inline Int8 operator-(Int8 a, int b) { return Int8(_mm256_sub_epi32(a.v, Int8(b).v)); }
inline Int8 operator*(Int8 a, Int8 b) { return Int8(_mm256_mullo_epi32(a.v, b.v)); }
inline Int8 operator>>(Int8 a, int bits) { return Int8(_mm256_srai_epi32(a.v, bits)); }
inline Mask8 less(Int8 a, Int8 b) {
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.v, a.v))};
}
inline Mask8 equal(Int8 a, Int8 b) {
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v, b.v))};
}

// Eight times (x, y, z) that follow each other in memory.
inline void load_xyz(const float* p, Float8* x, Float8* y, Float8* z) {
  // Points 0 to 3 go to the lower halves and 4 to 7 to the upper ones, which stay apart.
  const auto halves = [p](int at) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + at)),
                                _mm_loadu_ps(p + at + 12), 1);
  };
  const __m256 xyzx = halves(0), yzxy = halves(4), zxyz = halves(8);
  const __m256 xy23 = _mm256_shuffle_ps(yzxy, zxyz, _MM_SHUFFLE(2, 1, 3, 2));
  const __m256 yz01 = _mm256_shuffle_ps(xyzx, yzxy, _MM_SHUFFLE(1, 0, 2, 1));
  x->v = _mm256_shuffle_ps(xyzx, xy23, _MM_SHUFFLE(2, 0, 3, 0));
  y->v = _mm256_shuffle_ps(yz01, xy23, _MM_SHUFFLE(3, 1, 2, 0));
  z->v = _mm256_shuffle_ps(yz01, zxyz, _MM_SHUFFLE(3, 0, 3, 1));
}

// Eight rows of four values: row 0 in the lower half of r04 and row 4 in the upper one, and so on.
struct Rows8 {
  __m256 r04, r15, r26, r37;
};
// Row i is a[i], b[i], c[i], d[i]. Also the way back: interleave(r04, r15, r26, r37) are columns.
inline Rows8 interleave(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 ab0 = _mm256_unpacklo_ps(a, b), ab2 = _mm256_unpackhi_ps(a, b);
  const __m256 cd0 = _mm256_unpacklo_ps(c, d), cd2 = _mm256_unpackhi_ps(c, d);
  return {_mm256_shuffle_ps(ab0, cd0, _MM_SHUFFLE(1, 0, 1, 0)),
          _mm256_shuffle_ps(ab0, cd0, _MM_SHUFFLE(3, 2, 3, 2)),
          _mm256_shuffle_ps(ab2, cd2, _MM_SHUFFLE(1, 0, 1, 0)),
          _mm256_shuffle_ps(ab2, cd2, _MM_SHUFFLE(3, 2, 3, 2))};
}

#else

struct Mask8 {
  bool m[LANES];
  uint32_t bits() const {
    uint32_t all = 0;
    for (int i = 0; i < LANES; ++i) all |= uint32_t(m[i]) << i;
    return all;
  }
};
struct Int8 {
  int32_t v[LANES];
  Int8() = default;
  explicit Int8(int a) {
    for (int32_t& lane : v) lane = a;
  }
  void store(int32_t* p) const { memcpy(p, v, sizeof v); }
};
struct Float8 {
  float v[LANES];
  Float8() = default;
  explicit Float8(float a) {
    for (float& lane : v) lane = a;
  }
  static Float8 load(const float* p) {
    Float8 r;
    memcpy(r.v, p, sizeof r.v);
    return r;
  }
  void store(float* p) const { memcpy(p, v, sizeof v); }
};
#define KB_LANES(R, field, value)       \
  R r;                                  \
  for (int i = 0; i < LANES; ++i) r.field[i] = (value); \
  return r
inline Float8 mul(Float8 a, Float8 b) { KB_LANES(Float8, v, a.v[i] * b.v[i]); }
inline Float8 add(Float8 a, Float8 b) { KB_LANES(Float8, v, a.v[i] + b.v[i]); }
inline Float8 sub(Float8 a, Float8 b) { KB_LANES(Float8, v, a.v[i] - b.v[i]); }
inline Float8 div(Float8 a, Float8 b) { KB_LANES(Float8, v, a.v[i] / b.v[i]); }
inline Float8 larger(Float8 a, Float8 b) { KB_LANES(Float8, v, larger(a.v[i], b.v[i])); }
inline Float8 smaller(Float8 a, Float8 b) { KB_LANES(Float8, v, smaller(a.v[i], b.v[i])); }
inline Float8 magnitude(Float8 a) { KB_LANES(Float8, v, magnitude(a.v[i])); }
inline Mask8 less(Float8 a, Float8 b) { KB_LANES(Mask8, m, a.v[i] < b.v[i]); }
inline Mask8 at_least(Float8 a, Float8 b) { KB_LANES(Mask8, m, a.v[i] >= b.v[i]); }
inline Mask8 both(Mask8 a, Mask8 b) { KB_LANES(Mask8, m, a.m[i] && b.m[i]); }
inline Float8 select(Mask8 choice, Float8 yes, Float8 no) {
  KB_LANES(Float8, v, choice.m[i] ? yes.v[i] : no.v[i]);
}
inline Int8 truncate(Float8 a) { KB_LANES(Int8, v, truncate(a.v[i])); }
inline Int8 round_up(Float8 a) { KB_LANES(Int8, v, round_up(a.v[i])); }
inline Int8 operator+(Int8 a, Int8 b) { KB_LANES(Int8, v, a.v[i] + b.v[i]); }
inline Int8 operator-(Int8 a, int b) { KB_LANES(Int8, v, a.v[i] - b); }
inline Int8 operator*(Int8 a, Int8 b) { KB_LANES(Int8, v, a.v[i] * b.v[i]); }
inline Int8 operator>>(Int8 a, int bits) { KB_LANES(Int8, v, a.v[i] >> bits); }
inline Mask8 less(Int8 a, Int8 b) { KB_LANES(Mask8, m, a.v[i] < b.v[i]); }
inline Mask8 equal(Int8 a, Int8 b) { KB_LANES(Mask8, m, a.v[i] == b.v[i]); }
#undef KB_LANES

inline void load_xyz(const float* p, Float8* x, Float8* y, Float8* z) {
  for (int i = 0; i < LANES; ++i) {
    x->v[i] = p[3 * i];
    y->v[i] = p[3 * i + 1];
    z->v[i] = p[3 * i + 2];
  }
}

#endif

}  // namespace kb
