// Per-Gaussian and per-pixel mathematics of splatting, written once for CPU and GPU.
//
// Conventions of 3D Gaussian Splatting as gsplat states them: quaternions (w, x, y, z), scales as
// logarithms, opacities as logits, a low-pass of `eps2d` px^2 on the projected covariance, alpha
// counted from 1/255 and clamped at 0.999. Pixel centres lie at +0.5.
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
constexpr float kShDegree0 = 0.28209479177387814f;

// 2^f around 0: ln(2)^n / n! for n = 7 ... 0.
constexpr float kExp2[8] = {1.5252734e-5f, 1.5403530e-4f, 1.3333558e-3f, 9.6181291e-3f,
                            5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f};

struct Camera {
  float r[9], t[3];         // world to camera, row-major rotation
  float fx, fy, cx, cy;
  float position[3];        // optical centre in the world
  int width, height;
  float near, eps2d;
  int antialias;            // 1: scale opacity by sqrt(det before / det after) the low-pass
};

// What the rasteriser needs of one Gaussian: centre, conic (a b; b c) and opacity.
struct Splat { float x, y, a, b, c, opacity; };

// exp(-s) for s in [0, 16], relative error < 1e-6. Vectorises on every compiler, and gives the same
// bits on every instruction set because nothing is contracted or reassociated.
GS_HD float exp_neg(float s) {
  const float t = s * -1.44269504f;
  const float whole = floorf(t);
  const float f = t - whole;
  float p = kExp2[0];
  for (int i = 1; i < 8; ++i) p = p * f + kExp2[i];
  const int32_t bits = (int32_t(whole) + 127) << 23;
  float scale;
  memcpy(&scale, &bits, 4);
  return p * scale;
}

// Alpha of a splat at offset (dx, dy) = centre - pixel centre; 0 where it does not count.
GS_HD float alpha_at(const Splat& s, float dx, float dy) {
  const float sigma = 0.5f * s.a * dx * dx + s.b * dx * dy + 0.5f * s.c * dy * dy;
  const float q = sigma < 0.0f ? 0.0f : (sigma > 15.0f ? 15.0f : sigma);
  float alpha = s.opacity * exp_neg(q);
  alpha = alpha > kAlphaMax ? kAlphaMax : alpha;
  return (sigma < 15.0f && alpha >= kAlphaMin) ? alpha : 0.0f;
}

// Gradient of alpha_at: `v` = dL/dalpha is added to g = dL/d(x, y, a, b, c, opacity).
GS_HD void alpha_backward(const Splat& s, float dx, float dy, float alpha, float v, float* g) {
  if (alpha >= kAlphaMax) return;  // clamped: flat
  const float vs = -alpha * v;     // dL/dsigma
  g[0] += vs * (s.a * dx + s.b * dy);
  g[1] += vs * (s.b * dx + s.c * dy);
  g[2] += 0.5f * vs * dx * dx;
  g[3] += vs * dx * dy;
  g[4] += 0.5f * vs * dy * dy;
  g[5] += v * alpha / s.opacity;
}

// False if one of n values is NaN or infinite.
GS_HD bool finite(const float* v, int n) {
  float sum = 0.0f;
  for (int i = 0; i < n; ++i) sum += v[i] * 0.0f;
  return sum == 0.0f;
}

GS_HD void rotation_of(const float* q, float* R) {  // unit quaternion -> row-major [9]
  const float w = q[0], x = q[1], y = q[2], z = q[3];
  R[0] = 1 - 2 * (y * y + z * z); R[1] = 2 * (x * y - w * z); R[2] = 2 * (x * z + w * y);
  R[3] = 2 * (x * y + w * z); R[4] = 1 - 2 * (x * x + z * z); R[5] = 2 * (y * z - w * x);
  R[6] = 2 * (x * z - w * y); R[7] = 2 * (y * z + w * x); R[8] = 1 - 2 * (x * x + y * y);
}

