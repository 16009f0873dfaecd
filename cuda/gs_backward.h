// Gradients of one tile: of the composite of all contributions, and of the picture of K layers.
#pragma once
#include "gs_gradients.h"

namespace gs {

// ------------------------------------------------------------------------- all contributions

struct CompositeGradIn {
  const float* values;         // [N, C]
  const float* transmittance;  // [H, W]
  const int32_t* last;         // [H, W]
  const float* image;          // [H, W, C] gradient
  const float* alpha;          // [H, W] gradient
  int channels;
};

struct CompositeScratch {
  alignas(64) float T[kPixels];  // by block
  alignas(64) float behind[kPixels];
  alignas(64) float v_opacity[kPixels];
  alignas(64) float last[kPixels];  // tags
  std::vector<float> image;         // [blocks, C, 16] gradient
  std::vector<float> sums;          // [C, 16] gradient of one Gaussian's values
};

// Loads what is known of the pixels; returns for each block the end of its part of the list.
inline void load_pixels(const GsBins& bins, const TileBox& box, const CompositeGradIn& in,
                        CompositeScratch& s, int32_t* ends) {
  const size_t C = size_t(in.channels);
  std::fill(s.T, s.T + kPixels, 0.0f);
  std::fill(s.behind, s.behind + kPixels, 0.0f);
  std::fill(s.v_opacity, s.v_opacity + kPixels, 0.0f);
  std::fill(s.last, s.last + kPixels, tag_of(0));
  s.image.assign(kPixels * C, 0.0f);
  s.sums.resize(kLanes * C);
  for (int block = 0; block < kBlocks; ++block) {
    ends[block] = 0;
    float* image = &s.image[size_t(block) * kLanes * C];
    each_pixel(box, block, [&](int lane, int x, int y) {
      const int p = block * kLanes + lane;
      const size_t d = size_t(box.y + y) * bins.width + box.x + x;
      s.T[p] = in.transmittance[d];
      s.v_opacity[p] = in.alpha[d] * in.transmittance[d];
      s.last[p] = tag_of(in.last[d]);
      ends[block] = std::max(ends[block], in.last[d]);
      for (size_t c = 0; c < C; ++c) image[c * kLanes + lane] = in.image[d * C + c];
    });
  }
}

// Back to front. T before each contribution is recovered by division, and the colour behind it is
// carried as its dot product with the pixel's gradient.
inline void composite_backward_tile(const GsBins& bins, int tile, const CompositeGradIn& in,
                                    CompositeScratch& s, RowStore& rows) {
  const TileBox box = bins.box(tile);
  const TileBlocks pixels(box);
  const int C = in.channels;
  int32_t ends[kBlocks];
  load_pixels(bins, box, in, s, ends);
  const int32_t* list = bins.list.get() + bins.start[tile];
  for (int32_t j = *std::max_element(ends, ends + kBlocks) - 1; j >= 0; --j) {
    constexpr int32_t kAhead = 4;
    if (j >= kAhead) prefetch(&bins.footprint[list[j - kAhead]]);
    const Footprint& f = bins.footprint[list[j]];
    const float* value = in.values + size_t(list[j]) * C;
    Float16 m[kMoments] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    bool touched = false;
    for (uint32_t rest = f.blocks(box); rest; rest &= rest - 1) {
      const int block = lowest_bit(rest), p = block * kLanes;
      if (ends[block] <= j) continue;
      const Float16 dx = pixels.dx(f, block), dy = pixels.dy(f, block);
      const Float16 sigma = sigma_of(f, dx, dy);
      if (!any(less(sigma, f.rim))) continue;
      const Float16 alpha =
          where(less(tag_of(j), Float16::load(s.last + p)), alpha_at(Float16(f.opacity), sigma));
      const auto hit = less(0.0f, alpha);
      if (!any(hit)) continue;
      if (!touched) std::fill(s.sums.begin(), s.sums.end(), 0.0f);
      touched = true;
      const Float16 through = 1.0f / (1.0f - alpha);
      const Float16 T = Float16::load(s.T + p) * through, w = alpha * T;
      T.store(s.T + p);
      const float* image = &s.image[size_t(p) * C];
      float* sums = s.sums.data();
      Float16 dot = 0.0f;
      for (int c = 0; c < C; ++c, image += kLanes, sums += kLanes) {
        const Float16 g = Float16::load(image);
        (Float16::load(sums) + w * g).store(sums);
        dot = dot + g * value[c];
      }
      dot = where(hit, dot);
      const Float16 behind = Float16::load(s.behind + p);
      const Float16 v_alpha = dot * T + (Float16::load(s.v_opacity + p) - behind) * through;
      (behind + w * dot).store(s.behind + p);
      // a clamped alpha is flat
      const Float16 v = where(less(alpha, kAlphaMax), 0.0f - alpha * v_alpha);
      const Float16 vx = v * dx, vy = v * dy;
      m[0] = m[0] + vx;
      m[1] = m[1] + vy;
      m[2] = m[2] + vx * dx;
      m[3] = m[3] + vx * dy;
      m[4] = m[4] + vy * dy;
      m[5] = m[5] + v;
    }
    if (!touched) continue;
    float* row = rows.add(list[j]);
    for (int i = 0; i < kMoments; ++i) row[i] = sum(m[i]);
    for (int c = 0; c < C; ++c) row[kMoments + c] = sum(Float16::load(&s.sums[size_t(c) * kLanes]));
  }
}

// -------------------------------------------------------------------------------- the K layers

struct LayersGradIn {
  const int32_t* index;        // [H, W, K]
  const float* weight;         // [H, W, K]
  const float* transmittance;  // [H, W]
  const float* values;         // [N, C]
  const float* splats;         // [N, 6]
  int width, height, layers, channels, features;
  const float* image;      // [H, W, C] gradient
  const float* alpha;      // [H, W] gradient
  const float* per_layer;  // [H, W, K, F] gradient
};

// Finds the row of a Gaussian among those of the tile: open addressing, twice the room needed.
class RowTable {
 public:
  void begin(int layers) {
    size_t size = 2;
    while (size < 2 * size_t(kPixels) * layers) size *= 2;
    if (slots_.size() < size) slots_.assign(size, {-1, 0});
    mask_ = uint32_t(slots_.size() - 1);
    used_.clear();
  }
  // Where the row's number is, or is to be put: then it is negative.
  int32_t* find(int32_t id) {
    uint32_t at = (uint32_t(id) * 2654435769u) >> 7 & mask_;
    while (slots_[at].id >= 0 && slots_[at].id != id) at = (at + 1) & mask_;
    if (slots_[at].id < 0) {
      slots_[at] = {id, -1};
      used_.push_back(at);
    }
    return &slots_[at].row;
  }
  void clear() {
    for (uint32_t at : used_) slots_[at].id = -1;
    used_.clear();
  }

