// Per-Gaussian and per-pixel mathematics of splatting, written once for CPU and GPU.
//
// Conventions of 3D Gaussian Splatting as gsplat states them: quaternions (w, x, y, z), scales as
// logarithms, opacities as logits, a low-pass of `eps2d` px^2 on the projected covariance, alpha
// counted from 1/255 and clamped at 0.999. Pixel centres lie at +0.5.
//
// `F` is a float or a vector of floats (simd.h); what a comparison gives is a bool or a mask. The
// formulas call no exp and log of the platform, so that they give the same bits everywhere.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__CUDACC__)
#define GS_HD __host__ __device__ __forceinline__
#else
#define GS_HD inline
#endif

namespace gs {

constexpr float kAlphaMin = 1.0f / 255.0f;
constexpr float kAlphaMax = 0.999f;
constexpr float kTransmittanceMin = 1e-4f;  // a pixel is full once less than this shines through
constexpr float kSigmaMax = 15.0f;
constexpr float kRatioMin = 2.5e-5f;  // of the determinants: antialiased, at least this is kept
constexpr float kShDegree0 = 0.28209479177387814f;
constexpr int kMaxHarmonics = 15;  // without the constant one

// Integers of a vector, and a float as a vector of one.
template <class F>
struct Vector {
  using Whole = typename F::Whole;
};
template <>
struct Vector<float> {
  using Whole = int32_t;
};
GS_HD bool less(float a, float b) { return a < b; }
GS_HD bool at_least(float a, float b) { return a >= b; }
GS_HD bool any(bool m) { return m; }
GS_HD float select(bool m, float a, float b) { return m ? a : b; }
GS_HD float where(bool m, float a) { return m ? a : 0.0f; }
GS_HD float min(float a, float b) { return a < b ? a : b; }
GS_HD float max(float a, float b) { return a > b ? a : b; }
GS_HD float root(float a) { return sqrtf(a); }
GS_HD float fraction(float x, int32_t* whole) {  // x - floor(x)
  const float f = floorf(x);
  *whole = int32_t(f);
  return x - f;
}
GS_HD float scale_by(float p, int32_t whole) {  // p * 2^whole, whole in -126 ... 128
  const uint32_t bits = uint32_t(whole + 127) << 23;
  float scale;
  memcpy(&scale, &bits, 4);
  return p * scale;
}
GS_HD float mantissa(float x, float* e) {  // x = m 2^e with m in [1, 2), for normal x > 0
  uint32_t bits;
  memcpy(&bits, &x, 4);
  *e = float(int32_t(bits >> 23) - 127);
  bits = (bits & 0x7fffff) | 0x3f800000;
  memcpy(&x, &bits, 4);
  return x;
}

// 2^f for f in [0, 1), relative error 8e-8: a minimax polynomial, exact at 0.
template <class F>
GS_HD F power_of_two(const F& f) {
  F p = 1.86713226e-3f;
  p = p * f + 9.01702512e-3f;
  p = p * f + 5.57999164e-2f;
  p = p * f + 2.40164444e-1f;
  p = p * f + 6.93151295e-1f;
  return p * f + 1.0f;
}

// exp(-s) for s in [0, 16], relative error 1e-6.
template <class F>
GS_HD F exp_neg(const F& s) {
  typename Vector<F>::Whole whole;
  const F f = fraction(s * -1.44269504f, &whole);
  return scale_by(power_of_two(f), whole);
}

// exp(x), relative error 2e-7; at most inf, at least 1e-38.
template <class F>
GS_HD F exp_of(const F& x) {
  const F held = min(max(x, F(-87.3f)), F(89.0f));
  const F t = held * 1.44269504f;
  typename Vector<F>::Whole whole;
  const F n = t - fraction(t, &whole);
  // x - n ln(2) in two parts, of which the first is exact
  const F rest = (held - n * 0.693359375f) + n * 2.12194440e-4f;
  return scale_by(power_of_two(rest * 1.44269504f), whole);
}

// log(x) for normal x > 0, absolute error 1e-6: atanh series of the mantissa in [0.7, 1.4].
template <class F>
GS_HD F log_of(const F& x) {
  F e;
  F m = mantissa(x, &e);
  const auto large = at_least(m, F(1.41421356f));
  m = select(large, m * 0.5f, m);
  e = select(large, e + 1.0f, e);
  const F s = (m - 1.0f) / (m + 1.0f), q = s * s;
  const F series = ((q * 0.14285714f + 0.2f) * q + 0.33333333f) * q + 1.0f;
  return e * 0.69314718f + (s + s) * series;
}

struct Camera {
  float r[9], t[3];         // world to camera, row-major rotation
  float fx, fy, cx, cy;
  float position[3];        // optical centre in the world
  int width, height;
  float near, eps2d;
  int antialias;            // 1: scale opacity by sqrt(det before / det after) the low-pass
};

// Alpha at offset (dx, dy) = centre - pixel centre where sigma = half the quadratic form of the
// conic; 0 where it does not count.
template <class F>
GS_HD F alpha_at(const F& opacity, const F& sigma) {
  const F q = min(max(sigma, F(0.0f)), F(kSigmaMax));
  const F alpha = min(opacity * exp_neg(q), F(kAlphaMax));
  return where(less(sigma, F(kSigmaMax)) & at_least(alpha, F(kAlphaMin)), alpha);
}
template <class F>
GS_HD F sigma_at(const F& half_a, const F& b, const F& half_c, const F& dx, const F& dy) {
  return half_a * dx * dx + b * dx * dy + half_c * dy * dy;
}

// Everything of the projection that its backward pass needs again.
template <class F>
struct Projection {
  using M = decltype(less(F(), F()));
  F quat[4], quat_norm;  // normalised
  F R[9], scale[3];
  F p[3], inv_z;    // camera space
  F px, py;         // p.x, p.y as the Jacobian sees them, held inside a widened frustum
  M x_free, y_free; // not held
  F J[6], JW[6];    // 2x3: of (u, v) by camera space, by the world
  F B[6];           // 2x3: J W R diag(scale); the 2D covariance is B B^T + eps2d I
  F cov[3];         // xx, xy, yy with eps2d
  F normal[3];      // cross product of the rows of B
  F det, det0;      // with and without eps2d
  F opacity, compensation;
};

// Zero, or NaN where one of n values is NaN or infinite.
template <class F>
GS_HD F not_finite(const F* v, int n) {
  F sum = 0.0f;
  for (int i = 0; i < n; ++i) sum = sum + v[i] * 0.0f;
  return sum;
}

template <class F>
GS_HD void rotation_of(const F* q, F* R) {  // unit quaternion -> row-major [9]
  const F w = q[0], x = q[1], y = q[2], z = q[3];
  R[0] = 1.0f - 2.0f * (y * y + z * z);
  R[1] = 2.0f * (x * y - w * z);
  R[2] = 2.0f * (x * z + w * y);
  R[3] = 2.0f * (x * y + w * z);
  R[4] = 1.0f - 2.0f * (x * x + z * z);
  R[5] = 2.0f * (y * z - w * x);
  R[6] = 2.0f * (x * z - w * y);
  R[7] = 2.0f * (y * z + w * x);
  R[8] = 1.0f - 2.0f * (x * x + y * y);
}

template <class F>
GS_HD void cross(const F* a, const F* b, F* out) {
  out[0] = a[1] * b[2] - a[2] * b[1];
  out[1] = a[2] * b[0] - a[0] * b[2];
  out[2] = a[0] * b[1] - a[1] * b[0];
}

// Far outside the picture the linearised projection explodes; hold the Jacobian's point inside a
// frustum 30 % wider than half the picture, as 3DGS does. s = p.x / p.z, or the same of y.
template <class F, class M>
GS_HD F hold(const F& s, float focal, float center, int size, M* is_free) {
  const float wide = 0.15f * size / focal;
  const F low = -(center / focal + wide), high = (size - center) / focal + wide;
  *is_free = at_least(s, low) & at_least(high, s);
  return min(max(s, low), high);
}

// False where the Gaussian cannot be seen: behind the near plane, not finite, too faint.
template <class F>
GS_HD auto project(const Camera& cam, const F* mean, const F* quat, const F* log_scale,
                   const F& logit, Projection<F>& o) {
  const float* r = cam.r;
  for (int i = 0; i < 3; ++i)
    o.p[i] = mean[0] * r[3 * i] + mean[1] * r[3 * i + 1] + mean[2] * r[3 * i + 2] + cam.t[i];
  auto seen = at_least(o.p[2], F(cam.near)) & less(o.p[2], F(1e12f));  // beyond, gradients overflow
  if (!any(seen)) return seen;
  const F bad = not_finite(mean, 3) + not_finite(quat, 4) + not_finite(log_scale, 3);
  seen = seen & at_least(bad + logit * 0.0f, F(0.0f));
  o.opacity = 1.0f / (1.0f + exp_of(0.0f - logit));
  const F* q = quat;
  o.quat_norm = root(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  seen = seen & less(F(1e-12f), o.quat_norm) & less(o.quat_norm, F(3e38f));
  const F inv_norm = 1.0f / o.quat_norm;
  for (int i = 0; i < 4; ++i) o.quat[i] = quat[i] * inv_norm;
  rotation_of(o.quat, o.R);
  for (int i = 0; i < 3; ++i) o.scale[i] = exp_of(log_scale[i]);
  o.inv_z = 1.0f / o.p[2];
  o.px = o.p[2] * hold(o.p[0] * o.inv_z, cam.fx, cam.cx, cam.width, &o.x_free);
  o.py = o.p[2] * hold(o.p[1] * o.inv_z, cam.fy, cam.cy, cam.height, &o.y_free);
  const F fx = cam.fx * o.inv_z, fy = cam.fy * o.inv_z;
  const F J[6] = {fx, 0.0f, 0.0f - fx * o.px * o.inv_z, 0.0f, fy, 0.0f - fy * o.py * o.inv_z};
  for (int i = 0; i < 6; ++i) o.J[i] = J[i];
  for (int j = 0; j < 3; ++j) {
    o.JW[j] = J[0] * r[j] + J[2] * r[6 + j];
    o.JW[3 + j] = J[4] * r[3 + j] + J[5] * r[6 + j];
  }
  for (int i = 0; i < 6; i += 3)
    for (int j = 0; j < 3; ++j)
      o.B[i + j] = (o.JW[i] * o.R[j] + o.JW[i + 1] * o.R[3 + j] + o.JW[i + 2] * o.R[6 + j]) *
                   o.scale[j];
  const F* B = o.B;
  const F xx = B[0] * B[0] + B[1] * B[1] + B[2] * B[2];
  const F yy = B[3] * B[3] + B[4] * B[4] + B[5] * B[5];
  o.cov[0] = xx + cam.eps2d;
  o.cov[1] = B[0] * B[3] + B[1] * B[4] + B[2] * B[5];
  o.cov[2] = yy + cam.eps2d;
  // xx yy - xy^2 without its cancellation: a long thin footprint keeps its width.
  cross(B, B + 3, o.normal);
  const F* n = o.normal;
  o.det0 = n[0] * n[0] + n[1] * n[1] + n[2] * n[2];
  o.det = o.det0 + cam.eps2d * (xx + yy + cam.eps2d);
  o.compensation = cam.antialias ? root(max(o.det0 / o.det, F(kRatioMin))) : F(1.0f);
  return seen & less(F(1e-12f), o.det) & less(o.det, F(1e24f)) &
         at_least(o.opacity * o.compensation, F(kAlphaMin));
}

// Centre, conic and opacity.
template <class F>
GS_HD void splat_of(const Camera& cam, const Projection<F>& o, F* splat) {
  const F inv = 1.0f / o.det;
  splat[0] = cam.fx * o.p[0] * o.inv_z + cam.cx;
  splat[1] = cam.fy * o.p[1] * o.inv_z + cam.cy;
  splat[2] = o.cov[2] * inv;
  splat[3] = 0.0f - o.cov[1] * inv;
  splat[4] = o.cov[0] * inv;
  splat[5] = o.opacity * o.compensation;
}

// Half width and height in px of the region where alpha can reach 1/255.
template <class F>
GS_HD void extent_of(const Projection<F>& o, const F& opacity, F* rx, F* ry) {
  const F q = max(2.0f * log_of(opacity * 255.0f), F(0.0f));
  *rx = 1.00001f * root(q * o.cov[0]) + 1e-3f;  // wider than all roundings of alpha_at
  *ry = 1.00001f * root(q * o.cov[2]) + 1e-3f;
}

// g = dL/d(x, y, a, b, c, opacity) -> gradients of mean [3], quat [4], log scale [3], logit (set).
template <class F>
GS_HD void project_backward(const Camera& cam, const Projection<F>& o, const F* g, F* g_mean,
                            F* g_quat, F* g_log_scale, F* g_logit) {
  const F xx = o.cov[0], xy = o.cov[1], yy = o.cov[2], inv = 1.0f / o.det;
  // The conic is (yy, -xy, xx) / det: first the explicit entries, then the share through det.
  F v_det = 0.0f - (g[2] * yy - g[3] * xy + g[4] * xx) * inv * inv;
  const F v_xy = 0.0f - g[3] * inv;
  const F v_opacity = g[5] * o.compensation;
  F v_det0 = 0.0f;
  if (cam.antialias) {  // compensation = sqrt(det0 / det)
    const F v_ratio = where(less(F(kRatioMin), o.det0 / o.det),
                            g[5] * o.opacity * 0.5f / o.compensation);
    v_det0 = v_ratio * inv;
    v_det = v_det - v_ratio * o.det0 * inv * inv;
  }
  // det = det0 + eps2d (xx + yy) + const, det0 = |normal|^2.
  const F v_xx = g[4] * inv + v_det * cam.eps2d, v_yy = g[2] * inv + v_det * cam.eps2d;
  const F v_normal = 2.0f * (v_det + v_det0);
  F by_row0[3], by_row1[3];
  cross(o.B + 3, o.normal, by_row0);
  cross(o.normal, o.B, by_row1);
  // cov = B B^T, with the off-diagonal entry counted once.
  F vB[6];
  for (int j = 0; j < 3; ++j) {
    vB[j] = 2.0f * v_xx * o.B[j] + v_xy * o.B[3 + j] + v_normal * by_row0[j];
    vB[3 + j] = 2.0f * v_yy * o.B[3 + j] + v_xy * o.B[j] + v_normal * by_row1[j];
  }
  F vR[9];
  for (int j = 0; j < 3; ++j) {
    F v_scale = 0.0f;
    for (int i = 0; i < 3; ++i) {
      const F vM = o.JW[i] * vB[j] + o.JW[3 + i] * vB[3 + j];  // d/d(R diag(scale))_ij
      vR[3 * i + j] = vM * o.scale[j];
      v_scale = v_scale + vM * o.R[3 * i + j];
    }
    g_log_scale[j] = v_scale * o.scale[j];
  }
  F vJ[6];  // B = J (W M): dJ = dB (W M)^T
  for (int j = 0; j < 3; ++j) {
    const float* r = cam.r + 3 * j;
    vJ[j] = vJ[3 + j] = 0.0f;
    for (int k = 0; k < 3; ++k) {
      const F wm = (o.R[k] * r[0] + o.R[3 + k] * r[1] + o.R[6 + k] * r[2]) * o.scale[k];
      vJ[j] = vJ[j] + vB[k] * wm;
      vJ[3 + j] = vJ[3 + j] + vB[3 + k] * wm;
    }
  }
  const F z1 = o.inv_z, z2 = z1 * z1, z3 = z2 * z1;
  const F v_px = 0.0f - vJ[2] * cam.fx * z2, v_py = 0.0f - vJ[5] * cam.fy * z2;
  F vp[3];
  // A held point moves with z alone: p.x = z * const.
  vp[0] = g[0] * cam.fx * z1 + where(o.x_free, v_px);
  vp[1] = g[1] * cam.fy * z1 + where(o.y_free, v_py);
  vp[2] = 0.0f - (g[0] * cam.fx * o.p[0] + g[1] * cam.fy * o.p[1]) * z2;
  vp[2] = vp[2] - (vJ[0] * cam.fx + vJ[4] * cam.fy) * z2;
  vp[2] = vp[2] + 2.0f * (vJ[2] * cam.fx * o.px + vJ[5] * cam.fy * o.py) * z3;
  vp[2] = vp[2] + select(o.x_free, F(0.0f), v_px * o.px * z1);
  vp[2] = vp[2] + select(o.y_free, F(0.0f), v_py * o.py * z1);
  for (int j = 0; j < 3; ++j)
    g_mean[j] = vp[0] * cam.r[j] + vp[1] * cam.r[3 + j] + vp[2] * cam.r[6 + j];
  const F w = o.quat[0], x = o.quat[1], y = o.quat[2], z = o.quat[3];
  const F v21 = vR[7] - vR[5], v02 = vR[2] - vR[6], v10 = vR[3] - vR[1];
  const F s01 = vR[1] + vR[3], s02 = vR[2] + vR[6], s12 = vR[5] + vR[7];
  const F vq[4] = {2.0f * (x * v21 + y * v02 + z * v10),
                   2.0f * (y * s01 + z * s02 + w * v21 - 2.0f * x * (vR[4] + vR[8])),
                   2.0f * (x * s01 + z * s12 + w * v02 - 2.0f * y * (vR[0] + vR[8])),
                   2.0f * (x * s02 + y * s12 + w * v10 - 2.0f * z * (vR[0] + vR[4]))};
  const F along = vq[0] * w + vq[1] * x + vq[2] * y + vq[3] * z;
  const F inv_norm = 1.0f / o.quat_norm;
  for (int i = 0; i < 4; ++i) g_quat[i] = (vq[i] - along * o.quat[i]) * inv_norm;
  *g_logit = v_opacity * o.opacity * (1.0f - o.opacity);
}

// Real spherical harmonics of the direction from the camera to the mean, without the constant
// term: `count` = (degree + 1)^2 - 1 values.
template <class F>
GS_HD void sh_basis(const Camera& cam, const F* mean, int count, F* out) {
  F d[3], n = 0.0f;
  for (int i = 0; i < 3; ++i) {
    d[i] = mean[i] - cam.position[i];
    n = n + d[i] * d[i];
  }
  n = 1.0f / max(root(n), F(1e-12f));
  const F x = d[0] * n, y = d[1] * n, z = d[2] * n;
  if (count >= 3) {
    out[0] = -0.48860251f * y;
    out[1] = 0.48860251f * z;
    out[2] = -0.48860251f * x;
  }
  if (count >= 8) {
    out[3] = 1.09254843f * x * y;
    out[4] = -1.09254843f * y * z;
    out[5] = 0.31539157f * (3.0f * z * z - 1.0f);
    out[6] = -1.09254843f * x * z;
    out[7] = 0.54627422f * (x * x - y * y);
  }
  if (count >= 15) {
    out[8] = -0.59004359f * y * (3.0f * x * x - y * y);
    out[9] = 2.89061144f * x * y * z;
    out[10] = -0.45704580f * y * (5.0f * z * z - 1.0f);
    out[11] = 0.37317633f * z * (5.0f * z * z - 3.0f);
    out[12] = -0.45704580f * x * (5.0f * z * z - 1.0f);
    out[13] = 1.44530572f * z * (x * x - y * y);
    out[14] = -0.59004359f * x * (x * x - 3.0f * y * y);
  }
}

}  // namespace gs
