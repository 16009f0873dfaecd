// Splatting on CUDA in steps: what one thread does between two barriers. The kernels
// (gs_kernels.cuh) and their emulation on the CPU (gs_emu.cpp) consist of calls to these.
//
// Projection and the K heaviest contributions are ours, with the arithmetic of gs_cpu.cpp; tiles
// are sorted, and all contributions composited, by gsplat.
#pragma once
#include "gs_core.h"

namespace gs {

constexpr int kTile = 16;
constexpr int kBlock = kTile * kTile;  // threads: one for a pixel, or for a Gaussian

// gsplat stops before the contribution that would leave 1e-4 or less. A little more, because its fast
// arithmetic leaves opaque contributions 1e-3 of T of their own: who is taken for the last too early
// weighs 1e-4 at most, one too late up to 0.1.
constexpr float kGsplatStop = 1.002e-4f;

// ------------------------------------------------------------------------- projection
struct ProjectTask {
  Camera camera;
  int64_t n;
  int64_t harmonics;  // B
  const float *means, *quats, *log_scales, *logits, *sh0, *sh_rest;  // [N, 3|4|3|-|3|B,3]
  float *splats, *depth, *extent, *rgb;                              // [N, 6|-|2|3]
};

struct ProjectBackwardTask {
  Camera camera;
  int64_t n;
  int64_t harmonics;
  const float *means, *quats, *log_scales, *logits;
  const float *extent, *rgb;      // as projection gave them
  const float *d_splats, *d_rgb;  // [N, 6], [N, 3]
  float *d_means, *d_quats, *d_log_scales, *d_logits, *d_sh0, *d_sh_rest;
};

GS_HD void project_one(const ProjectTask& t, int64_t i) {
  float quat[4], scale[3], mean[3], row[6] = {0, 0, 1, 0, 1, 0}, rgb[3] = {0, 0, 0};
  float z = 0.0f, rx = 0.0f, ry = 0.0f;
  for (int c = 0; c < 3; ++c) mean[c] = t.means[3 * i + c];
  for (int c = 0; c < 4; ++c) quat[c] = t.quats[4 * i + c];
  for (int c = 0; c < 3; ++c) scale[c] = t.log_scales[3 * i + c];
  Projection<float> o;
  if (project(t.camera, mean, quat, scale, t.logits[i], o)) {
    const int count = int(t.harmonics);
    float basis[kMaxHarmonics];
    sh_basis(t.camera, mean, count, basis);
    const float* rest = t.sh_rest + i * count * 3;
    for (int c = 0; c < 3; ++c) rgb[c] = 0.5f + kShDegree0 * t.sh0[3 * i + c];
#pragma unroll
    for (int k = 0; k < kMaxHarmonics; ++k) {
      if (k >= count) break;
      for (int c = 0; c < 3; ++c) rgb[c] += basis[k] * rest[3 * k + c];
    }
    const bool usable = not_finite(rgb, 3) == 0.0f;
    for (int c = 0; c < 3; ++c) rgb[c] = usable && rgb[c] > 0.0f ? rgb[c] : 0.0f;
    if (usable) {
      splat_of(t.camera, o, row);
      z = o.p[2];
      extent_of(o, row[5], &rx, &ry);
    }
  }
  for (int c = 0; c < 6; ++c) t.splats[6 * i + c] = row[c];
  for (int c = 0; c < 3; ++c) t.rgb[3 * i + c] = rgb[c];
  t.depth[i] = z;
  t.extent[2 * i] = rx;
  t.extent[2 * i + 1] = ry;
}

// The viewing direction is taken as constant.
GS_HD void project_backward_one(const ProjectBackwardTask& t, int64_t i) {
  const int count = int(t.harmonics);
  float mean[3], quat[4], scale[3], g[6];
  float d_mean[3] = {0, 0, 0}, d_quat[4] = {0, 0, 0, 0}, d_scale[3] = {0, 0, 0}, d_logit = 0.0f;
  float color[3] = {0, 0, 0}, basis[kMaxHarmonics];
  for (int k = 0; k < kMaxHarmonics; ++k) basis[k] = 0.0f;
  for (int c = 0; c < 3; ++c) mean[c] = t.means[3 * i + c];
  for (int c = 0; c < 4; ++c) quat[c] = t.quats[4 * i + c];
  for (int c = 0; c < 3; ++c) scale[c] = t.log_scales[3 * i + c];
  for (int c = 0; c < 6; ++c) g[c] = t.d_splats[6 * i + c];
  Projection<float> o;
  if (t.extent[2 * i] > 0.0f && project(t.camera, mean, quat, scale, t.logits[i], o)) {
    project_backward(t.camera, o, g, d_mean, d_quat, d_scale, &d_logit);
    sh_basis(t.camera, mean, count, basis);
    for (int c = 0; c < 3; ++c) color[c] = t.rgb[3 * i + c] > 0.0f ? t.d_rgb[3 * i + c] : 0.0f;
  }
  for (int c = 0; c < 3; ++c) {
    t.d_means[3 * i + c] = d_mean[c];
    t.d_log_scales[3 * i + c] = d_scale[c];
    t.d_sh0[3 * i + c] = kShDegree0 * color[c];
  }
  for (int c = 0; c < 4; ++c) t.d_quats[4 * i + c] = d_quat[c];
  t.d_logits[i] = d_logit;
#pragma unroll
  for (int k = 0; k < kMaxHarmonics; ++k) {
    if (k >= count) break;
    for (int c = 0; c < 3; ++c) t.d_sh_rest[(i * count + k) * 3 + c] = basis[k] * color[c];
  }
}

// ------------------------------------------------------------------------- K heaviest
struct Splat {  // a row of what projection gives
  float x, y, a, b, c, opacity;
};

// Half the quadratic form of the conic at the pixel centre (px, py).
GS_HD float sigma_of(const Splat& s, float px, float py) {
  return sigma_at(0.5f * s.a, s.b, 0.5f * s.c, s.x - px, s.y - py);
}

struct HeaviestTask {
  const Splat* splats;     // [N]
  const float* depth;      // [N]
  const int32_t* order;    // [pairs] Gaussians of all tiles, front to back in each
  const int32_t* offsets;  // [rows, columns] where each tile begins
  int32_t* index;          // [H, W, K]
  float *weight, *depths, *distance;
  float* transmittance;    // [H, W] through all contributions
  int32_t* closing;        // [H, W] the contribution that gsplat leaves out, -1 if none
  int32_t pairs, width, height, columns, tiles, k;
};

GS_HD void write_slot(const HeaviestTask& t, int64_t o, int32_t id, float w, float px, float py) {
  if (id < 0) {
    t.index[o] = -1;
    t.weight[o] = 0.0f;
    t.depths[o] = t.distance[o] = -1.0f;
    return;
  }
  const Splat s = t.splats[id];
  const float rim = max(log_of(s.opacity / kAlphaMin), 1e-12f);  // sigma where alpha is 1/255
  const float distance = sigma_of(s, px, py) / rim;
  t.index[o] = id;
  t.weight[o] = w;
  t.depths[o] = t.depth[id];
  t.distance[o] = min(max(distance, 0.0f), 0.99999994f);
}

// The K heaviest so far, in order of arrival = depth. Real slots stand at the end, empty ones with
// weight 0 in front of the filled ones; what CAPACITY has beyond k is never the lightest. Every
// index is static after unrolling, so the list lives in registers.
template <int CAPACITY>
struct RegisterKeeper {
  float weight[CAPACITY];
  int32_t id[CAPACITY];
  float least;  // what the next one must exceed

