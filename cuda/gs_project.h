// Projection of Gaussians and its gradient, sixteen at a time.
#pragma once
#include "gs_tiles.h"

namespace gs {

// Rows [16, columns] of a matrix [N, columns] as columns: what SIMD works on.
template <int columns>
struct Columns {
  alignas(64) float v[columns][kLanes];
  // The last of `count` < 16 rows is repeated.
  void load(const float* rows, int count) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float* row = rows + columns * (lane < count ? lane : count - 1);
      for (int c = 0; c < columns; ++c) v[c][lane] = row[c];
    }
  }
  void store(float* rows, int count) const {
    for (int lane = 0; lane < count; ++lane)
      for (int c = 0; c < columns; ++c) rows[columns * lane + c] = v[c][lane];
  }
  void get(Float16* out) const {
    for (int c = 0; c < columns; ++c) out[c] = Float16::load(v[c]);
  }
  template <class Mask>
  void set(const Float16* in, const Mask& m, float otherwise = 0.0f) {
    for (int c = 0; c < columns; ++c) select(m, in[c], otherwise).store(v[c]);
  }
};

// Parameters of N Gaussians, as the caller has them.
struct Gaussians {
  const float *means, *quats, *log_scales, *logits;  // [N, 3] [N, 4] [N, 3] [N]
  const float *sh0, *sh_rest;                        // [N, 3] [N, B, 3]
  int harmonics;                                     // B
};

// Sixteen of them.
struct Sixteen {
  Float16 mean[3], quat[4], log_scale[3], logit;
  Sixteen(const Gaussians& in, int64_t first, int count) {
    Columns<3> three;
    Columns<4> four;
    Columns<1> one;
    three.load(in.means + 3 * first, count);
    three.get(mean);
    four.load(in.quats + 4 * first, count);
    four.get(quat);
    three.load(in.log_scales + 3 * first, count);
    three.get(log_scale);
    one.load(in.logits + first, count);
    one.get(&logit);
  }
};

// basis [B, 16]
inline void basis_of(const Camera& cam, const Sixteen& g, int harmonics, float* basis) {
  Float16 values[kMaxHarmonics];
  sh_basis(cam, g.mean, harmonics, values);
  for (int k = 0; k < harmonics; ++k) values[k].store(basis + k * kLanes);
}

// Colours, not clamped, of those Gaussians whose bit is set.
inline void colors_of(const Camera& cam, const Gaussians& in, const Sixteen& g, int64_t first,
                      uint32_t seen, Columns<3>& rgb) {
  alignas(64) float basis[kMaxHarmonics * kLanes];
  const int B = in.harmonics;
  basis_of(cam, g, B, basis);
  for (; seen; seen &= seen - 1) {
    const int lane = lowest_bit(seen);
    const float* constant = in.sh0 + 3 * (first + lane);
    const float* rest = in.sh_rest + 3 * B * (first + lane);
    float color[3];
    for (int c = 0; c < 3; ++c) color[c] = 0.5f + kShDegree0 * constant[c];
    for (int k = 0; k < B; ++k)
      for (int c = 0; c < 3; ++c) color[c] += basis[k * kLanes + lane] * rest[3 * k + c];
    for (int c = 0; c < 3; ++c) rgb.v[c][lane] = color[c];
  }
}

struct ProjectOut {
  float *splats, *depth, *extent, *rgb;  // [N, 6] [N] [N, 2] [N, 3]
};