 private:
  struct Slot {
    int32_t id, row;
  };
  std::vector<Slot> slots_;
  std::vector<uint32_t> used_;
  uint32_t mask_ = 0;
};

// The filled layers of one pixel, padded to whole vectors.
struct PixelLayers {
  alignas(64) float dx[kMaxLayers], dy[kMaxLayers];
  alignas(64) float sigma[kMaxLayers], opacity[kMaxLayers], w[kMaxLayers];
  alignas(64) float alpha[kMaxLayers];
  alignas(64) float per_alpha[kMaxLayers];   // w / alpha, 0 where alpha is
  alignas(64) float per_behind[kMaxLayers];  // 1 / (1 - alpha)
  float v_share[kMaxLayers];                 // dL/d(share)

  void finish(int n) {
    for (int i = n; i < (n + kLanes - 1) / kLanes * kLanes; ++i) sigma[i] = 2.0f * kSigmaMax;
    for (int i = 0; i < n; i += kLanes) {
      const Float16 a = alpha_at(Float16::load(opacity + i), Float16::load(sigma + i));
      a.store(alpha + i);
      where(less(0.0f, a), Float16::load(w + i) / a).store(per_alpha + i);
      (1.0f / (1.0f - a)).store(per_behind + i);
    }
  }
};

inline float dot_of(const float* a, const float* b, int n) {
  float sum = 0.0f;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Loads the layers of pixel d, whose centre is (x, y); returns how many are filled.
template <int kChannels, int kFeatures>
int load_layers(const LayersGradIn& in, size_t d, float x, float y, PixelLayers& p) {
  const int K = in.layers;
  const int C = kChannels ? kChannels : in.channels, F = kChannels ? kFeatures : in.features;
  int n = 0;
  for (; n < K; ++n) {
    const int32_t id = in.index[d * K + n];
    if (id < 0) break;
    const float* s = in.splats + size_t(id) * 6;
    p.dx[n] = s[0] - x;
    p.dy[n] = s[1] - y;
    p.sigma[n] = sigma_at(0.5f * s[2], s[3], 0.5f * s[4], p.dx[n], p.dy[n]);
    p.opacity[n] = s[5];
    p.w[n] = in.weight[d * K + n];
    const float* value = in.values + size_t(id) * C;
    p.v_share[n] = dot_of(in.image + d * C, value, C) +
                   dot_of(in.per_layer + (d * K + n) * F, value + C - F, F);
  }
  p.finish(n);
  return n;
}

// Exact partial derivatives for the kept contributions of each pixel, none for the others.
// kChannels > 0: so many and kFeatures, else as many as `in` says.
template <int kChannels, int kFeatures>
void layers_backward_pixels(const LayersGradIn& in, const TileBox& box, RowTable& table,
                            RowStore& rows) {
  const int K = in.layers;
  const int C = kChannels ? kChannels : in.channels, F = kChannels ? kFeatures : in.features;
  const size_t first_row = rows.size();
  PixelLayers p;
  table.begin(K);
  for (int pixel = 0; pixel < box.w * box.h; ++pixel) {
    const int x = box.x + pixel % box.w, y = box.y + pixel / box.w;
    const size_t d = size_t(y) * in.width + x;
    if (in.index[d * K] < 0) continue;
    const int n = load_layers<kChannels, kFeatures>(in, d, float(x) + 0.5f, float(y) + 0.5f, p);
    float total = 0.0f, mean = 0.0f;
    for (int k = 0; k < n; ++k) {
      total += p.w[k];
      mean += p.w[k] * p.v_share[k];
    }
    mean /= total;
    const float T = in.transmittance[d], scale = (1.0f - T) / total;
    const float v_opacity = (in.alpha[d] + mean) * T;  // dL/dA, times T
    float behind = 0.0f;  // sum over the layers behind of dL/dw_k w_k
    for (int k = n - 1; k >= 0; --k) {
      const int32_t id = in.index[d * K + k];
      int32_t* at = table.find(id);
      if (*at < 0) {
        *at = int32_t(rows.size() - first_row);
        rows.add(id);
      }
      float* row = rows.row(first_row + size_t(*at));
      if (p.alpha[k] > 0.0f) {
        const float v_w = scale * (p.v_share[k] - mean);
        const float v_alpha = v_w * p.per_alpha[k] + (v_opacity - behind) * p.per_behind[k];
        behind += v_w * p.w[k];
        // a clamped alpha is flat
        const float v = p.alpha[k] < kAlphaMax ? -p.alpha[k] * v_alpha : 0.0f;
        const float vx = v * p.dx[k], vy = v * p.dy[k];
        row[0] += vx;
        row[1] += vy;
        row[2] += vx * p.dx[k];
        row[3] += vx * p.dy[k];
        row[4] += vy * p.dy[k];
        row[5] += v;
      }
      const float share = p.w[k] * scale;
      const float* g = in.image + d * C;
      const float* gl = in.per_layer + (d * K + k) * F;
      for (int c = 0; c < C; ++c) row[kMoments + c] += share * g[c];
      for (int f = 0; f < F; ++f) row[kMoments + C - F + f] += share * gl[f];
    }
  }
  table.clear();
}

inline void layers_backward_tile(const LayersGradIn& in, const TileBox& box, RowTable& table,
                                 RowStore& rows) {
  if (in.channels == kUsualChannels && in.features == kUsualFeatures)
    layers_backward_pixels<kUsualChannels, kUsualFeatures>(in, box, table, rows);
  else
    layers_backward_pixels<0, 0>(in, box, table, rows);
}

}  // namespace gs