  GS_HD void begin(const HeaviestTask& t, int64_t) {
#pragma unroll
    for (int i = 0; i < CAPACITY; ++i) {
      weight[i] = i < CAPACITY - t.k ? 4.0f : 0.0f;
      id[i] = -1;
    }
    least = 0.0f;
  }
  // Drops the lightest, of equals the farthest.
  GS_HD void push(const HeaviestTask&, float w, int32_t i) {
    if (!(w > least)) return;
    int at = 0;
    float low = weight[0];
#pragma unroll
    for (int j = 1; j < CAPACITY; ++j) {
      if (weight[j] <= low) {
        low = weight[j];
        at = j;
      }
    }
    least = w;
#pragma unroll
    for (int j = 0; j + 1 < CAPACITY; ++j) {
      if (j >= at) {
        weight[j] = weight[j + 1];
        id[j] = id[j + 1];
      }
      if (weight[j] < least) least = weight[j];
    }
    weight[CAPACITY - 1] = w;
    id[CAPACITY - 1] = i;
  }
  GS_HD void finish(const HeaviestTask& t, int64_t pixel, float px, float py) {
    int64_t to = pixel * t.k;
#pragma unroll
    for (int j = 0; j < CAPACITY; ++j) {
      if (id[j] >= 0) write_slot(t, to++, id[j], weight[j], px, py);
    }
    for (; to < (pixel + 1) * t.k; ++to) write_slot(t, to, -1, 0.0f, px, py);
  }
};

// Any k: the list lives in the K-buffer itself.
struct MemoryKeeper {
  int64_t at;
  float least;