inline void project_sixteen(const Camera& cam, const Gaussians& in, int64_t first, int count,
                            const ProjectOut& out) {
  const Sixteen g(in, first, count);
  Projection<Float16> o;
  auto seen = project(cam, g.mean, g.quat, g.log_scale, g.logit, o);
  Float16 splat[6], size[2], rgb[3];
  Columns<6> splats;
  Columns<3> colors;
  Columns<2> extents;
  Columns<1> depth;
  const uint32_t lanes = seen.bits() & ((1u << count) - 1);
  memset(colors.v, 0, sizeof colors.v);
  if (lanes) {
    colors_of(cam, in, g, first, lanes, colors);
    colors.get(rgb);
    seen = seen & at_least(not_finite(rgb, 3), 0.0f);
    splat_of(cam, o, splat);
    extent_of(o, splat[5], size, size + 1);
  } else {
    const Float16 none = 0.0f;
    std::fill(splat, splat + 6, none);
    std::fill(rgb, rgb + 3, none);
    std::fill(size, size + 2, none);
  }
  for (Float16& c : rgb) c = max(c, 0.0f);
  splats.set(splat, seen);
  for (int c : {2, 4}) select(seen, splat[c], 1.0f).store(splats.v[c]);  // a conic that is one
  colors.set(rgb, seen);
  extents.set(size, seen);
  depth.set(&o.p[2], seen);
  splats.store(out.splats + 6 * first, count);
  colors.store(out.rgb + 3 * first, count);
  extents.store(out.extent + 2 * first, count);
  depth.store(out.depth + first, count);
}

struct ProjectGradIn {
  const float *extent, *rgb;      // what project gave
  const float *d_splats, *d_rgb;  // [N, 6] [N, 3]
};
struct ProjectGradOut {
  float *means, *quats, *log_scales, *logits, *sh0, *sh_rest;
};

inline void project_backward_sixteen(const Camera& cam, const Gaussians& in, int64_t first,
                                     int count, const ProjectGradIn& grad,
                                     const ProjectGradOut& out) {
  const Sixteen g(in, first, count);
  const int B = in.harmonics;
  Columns<2> extents;
  Columns<6> d_splats;
  Float16 extent[2], d_splat[6], mean[3], quat[4], log_scale[3], logit;
  extents.load(grad.extent + 2 * first, count);
  extents.get(extent);
  const auto seen = less(0.0f, extent[0]);
  const uint32_t lanes = seen.bits();
  float* rest = out.sh_rest + 3 * B * first;
  if (!lanes) {
    std::fill_n(out.means + 3 * first, 3 * count, 0.0f);
    std::fill_n(out.quats + 4 * first, 4 * count, 0.0f);
    std::fill_n(out.log_scales + 3 * first, 3 * count, 0.0f);
    std::fill_n(out.logits + first, count, 0.0f);
    std::fill_n(out.sh0 + 3 * first, 3 * count, 0.0f);
    std::fill_n(rest, 3 * B * count, 0.0f);
    return;
  }
  Projection<Float16> o;
  project(cam, g.mean, g.quat, g.log_scale, g.logit, o);
  d_splats.load(grad.d_splats + 6 * first, count);
  d_splats.get(d_splat);
  project_backward(cam, o, d_splat, mean, quat, log_scale, &logit);
  Columns<3> three;
  Columns<4> four;
  Columns<1> one;
  three.set(mean, seen);
  three.store(out.means + 3 * first, count);
  four.set(quat, seen);
  four.store(out.quats + 4 * first, count);
  three.set(log_scale, seen);
  three.store(out.log_scales + 3 * first, count);
  one.set(&logit, seen);
  one.store(out.logits + first, count);
  alignas(64) float basis[kMaxHarmonics * kLanes];
  basis_of(cam, g, B, basis);
  for (int lane = 0; lane < count; ++lane, rest += 3 * B) {
    const int64_t i = first + lane;
    if (!(lanes >> lane & 1)) {  // its basis may be NaN
      std::fill_n(out.sh0 + 3 * i, 3, 0.0f);
      std::fill_n(rest, 3 * B, 0.0f);
      continue;
    }
    float v[3];
    for (int c = 0; c < 3; ++c) {
      v[c] = grad.rgb[3 * i + c] > 0.0f ? grad.d_rgb[3 * i + c] : 0.0f;
      out.sh0[3 * i + c] = kShDegree0 * v[c];
    }
    for (int k = 0; k < B; ++k)
      for (int c = 0; c < 3; ++c) rest[3 * k + c] = basis[k * kLanes + lane] * v[c];
  }
}

}  // namespace gs