// Everything of the projection that its backward pass needs again.
struct Projection {
  float quat[4], quat_norm;   // normalised
  float R[9], scale[3];
  float p[3], inv_z;          // camera space
  float px, py;               // p.x, p.y as the Jacobian sees them, held inside a widened frustum
  bool x_free, y_free;        // not held
  float B[6];                 // 2x3: J W R diag(scale); the 2D covariance is B B^T + eps2d I
  float cov[3];               // xx, xy, yy with eps2d
  float normal[3];            // cross product of the rows of B
  float det, det0;            // with and without eps2d
  float opacity, compensation;
};

GS_HD void jacobian(const Camera& cam, const Projection& o, float* J) {  // 2x3 of (u, v) by p
  J[0] = cam.fx * o.inv_z; J[1] = 0; J[2] = -cam.fx * o.px * o.inv_z * o.inv_z;
  J[3] = 0; J[4] = cam.fy * o.inv_z; J[5] = -cam.fy * o.py * o.inv_z * o.inv_z;
}

GS_HD void cross(const float* a, const float* b, float* out) {
  out[0] = a[1] * b[2] - a[2] * b[1];
  out[1] = a[2] * b[0] - a[0] * b[2];
  out[2] = a[0] * b[1] - a[1] * b[0];
}

// Returns false when the Gaussian cannot be seen (behind the near plane, not finite, too faint).
GS_HD bool project(const Camera& cam, const float* mean, const float* quat, const float* log_scale,
                   float logit, Projection& o) {
  for (int i = 0; i < 3; ++i)
    o.p[i] = cam.r[3 * i] * mean[0] + cam.r[3 * i + 1] * mean[1] + cam.r[3 * i + 2] * mean[2] + cam.t[i];
  if (!(o.p[2] >= cam.near) || !(o.p[2] < 1e12f)) return false;  // beyond, gradients overflow
  if (!finite(mean, 3) || !finite(quat, 4) || !finite(log_scale, 3) || !finite(&logit, 1)) return false;
  o.opacity = 1.0f / (1.0f + expf(-logit));
  if (!(o.opacity >= kAlphaMin)) return false;
  o.quat_norm = sqrtf(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3]);
  if (!(o.quat_norm > 1e-12f) || !finite(&o.quat_norm, 1)) return false;
  for (int i = 0; i < 4; ++i) o.quat[i] = quat[i] / o.quat_norm;
  rotation_of(o.quat, o.R);
  for (int i = 0; i < 3; ++i) o.scale[i] = expf(log_scale[i]);
  o.inv_z = 1.0f / o.p[2];
  // Far outside the picture the linearised projection explodes; hold the Jacobian's point inside a
  // frustum 30 % wider than half the picture, as 3DGS does.
  const float wx = 0.15f * cam.width / cam.fx, wy = 0.15f * cam.height / cam.fy;
  const float lo_x = -(cam.cx / cam.fx + wx), hi_x = (cam.width - cam.cx) / cam.fx + wx;
  const float lo_y = -(cam.cy / cam.fy + wy), hi_y = (cam.height - cam.cy) / cam.fy + wy;
  const float sx = o.p[0] * o.inv_z, sy = o.p[1] * o.inv_z;
  o.x_free = sx >= lo_x && sx <= hi_x;
  o.y_free = sy >= lo_y && sy <= hi_y;
  o.px = o.p[2] * (sx < lo_x ? lo_x : sx > hi_x ? hi_x : sx);
  o.py = o.p[2] * (sy < lo_y ? lo_y : sy > hi_y ? hi_y : sy);
  float J[6];
  jacobian(cam, o, J);
  for (int i = 0; i < 2; ++i) {
    float JW[3];
    for (int j = 0; j < 3; ++j)
      JW[j] = J[3 * i] * cam.r[j] + J[3 * i + 1] * cam.r[3 + j] + J[3 * i + 2] * cam.r[6 + j];
    for (int j = 0; j < 3; ++j)
      o.B[3 * i + j] = (JW[0] * o.R[j] + JW[1] * o.R[3 + j] + JW[2] * o.R[6 + j]) * o.scale[j];
  }
  const float* B = o.B;
  const float xx = B[0] * B[0] + B[1] * B[1] + B[2] * B[2];
  const float xy = B[0] * B[3] + B[1] * B[4] + B[2] * B[5];
  const float yy = B[3] * B[3] + B[4] * B[4] + B[5] * B[5];
  o.cov[0] = xx + cam.eps2d; o.cov[1] = xy; o.cov[2] = yy + cam.eps2d;
  // xx yy - xy^2 without its cancellation: a long thin footprint keeps its width.
  cross(B, B + 3, o.normal);
  o.det0 = o.normal[0] * o.normal[0] + o.normal[1] * o.normal[1] + o.normal[2] * o.normal[2];
  o.det = o.det0 + cam.eps2d * (xx + yy + cam.eps2d);
  if (!(o.det > 1e-12f) || !(o.det < 1e24f)) return false;
  const float ratio = o.det0 / o.det;
  o.compensation = cam.antialias ? sqrtf(ratio > 2.5e-5f ? ratio : 2.5e-5f) : 1.0f;
  return o.opacity * o.compensation >= kAlphaMin;
}