  GS_HD void begin(const HeaviestTask& t, int64_t pixel) {
    at = pixel * t.k;
    for (int i = 0; i < t.k; ++i) {
      t.weight[at + i] = 0.0f;
      t.index[at + i] = -1;
    }
    least = 0.0f;
  }
  GS_HD void push(const HeaviestTask& t, float w, int32_t i) {
    if (!(w > least)) return;
    float* weight = t.weight + at;
    int32_t* id = t.index + at;
    int lightest = 0;
    float low = weight[0];
    for (int j = 1; j < t.k; ++j) {
      if (weight[j] <= low) {
        low = weight[j];
        lightest = j;
      }
    }
    least = w;
    for (int j = 0; j + 1 < t.k; ++j) {
      if (j >= lightest) {
        weight[j] = weight[j + 1];
        id[j] = id[j + 1];
      }
      if (weight[j] < least) least = weight[j];
    }
    weight[t.k - 1] = w;
    id[t.k - 1] = i;
  }
  GS_HD void finish(const HeaviestTask& t, int64_t, float px, float py) {
    int empty = 0;
    while (empty < t.k && t.index[at + empty] < 0) ++empty;
    for (int j = 0; j < t.k; ++j) {  // to the front: no slot is read after it was written
      const int64_t from = at + j + empty;
      const bool filled = j + empty < t.k;
      write_slot(t, at + j, filled ? t.index[from] : -1, filled ? t.weight[from] : 0.0f, px, py);
    }
  }
};

// No K-buffer: only what shines through.
struct NoKeeper {
  GS_HD void begin(const HeaviestTask&, int64_t) {}
  GS_HD void push(const HeaviestTask&, float, int32_t) {}
  GS_HD void finish(const HeaviestTask&, int64_t, float, float) {}
};

// A pixel on its way from front to back.
template <class Keeper>
struct Walk {
  Keeper keeper;
  int64_t pixel;
  float px, py, T;
  int32_t closing;
  bool inside;

  GS_HD void begin(const HeaviestTask& t, int tile, int thread) {
    const int x = tile % t.columns * kTile + thread % kTile;
    const int y = tile / t.columns * kTile + thread / kTile;
    inside = x < t.width && y < t.height;
    pixel = int64_t(y) * t.width + x;
    px = float(x) + 0.5f;
    py = float(y) + 0.5f;
    T = inside ? 1.0f : 0.0f;
    closing = -1;
    if (inside) keeper.begin(t, pixel);
  }
  GS_HD bool full() const { return !(T >= kTransmittanceMin); }
  GS_HD void push(const HeaviestTask& t, const Splat& s, int32_t id) {
    const float alpha = alpha_at(s.opacity, sigma_of(s, px, py));
    if (!(alpha > 0.0f)) return;
    if (closing < 0 && T * (1.0f - alpha) <= kGsplatStop) closing = id;
    const float w = alpha * T;
    T -= w;
    keeper.push(t, w, id);
  }
  GS_HD void finish(const HeaviestTask& t) {
    if (!inside) return;
    t.transmittance[pixel] = T;
    t.closing[pixel] = closing;
    keeper.finish(t, pixel, px, py);
  }
};

GS_HD int32_t tile_end(const HeaviestTask& t, int tile) {
  return tile + 1 < t.tiles ? t.offsets[tile + 1] : t.pairs;
}

}  // namespace gs