GS_HD Splat splat_of(const Camera& cam, const Projection& o) {
  Splat s;
  s.x = cam.fx * o.p[0] * o.inv_z + cam.cx;
  s.y = cam.fy * o.p[1] * o.inv_z + cam.cy;
  s.a = o.cov[2] / o.det; s.b = -o.cov[1] / o.det; s.c = o.cov[0] / o.det;
  s.opacity = o.opacity * o.compensation;
  return s;
}

// Half width and height in px of the region where alpha can reach 1/255.
GS_HD void extent_of(const Projection& o, float opacity, float* rx, float* ry) {
  const float q = 2.0f * logf(opacity / kAlphaMin);
  *rx = 1.00001f * sqrtf(q * o.cov[0]) + 1e-3f;  // wider than all roundings of alpha_at
  *ry = 1.00001f * sqrtf(q * o.cov[2]) + 1e-3f;
}

// g = dL/d(x, y, a, b, c, opacity) -> gradients of mean [3], quat [4], log scale [3], logit (set).
GS_HD void project_backward(const Camera& cam, const Projection& o, const float* g, float* g_mean,
                            float* g_quat, float* g_log_scale, float* g_logit) {
  const float xx = o.cov[0], xy = o.cov[1], yy = o.cov[2], inv = 1.0f / o.det;
  // The conic is (yy, -xy, xx) / det: first the explicit entries, then the share through det.
  float v_det = -(g[2] * yy - g[3] * xy + g[4] * xx) * inv * inv;
  const float v_xy = -g[3] * inv;
  const float v_opacity = g[5] * o.compensation;
  float v_det0 = 0.0f;
  if (cam.antialias && o.det0 / o.det > 2.5e-5f) {  // compensation = sqrt(det0 / det)
    const float v_ratio = g[5] * o.opacity * 0.5f / o.compensation;
    v_det0 = v_ratio * inv;
    v_det -= v_ratio * o.det0 * inv * inv;
  }
  // det = det0 + eps2d (xx + yy) + const, det0 = |normal|^2.
  const float v_xx = g[4] * inv + v_det * cam.eps2d, v_yy = g[2] * inv + v_det * cam.eps2d;
  const float v_normal = 2.0f * (v_det + v_det0);
  float by_row0[3], by_row1[3];
  cross(o.B + 3, o.normal, by_row0);
  cross(o.normal, o.B, by_row1);
  // cov = B B^T, with the off-diagonal entry counted once.
  float vB[6];
  for (int j = 0; j < 3; ++j) {
    vB[j] = 2.0f * v_xx * o.B[j] + v_xy * o.B[3 + j] + v_normal * by_row0[j];
    vB[3 + j] = 2.0f * v_yy * o.B[3 + j] + v_xy * o.B[j] + v_normal * by_row1[j];
  }
  float J[6], JW[6];
  jacobian(cam, o, J);
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 3; ++j)
      JW[3 * i + j] = J[3 * i] * cam.r[j] + J[3 * i + 1] * cam.r[3 + j] + J[3 * i + 2] * cam.r[6 + j];
  float vR[9];
  for (int j = 0; j < 3; ++j) {
    float v_scale = 0.0f;
    for (int i = 0; i < 3; ++i) {
      const float vM = JW[i] * vB[j] + JW[3 + i] * vB[3 + j];  // d/d(R diag(scale))_ij
      vR[3 * i + j] = vM * o.scale[j];
      v_scale += vM * o.R[3 * i + j];
    }
    g_log_scale[j] = v_scale * o.scale[j];
  }
  float vJ[6];  // B = J (W M): dJ = dB (W M)^T
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 3; ++j) {
      float v = 0.0f;
      for (int k = 0; k < 3; ++k) {
        const float wm = (cam.r[3 * j] * o.R[k] + cam.r[3 * j + 1] * o.R[3 + k] + cam.r[3 * j + 2] * o.R[6 + k]) * o.scale[k];
        v += vB[3 * i + k] * wm;
      }
      vJ[3 * i + j] = v;
    }
  const float z1 = o.inv_z, z2 = z1 * z1, z3 = z2 * z1;
  float vp[3];
  vp[0] = g[0] * cam.fx * z1;
  vp[1] = g[1] * cam.fy * z1;
  vp[2] = -(g[0] * cam.fx * o.p[0] + g[1] * cam.fy * o.p[1]) * z2;
  vp[2] -= (vJ[0] * cam.fx + vJ[4] * cam.fy) * z2;
  const float v_px = -vJ[2] * cam.fx * z2, v_py = -vJ[5] * cam.fy * z2;
  vp[2] += 2.0f * (vJ[2] * cam.fx * o.px + vJ[5] * cam.fy * o.py) * z3;
  // A held point moves with z alone: p.x = z * const.
  if (o.x_free) vp[0] += v_px; else vp[2] += v_px * o.px * z1;
  if (o.y_free) vp[1] += v_py; else vp[2] += v_py * o.py * z1;
  for (int j = 0; j < 3; ++j) g_mean[j] = cam.r[j] * vp[0] + cam.r[3 + j] * vp[1] + cam.r[6 + j] * vp[2];
  const float w = o.quat[0], x = o.quat[1], y = o.quat[2], z = o.quat[3];
  const float vq[4] = {
      2 * (x * (vR[7] - vR[5]) + y * (vR[2] - vR[6]) + z * (vR[3] - vR[1])),
      2 * (-2 * x * (vR[4] + vR[8]) + y * (vR[1] + vR[3]) + z * (vR[2] + vR[6]) + w * (vR[7] - vR[5])),
      2 * (x * (vR[1] + vR[3]) - 2 * y * (vR[0] + vR[8]) + z * (vR[5] + vR[7]) + w * (vR[2] - vR[6])),
      2 * (x * (vR[2] + vR[6]) + y * (vR[5] + vR[7]) - 2 * z * (vR[0] + vR[4]) + w * (vR[3] - vR[1]))};
  const float along = vq[0] * w + vq[1] * x + vq[2] * y + vq[3] * z;
  for (int i = 0; i < 4; ++i) g_quat[i] = (vq[i] - along * o.quat[i]) / o.quat_norm;
  *g_logit = v_opacity * o.opacity * (1.0f - o.opacity);
}

// Real spherical harmonics without the constant term: `count` = (degree + 1)^2 - 1 values.
GS_HD void sh_basis(const float* d, int count, float* out) {
  const float x = d[0], y = d[1], z = d[2];
  if (count >= 3) { out[0] = -0.48860251f * y; out[1] = 0.48860251f * z; out[2] = -0.48860251f * x; }
  if (count >= 8) {
    out[3] = 1.09254843f * x * y; out[4] = -1.09254843f * y * z;
    out[5] = 0.31539157f * (3 * z * z - 1); out[6] = -1.09254843f * x * z;
    out[7] = 0.54627422f * (x * x - y * y);
  }
  if (count >= 15) {
    out[8] = -0.59004359f * y * (3 * x * x - y * y); out[9] = 2.89061144f * x * y * z;
    out[10] = -0.45704580f * y * (5 * z * z - 1); out[11] = 0.37317633f * z * (5 * z * z - 3);
    out[12] = -0.45704580f * x * (5 * z * z - 1); out[13] = 1.44530572f * z * (x * x - y * y);
    out[14] = -0.59004359f * x * (x * x - 3 * y * y);
  }
}

}  // namespace gs
