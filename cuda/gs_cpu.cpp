// Gaussian splatting on the CPU: projection, tile binning, N-channel compositing forward and
// backward, and each pixel's K heaviest contributions. C ABI, no torch, no OpenMP.
//
// Every result is the same for any number of threads: work is split by tile or by Gaussian, and
// gradients of a Gaussian are summed over its tiles in tile order.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "gs_core.h"
#include "kb_host.h"
#include "simd.h"

using gs::Splat;
using namespace kb;

namespace {

constexpr int kTile = 16;
constexpr int kPixels = kTile * kTile;
constexpr int kMaxLayers = 64;
constexpr int kGeometry = 6;  // gradient of x, y, a, b, c, opacity

// Calls body(begin, end) on contiguous shares of [0, n).
template <class F>
Status parallel_range(int threads, int64_t n, const F& body) {
  return parallel(threads, [&](int t) {
    const Range range = share(n, threads, t);
    body(range.begin, range.end);
  });
}

// Calls body(thread, tile) once for every tile.
template <class F>
Status parallel_tiles(int threads, int tiles, const F& body) {
  std::atomic<int> next{0};
  return parallel(threads, [&](int t) {
    for (int tile; (tile = next++) < tiles;) body(t, tile);
  });
}

struct TileBox { int x, y, w, h; };

TileBox tile_box(int tile, int tiles_x, int width, int height) {
  const int x = tile % tiles_x * kTile, y = tile / tiles_x * kTile;
  return {x, y, std::min(kTile, width - x), std::min(kTile, height - y)};
}

int tiles_across(int pixels) { return (pixels + kTile - 1) / kTile; }

}  // namespace

// Gaussians sorted by depth, and for each tile the ranks of those that may touch it, ascending.
// Lives from the forward to the backward pass.
struct GsBins {
  int width, height, tiles_x, tiles_y;
  std::vector<Splat> splat;      // [M] by rank
  std::vector<float> extent_y;   // [M]
  std::vector<float> inv_rim;    // [M] 1 / sigma at alpha = 1/255
  std::vector<int32_t> id;       // [M] rank -> Gaussian
  std::vector<float> depth;      // [M]
  std::vector<int64_t> start;    // [tiles + 1]
  std::unique_ptr<int32_t[]> list;  // ranks

  int tiles() const { return tiles_x * tiles_y; }
  TileBox box(int tile) const { return tile_box(tile, tiles_x, width, height); }
  // Rows of the tile that the splat of this rank can reach.
  bool rows(int rank, const TileBox& b, int* y0, int* y1) const {
    const float y = splat[rank].y - (float(b.y) + 0.5f), r = extent_y[rank];
    const float low = std::min(std::max(y - r, 0.0f), float(kTile));  // before int: may be huge
    *y0 = int(low) + (float(int(low)) < low);                         // ceil
    *y1 = int(std::max(std::min(y + r, float(b.h - 1)), -1.0f) + 1.0f) - 1;  // floor
    return *y0 <= *y1;
  }
};

namespace {

using simd::Float16;

// exp(-s) for s in [0, 16): gs::exp_neg, sixteen at a time and equal to it bit for bit.
inline Float16 exp_neg(Float16 s) {
  simd::Whole16 whole;
  const Float16 f = simd::fraction(s * Float16::all(-1.44269504f), &whole);
  Float16 p = Float16::all(gs::kExp2[0]);
  for (int i = 1; i < 8; ++i) p = p * f + Float16::all(gs::kExp2[i]);
  return simd::scale_by(p, whole);
}

inline Float16 row_centers(const TileBox& b) {
  float x[kTile];
  for (int i = 0; i < kTile; ++i) x[i] = float(b.x + i) + 0.5f;
  return Float16::load(x);
}

// One Gaussian on one tile row: alphas of 16 pixels, 0 where it does not count. Lanes beyond the
// picture's edge are computed too; the caller ignores them.
struct RowAlpha {
  Float16 dx, a_dx2, b_dx;
  const Splat& s;
  RowAlpha(const Splat& splat, Float16 centers) : s(splat) {
    dx = Float16::all(s.x) - centers;
    a_dx2 = Float16::all(0.5f * s.a) * dx * dx;
    b_dx = Float16::all(s.b) * dx;
  }
  Float16 at(float dy) const {
    const Float16 zero = Float16::all(0.0f);
    const Float16 sigma = a_dx2 + b_dx * Float16::all(dy) + Float16::all(0.5f * s.c * dy * dy);
    const Float16 q = simd::min(simd::max(sigma, zero), Float16::all(15.0f));
    const Float16 a = simd::min(Float16::all(s.opacity) * exp_neg(q), Float16::all(gs::kAlphaMax));
    return simd::where(simd::less(sigma, Float16::all(15.0f)) & simd::at_least(a, Float16::all(gs::kAlphaMin)), a);
  }
};

// The K heaviest contributions of one pixel so far, in order of arrival = depth. Empty slots stand
// in front with weight 0; rows are padded to a multiple of 8 with slots that are never the lightest.
constexpr float kNeverLightest = 4.0f;

struct Keeper {
  int k, stride;
#if defined(__AVX2__)
  alignas(32) int32_t shift[8][8];  // [lightest slot]: the slots behind it move one forward
#endif
  explicit Keeper(int layers) : k(layers), stride((layers + 7) / 8 * 8) {
#if defined(__AVX2__)
    for (int least = 0; least < 8; ++least)
      for (int i = 0; i < 8; ++i) shift[least][i] = i >= least && i + 1 < k ? i + 1 : i;
#endif
  }
  void reset(std::vector<float>& weight, std::vector<int32_t>& rank) const {
    weight.assign(size_t(kPixels) * stride, 0.0f);
    rank.assign(size_t(kPixels) * stride, -1);
    for (int p = 0; p < kPixels; ++p)
      for (int i = k; i < stride; ++i) weight[size_t(p) * stride + i] = kNeverLightest;
  }
  // Replaces the lightest (of equals the farther one); returns what the next one must exceed.
  float insert(float* weight, int32_t* rank, float w, int32_t r) const {
#if defined(__AVX2__)
    if (stride == 8) return insert8(weight, rank, w, r);
#endif
    int least = 0;
    for (int i = 1; i < k; ++i) if (weight[i] <= weight[least]) least = i;
    for (int i = least; i + 1 < k; ++i) { weight[i] = weight[i + 1]; rank[i] = rank[i + 1]; }
    weight[k - 1] = w;
    rank[k - 1] = r;
    return *std::min_element(weight, weight + k);
  }
#if defined(__AVX2__)
  static __m256 lowest8(__m256 v) {  // the minimum in every lane
    v = _mm256_min_ps(v, _mm256_permute2f128_ps(v, v, 1));
    v = _mm256_min_ps(v, _mm256_shuffle_ps(v, v, 0x4E));
    return _mm256_min_ps(v, _mm256_shuffle_ps(v, v, 0xB1));
  }
  float insert8(float* weight, int32_t* rank, float w, int32_t r) const {
    const __m256 old = _mm256_loadu_ps(weight);
    const uint32_t lightest = uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(old, lowest8(old), _CMP_EQ_OQ)));
    const __m256i move = _mm256_load_si256(reinterpret_cast<const __m256i*>(shift[highest_bit(lightest)]));
    _mm256_storeu_ps(weight, _mm256_permutevar8x32_ps(old, move));
    __m256i* ranks = reinterpret_cast<__m256i*>(rank);
    _mm256_storeu_si256(ranks, _mm256_permutevar8x32_epi32(_mm256_loadu_si256(ranks), move));
    weight[k - 1] = w;
    rank[k - 1] = r;
    return _mm256_cvtss_f32(lowest8(_mm256_loadu_ps(weight)));
  }
#endif
};

struct ForwardOut {
  int32_t* index;      // [H, W, K]
  float* weight;       // [H, W, K]
  float* depth;        // [H, W, K]
  float* distance;     // [H, W, K]
  float* transmittance;  // [H, W]
  int32_t* last;       // [H, W] position in the tile's list behind the last contribution
  const float* values; // [N, C] or null
  float* image;        // [H, W, C] all contributions
  int channels, layers;
};

// One slot of the K-buffer. alpha = 1/255 is the rim of the footprint: the distance is sigma over
// sigma at the rim, in [0, 1).
inline void write_slot(const GsBins& bins, const ForwardOut& out, size_t o, int32_t rank, float w, int x, int y) {
  const Splat& g = bins.splat[rank];
  const float dx = g.x - (float(x) + 0.5f), dy = g.y - (float(y) + 0.5f);
  const float sigma = 0.5f * g.a * dx * dx + g.b * dx * dy + 0.5f * g.c * dy * dy;
  out.index[o] = bins.id[rank];
  out.weight[o] = w;
  out.depth[o] = bins.depth[rank];
  out.distance[o] = std::min(std::max(sigma * bins.inv_rim[rank], 0.0f), 0.99999994f);
}

struct ForwardScratch {
  alignas(64) float T[kPixels];
  alignas(64) float threshold[kPixels];
  int32_t last[kPixels];
  std::vector<float> weight;   // [256, keeper.stride]
  std::vector<int32_t> rank;   // [256, keeper.stride]
  std::vector<float> image;    // [256, C]
};

void forward_tile(const GsBins& bins, int tile, const ForwardOut& out, const Keeper& keeper, ForwardScratch& s) {
  const TileBox b = bins.box(tile);
  const int k = out.layers, channels = out.channels;
  std::fill(s.T, s.T + kPixels, 1.0f);
  std::fill(s.threshold, s.threshold + kPixels, k ? 0.0f : 2.0f);  // nothing exceeds 2
  std::fill(s.last, s.last + kPixels, 0);
  keeper.reset(s.weight, s.rank);
  s.image.assign(size_t(kPixels) * channels, 0.0f);
  const int32_t* list = bins.list.get() + bins.start[tile];
  const int64_t count = bins.start[tile + 1] - bins.start[tile];
  const Float16 centers = row_centers(b);
  const uint32_t columns = (1u << b.w) - 1;
  alignas(64) float weight[kTile];
  for (int64_t j = 0; j < count; ++j) {
    if (j % 32 == 31) {  // every pixel full: nothing behind can be seen
      Float16 open = Float16::all(0.0f);
      for (int y = 0; y < b.h; ++y) open = simd::max(open, Float16::load(s.T + y * kTile));
      if (simd::highest(open) < gs::kTransmittanceMin) break;
    }
    const int32_t rank = list[j];
    int y0, y1;
    if (!bins.rows(rank, b, &y0, &y1)) continue;
    const Splat& g = bins.splat[rank];
    const RowAlpha row(g, centers);
    const float* value = channels ? out.values + size_t(bins.id[rank]) * channels : nullptr;
    for (int y = y0; y <= y1; ++y) {
      Float16 alpha = row.at(g.y - (float(b.y + y) + 0.5f));
      const Float16 T = Float16::load(s.T + y * kTile);
      alpha = simd::where(simd::at_least(T, Float16::all(gs::kTransmittanceMin)), alpha);
      const Float16 w = alpha * T;
      const uint32_t hit = simd::less(Float16::all(0.0f), w).bits() & columns;
      if (!hit) continue;
      (T - w).store(s.T + y * kTile);
      w.store(weight);
      uint32_t heavy = simd::less(Float16::load(s.threshold + y * kTile), w).bits() & columns;
      for (; heavy; heavy &= heavy - 1) {
        const int x = lowest_bit(heavy), p = y * kTile + x;
        const size_t slot = size_t(p) * keeper.stride;
        s.threshold[p] = keeper.insert(&s.weight[slot], &s.rank[slot], weight[x], rank);
      }
      for (uint32_t m = channels ? hit : 0; m; m &= m - 1) {
        const int x = lowest_bit(m), p = y * kTile + x;
        s.last[p] = int32_t(j) + 1;
        float* image = &s.image[size_t(p) * channels];
        for (int c = 0; c < channels; ++c) image[c] += weight[x] * value[c];
      }
    }
  }
  for (int y = 0; y < b.h; ++y) {
    for (int x = 0; x < b.w; ++x) {
      const int p = y * kTile + x;
      const size_t d = size_t(b.y + y) * bins.width + b.x + x;
      out.transmittance[d] = s.T[p];
      if (channels) {
        memcpy(out.image + d * channels, &s.image[size_t(p) * channels], sizeof(float) * channels);
        out.last[d] = s.last[p];
      }
      const float* w = &s.weight[size_t(p) * keeper.stride];
      const int32_t* rank = &s.rank[size_t(p) * keeper.stride];
      int slot = 0;
      for (int i = 0; i < k; ++i)
        if (rank[i] >= 0) write_slot(bins, out, d * k + slot++, rank[i], w[i], b.x + x, b.y + y);
      for (; slot < k; ++slot) {
        const size_t o = d * k + slot;
        out.index[o] = -1; out.weight[o] = 0.0f; out.depth[o] = -1.0f; out.distance[o] = -1.0f;
      }
    }
  }
}

// Gradients of one tile: for each Gaussian that the tile touched, `stride` floats.
struct TileGradients {
  std::vector<int32_t> id;
  std::vector<float> value;
};

// Sums the tiles' gradients into dense arrays, in tile order whatever the number of threads.
Status reduce(const std::vector<TileGradients>& tiles, int64_t n, int channels, int threads,
            float* d_splats, float* d_values) {
  const int stride = kGeometry + channels;
  return parallel_range(threads, n, [&](int64_t lo, int64_t hi) {
    if (lo >= hi) return;
    std::fill(d_splats + lo * kGeometry, d_splats + hi * kGeometry, 0.0f);
    std::fill(d_values + lo * channels, d_values + hi * channels, 0.0f);
    for (const TileGradients& t : tiles) {
      for (size_t i = 0; i < t.id.size(); ++i) {
        const int64_t id = t.id[i];
        if (id < lo || id >= hi) continue;
        const float* v = &t.value[i * stride];
        for (int c = 0; c < kGeometry; ++c) d_splats[id * kGeometry + c] += v[c];
        for (int c = 0; c < channels; ++c) d_values[id * channels + c] += v[kGeometry + c];
      }
    }
  });
}

// Finds or makes the row of a Gaussian in a tile's gradients. `slot` holds -1 for every id between
// tiles; each thread has its own.
struct SlotMap {
  std::vector<int32_t> slot;
  explicit SlotMap(int64_t n) : slot(size_t(n), -1) {}
  float* row(TileGradients& t, int32_t id, int stride) {
    int32_t& s = slot[size_t(id)];
    if (s < 0) {
      s = int32_t(t.id.size());
      t.id.push_back(id);
      t.value.resize(t.value.size() + stride, 0.0f);
    }
    return &t.value[size_t(s) * stride];
  }
  void clear(const TileGradients& t) { for (int32_t id : t.id) slot[size_t(id)] = -1; }
};

struct LayersIn {
  const int32_t* index;        // [H, W, K]
  const float* weight;         // [H, W, K]
  const float* transmittance;  // [H, W]
  const float* values;         // [N, C]
  int width, height, layers, channels, features;
};

// Weighted layers of one pixel. With A = 1 - T the opacity of *all* contributions and
// S = sum of the kept weights, layer k contributes w_k A / S: K layers stand for the whole pixel.
inline float share_scale(const float* w, int k, float T) {
  float sum = 0.0f;
  for (int i = 0; i < k; ++i) sum += w[i];
  return sum > 0.0f ? (1.0f - T) / sum : 0.0f;
}

struct LayersGradIn {
  const float* image;   // [H, W, C]
  const float* alpha;   // [H, W]
  const float* layers;  // [H, W, K, F] or null
};

void layers_backward_tile(const LayersIn& in, const LayersGradIn& grad, const Splat* splats,
                          const TileBox& b, SlotMap& map, TileGradients& out) {
  const int K = in.layers, C = in.channels, F = in.features, stride = kGeometry + C;
  float v_weight[kMaxLayers];
  std::vector<float> v_value(C);
  for (int y = 0; y < b.h; ++y) {
    for (int x = 0; x < b.w; ++x) {
      const size_t d = size_t(b.y + y) * in.width + b.x + x;
      const int32_t* id = in.index + d * K;
      const float* w = in.weight + d * K;
      int n = 0;
      while (n < K && id[n] >= 0) ++n;
      if (n == 0) continue;
      const float T = in.transmittance[d], A = 1.0f - T, s = share_scale(w, n, T), inv_sum = s / A;
      const float* g = grad.image + d * C;
      // dL/d(share of layer k), its mean over the layers, then dL/d(weight of layer k).
      float mean = 0.0f;
      for (int k = 0; k < n; ++k) {
        const float* value = in.values + size_t(id[k]) * C;
        float v = 0.0f;
        for (int c = 0; c < C; ++c) v += g[c] * value[c];
        if (grad.layers) {
          const float* gl = grad.layers + (d * K + k) * F;
          for (int f = 0; f < F; ++f) v += gl[f] * value[C - F + f];
        }
        v_weight[k] = v;
        mean += w[k] * v;
      }
      mean *= inv_sum;
      const float v_opacity = grad.alpha[d] + mean;  // dL/dA
      float behind = 0.0f;  // sum over the layers behind of dL/dw_k w_k
      for (int k = n - 1; k >= 0; --k) {
        float* row = map.row(out, id[k], stride);
        const Splat& p = splats[id[k]];
        const float dx = p.x - (float(b.x + x) + 0.5f), dy = p.y - (float(b.y + y) + 0.5f);
        const float alpha = gs::alpha_at(p, dx, dy);
        if (alpha > 0.0f) {
          const float v_w = s * (v_weight[k] - mean);
          const float v_alpha = v_w * w[k] / alpha + (v_opacity * T - behind) / (1.0f - alpha);
          gs::alpha_backward(p, dx, dy, alpha, v_alpha, row);
          behind += v_w * w[k];
        }
        const float ws = w[k] * s;
        float* v = row + kGeometry;
        for (int c = 0; c < C; ++c) v[c] += ws * g[c];
        if (grad.layers) {
          const float* gl = grad.layers + (d * K + k) * F;
          for (int f = 0; f < F; ++f) v[C - F + f] += ws * gl[f];
        }
      }
    }
  }
}

struct SplatGradIn {
  const float* values;         // [N, C]
  const float* transmittance;  // [H, W]
  const int32_t* last;         // [H, W]
  const float* image;          // [H, W, C] gradient
  const float* alpha;          // [H, W] gradient
  int channels;
};

// All contributions, back to front. T before each one is recovered by division, and the colour
// behind it is carried as its dot product with the pixel's gradient.
void splat_backward_tile(const GsBins& bins, int tile, const SplatGradIn& in, TileGradients& out) {
  const TileBox b = bins.box(tile);
  const int C = in.channels, stride = kGeometry + C;
  float T[kPixels], behind[kPixels], v_opacity[kPixels];
  int32_t last[kPixels], row_last[kTile];
  int32_t end = 0;
  for (int y = 0; y < b.h; ++y) {
    row_last[y] = 0;
    for (int x = 0; x < b.w; ++x) {
      const int p = y * kTile + x;
      const size_t d = size_t(b.y + y) * bins.width + b.x + x;
      T[p] = in.transmittance[d];
      behind[p] = 0.0f;
      v_opacity[p] = in.alpha[d] * T[p];
      last[p] = in.last[d];
      row_last[y] = std::max(row_last[y], last[p]);
    }
    end = std::max(end, row_last[y]);
  }
  const int32_t* list = bins.list.get() + bins.start[tile];
  std::vector<float> row(stride);
  const Float16 centers = row_centers(b);
  const uint32_t columns = (1u << b.w) - 1;
  alignas(64) float alpha[kTile];
  for (int64_t j = end - 1; j >= 0; --j) {
    const int32_t rank = list[j];
    const Splat& g = bins.splat[rank];
    int y0, y1;
    if (!bins.rows(rank, b, &y0, &y1)) continue;
    const RowAlpha row_alpha(g, centers);
    const float* value = in.values + size_t(bins.id[rank]) * C;
    bool touched = false;
    for (int y = y0; y <= y1; ++y) {
      if (row_last[y] <= j) continue;
      const float dy = g.y - (float(b.y + y) + 0.5f);
      const Float16 alphas = row_alpha.at(dy);
      alphas.store(alpha);
      for (uint32_t m = simd::less(Float16::all(0.0f), alphas).bits() & columns; m; m &= m - 1) {
        const int x = lowest_bit(m), p = y * kTile + x;
        const float a = alpha[x];
        if (last[p] <= j) continue;
        if (!touched) { std::fill(row.begin(), row.end(), 0.0f); touched = true; }
        const float through = 1.0f / (1.0f - a);
        T[p] *= through;
        const float w = a * T[p];
        const float* gi = in.image + (size_t(b.y + y) * bins.width + b.x + x) * C;
        float dot = 0.0f;
        for (int c = 0; c < C; ++c) { row[kGeometry + c] += w * gi[c]; dot += gi[c] * value[c]; }
        const float v_alpha = dot * T[p] + (v_opacity[p] - behind[p]) * through;
        behind[p] += w * dot;
        gs::alpha_backward(g, g.x - (float(b.x + x) + 0.5f), dy, a, v_alpha, row.data());
      }
    }
    if (touched) {
      out.id.push_back(bins.id[rank]);
      out.value.insert(out.value.end(), row.begin(), row.end());
    }
  }
}

gs::Camera unpack(const float* camera, int width, int height, int antialias) {
  gs::Camera c;  // [21]: rotation 9, translation 3, fx, fy, cx, cy, position 3, near, eps2d
  memcpy(c.r, camera, sizeof c.r);
  memcpy(c.t, camera + 9, sizeof c.t);
  c.fx = camera[12]; c.fy = camera[13]; c.cx = camera[14]; c.cy = camera[15];
  memcpy(c.position, camera + 16, sizeof c.position);
  c.near = camera[19]; c.eps2d = camera[20];
  c.width = width; c.height = height; c.antialias = antialias;
  return c;
}

// Spherical harmonics of the viewing direction of a Gaussian.
void view_basis(const gs::Camera& cam, const float* mean, int count, float* basis) {
  float d[3], n = 0.0f;
  for (int i = 0; i < 3; ++i) { d[i] = mean[i] - cam.position[i]; n += d[i] * d[i]; }
  n = 1.0f / std::max(std::sqrt(n), 1e-12f);
  for (int i = 0; i < 3; ++i) d[i] *= n;
  gs::sh_basis(d, count, basis);
}

// rgb [3] of a Gaussian, clamped at 0 from below; false where it is not finite.
bool color_of(const gs::Camera& cam, const float* mean, const float* sh0, const float* sh_rest,
              int count, float* rgb) {
  float basis[15];
  view_basis(cam, mean, count, basis);
  for (int c = 0; c < 3; ++c) {
    rgb[c] = 0.5f + gs::kShDegree0 * sh0[c];
    for (int k = 0; k < count; ++k) rgb[c] += basis[k] * sh_rest[3 * k + c];
  }
  const bool usable = gs::finite(rgb, 3);
  for (int c = 0; c < 3; ++c) rgb[c] = std::max(rgb[c], 0.0f);
  return usable;
}

}  // namespace

// ------------------------------------------------------------------------------------ projection

// means [N,3] quats [N,4] log_scales [N,3] logits [N] sh0 [N,3] sh_rest [N,B,3] -> splats [N,6],
// depth [N], extent [N,2] (0 where unseen), rgb [N,3] (clamped at 0 from below, 0 where unseen).
KB_EXPORT int gs_project(const float* camera, int width, int height, int antialias, int64_t n,
                         const float* means, const float* quats, const float* log_scales,
                         const float* logits, const float* sh0, const float* sh_rest, int sh_count,
                         float* splats, float* depth, float* extent, float* rgb, int threads) {
  if (n < 0 || width < 1 || height < 1 || sh_count < 0 || sh_count > 15 || threads < 1) return BAD_ARGUMENT;
  const gs::Camera cam = unpack(camera, width, height, antialias);
  return parallel_range(threads, n, [&](int64_t lo, int64_t hi) {
    for (int64_t i = lo; i < hi; ++i) {
      gs::Projection o;
      Splat s = {0, 0, 1, 0, 1, 0};
      depth[i] = 0.0f;
      float* size = extent + 2 * i;
      float* color = rgb + 3 * i;
      if (gs::project(cam, means + 3 * i, quats + 4 * i, log_scales + 3 * i, logits[i], o) &&
          color_of(cam, means + 3 * i, sh0 + 3 * i, sh_rest + i * sh_count * 3, sh_count, color)) {
        s = gs::splat_of(cam, o);
        depth[i] = o.p[2];
        gs::extent_of(o, s.opacity, size, size + 1);
      } else {
        size[0] = size[1] = color[0] = color[1] = color[2] = 0.0f;
      }
      memcpy(splats + 6 * i, &s, sizeof s);
    }
  });
}

// Gradients of gs_project. The viewing direction is taken as constant.
KB_EXPORT int gs_project_backward(const float* camera, int width, int height, int antialias,
                                  int64_t n, const float* means, const float* quats,
                                  const float* log_scales, const float* logits, int sh_count,
                                  const float* extent, const float* rgb, const float* d_splats,
                                  const float* d_rgb, float* d_means, float* d_quats,
                                  float* d_log_scales, float* d_logits, float* d_sh0,
                                  float* d_sh_rest, int threads) {
  if (n < 0 || sh_count < 0 || sh_count > 15 || threads < 1) return BAD_ARGUMENT;
  const gs::Camera cam = unpack(camera, width, height, antialias);
  return parallel_range(threads, n, [&](int64_t lo, int64_t hi) {
    for (int64_t i = lo; i < hi; ++i) {
      gs::Projection o;
      float* g_mean = d_means + 3 * i;
      float* g_quat = d_quats + 4 * i;
      float* g_scale = d_log_scales + 3 * i;
      float* g_rest = d_sh_rest + i * sh_count * 3;
      if (extent[2 * i] > 0.0f &&
          gs::project(cam, means + 3 * i, quats + 4 * i, log_scales + 3 * i, logits[i], o)) {
        gs::project_backward(cam, o, d_splats + 6 * i, g_mean, g_quat, g_scale, d_logits + i);
        float basis[15];
        view_basis(cam, means + 3 * i, sh_count, basis);
        for (int c = 0; c < 3; ++c) {
          const float v = rgb[3 * i + c] > 0.0f ? d_rgb[3 * i + c] : 0.0f;
          d_sh0[3 * i + c] = gs::kShDegree0 * v;
          for (int k = 0; k < sh_count; ++k) g_rest[3 * k + c] = basis[k] * v;
        }
      } else {
        std::fill(g_mean, g_mean + 3, 0.0f);
        std::fill(g_quat, g_quat + 4, 0.0f);
        std::fill(g_scale, g_scale + 3, 0.0f);
        d_logits[i] = 0.0f;
        std::fill(d_sh0 + 3 * i, d_sh0 + 3 * i + 3, 0.0f);
        std::fill(g_rest, g_rest + 3 * sh_count, 0.0f);
      }
    }
  });
}

// --------------------------------------------------------------------------------------- binning

KB_EXPORT void gs_bins_free(GsBins* bins) { delete bins; }

// Sorts by depth (ties by index) and lists each tile's Gaussians. Null on bad input or no memory.
KB_EXPORT GsBins* gs_bins_make(int64_t n, const float* splats, const float* depth,
                               const float* extent, int width, int height, int threads) {
  if (n < 0 || n >= (int64_t(1) << 31) || width < 1 || height < 1 || threads < 1) return nullptr;
  try {
    auto bins = std::make_unique<GsBins>();
    bins->width = width; bins->height = height;
    bins->tiles_x = tiles_across(width); bins->tiles_y = tiles_across(height);
    struct Rect { int x0, x1, y0, y1; };
    auto rect = [&](int64_t i) -> Rect {  // tiles whose pixel centres the footprint may reach
      const float x = splats[6 * i], y = splats[6 * i + 1], rx = extent[2 * i], ry = extent[2 * i + 1];
      auto clip = [](float v, int top) { return int(std::min(std::max(v, -1.0f), float(top))); };
      return {clip(std::ceil(x - rx - 0.5f), width), clip(std::floor(x + rx - 0.5f), width - 1),
              clip(std::ceil(y - ry - 0.5f), height), clip(std::floor(y + ry - 0.5f), height - 1)};
    };
    std::vector<uint64_t> key;  // depth bits | index: positive floats sort as integers
    key.reserve(size_t(n));
    for (int64_t i = 0; i < n; ++i) {
      if (!(extent[2 * i] > 0.0f) || !gs::finite(splats + 6 * i, 6)) continue;
      const Rect r = rect(i);
      if (std::max(r.x0, 0) > r.x1 || std::max(r.y0, 0) > r.y1) continue;
      uint32_t bits;
      memcpy(&bits, depth + i, 4);
      key.push_back(uint64_t(bits) << 32 | uint32_t(i));
    }
    // LSD radix sort on the depth bits, 11 at a time: stable, so equal depths keep index order.
    std::vector<uint64_t> other(key.size());
    for (int shift = 32; shift < 64; shift += 11) {
      size_t count[2049] = {0};
      for (uint64_t v : key) ++count[(v >> shift & 2047) + 1];
      for (int i = 0; i < 2048; ++i) count[i + 1] += count[i];
      for (uint64_t v : key) other[count[v >> shift & 2047]++] = v;
      key.swap(other);
    }
    const int64_t m = int64_t(key.size());
    bins->splat.resize(m); bins->extent_y.resize(m); bins->inv_rim.resize(m); bins->id.resize(m); bins->depth.resize(m);
    const int tiles = bins->tiles();
    std::vector<int64_t> cursor(size_t(threads) * tiles, 0);
    auto each = [&](int64_t r, auto&& f) {
      const Rect q = rect(int64_t(uint32_t(key[r])));
      for (int ty = std::max(q.y0, 0) / kTile; ty <= q.y1 / kTile; ++ty)
        for (int tx = std::max(q.x0, 0) / kTile; tx <= q.x1 / kTile; ++tx) f(ty * bins->tiles_x + tx);
    };
    auto each_share = [&](auto&& body) {  // body(cursors of the thread, rank)
      const Status status = parallel(threads, [&](int t) {
        const Range range = share(m, threads, t);
        for (int64_t r = range.begin; r < range.end; ++r) body(&cursor[size_t(t) * tiles], r);
      });
      if (status != OK) throw std::bad_alloc();
    };
    each_share([&](int64_t* count, int64_t r) {
      const int64_t i = int64_t(uint32_t(key[r]));
      memcpy(&bins->splat[r], splats + 6 * i, sizeof(Splat));
      bins->extent_y[r] = extent[2 * i + 1]; bins->id[r] = int32_t(i); bins->depth[r] = depth[i];
      bins->inv_rim[r] = 1.0f / std::max(std::log(splats[6 * i + 5] / gs::kAlphaMin), 1e-12f);
      each(r, [&](int tile) { ++count[tile]; });
    });
    bins->start.resize(tiles + 1);
    int64_t total = 0;
    for (int tile = 0; tile < tiles; ++tile) {
      bins->start[tile] = total;
      for (int t = 0; t < threads; ++t) {
        const int64_t count = cursor[size_t(t) * tiles + tile];
        cursor[size_t(t) * tiles + tile] = total;
        total += count;
      }
    }
    bins->start[tiles] = total;
    bins->list.reset(new int32_t[size_t(total) + 1]);
    each_share([&](int64_t* at, int64_t r) {
      each(r, [&](int tile) { bins->list[at[tile]++] = int32_t(r); });
    });
    return bins.release();
  } catch (const std::exception&) {
    return nullptr;
  }
}

// ----------------------------------------------------------------------------------- compositing

// The K heaviest contributions of every pixel and what shines through all of them; with
// `channels` > 0 also the composite of *all* contributions' values [N, C] and `last`.
KB_EXPORT int gs_forward(const GsBins* bins, int layers, const float* values, int channels,
                         int32_t* index, float* weight, float* depth, float* distance,
                         float* transmittance, float* image, int32_t* last, int threads) {
  if (layers < 0 || layers > kMaxLayers || channels < 0 || threads < 1) return BAD_ARGUMENT;
  return guarded([&] {
    const ForwardOut out = {index, weight, depth, distance, transmittance, last, values, image, channels, layers};
    std::vector<std::unique_ptr<ForwardScratch>> scratch(threads);
    for (auto& s : scratch) s.reset(new ForwardScratch);
    const Keeper keeper(layers);
    return parallel_tiles(threads, bins->tiles(), [&](int t, int tile) {
      forward_tile(*bins, tile, out, keeper, *scratch[t]);
    });
  });
}

// Gradient of the composite of all contributions.
KB_EXPORT int gs_backward(const GsBins* bins, int64_t n, const float* values, int channels,
                          const float* transmittance, const int32_t* last, const float* d_image,
                          const float* d_alpha, float* d_splats, float* d_values, int threads) {
  if (n < 0 || channels < 1 || threads < 1) return BAD_ARGUMENT;
  return guarded([&] {
    const SplatGradIn in = {values, transmittance, last, d_image, d_alpha, channels};
    std::vector<TileGradients> tiles(bins->tiles());
    const Status status = parallel_tiles(threads, bins->tiles(), [&](int, int tile) {
      splat_backward_tile(*bins, tile, in, tiles[tile]);
    });
    return status != OK ? status : reduce(tiles, n, channels, threads, d_splats, d_values);
  });
}

// The picture of the K layers: image [H, W, C] = sum of shares times values, and the last
// `features` channels of every layer times its share, [H, W, K, F].
KB_EXPORT int gs_layers_forward(const int32_t* index, const float* weight,
                                const float* transmittance, const float* values, int width,
                                int height, int layers, int channels, int features, float* image,
                                float* per_layer, int threads) {
  if (layers < 1 || layers > kMaxLayers || channels < 1 || features > channels || threads < 1) return BAD_ARGUMENT;
  return parallel_range(threads, height, [&](int64_t lo, int64_t hi) {
    for (size_t d = size_t(lo) * width; d < size_t(hi) * width; ++d) {
      float* out = image + d * channels;
      std::fill(out, out + channels, 0.0f);
      const float s = share_scale(weight + d * layers, layers, transmittance[d]);
      for (int k = 0; k < layers; ++k) {
        const int32_t id = index[d * layers + k];
        const float ws = id < 0 ? 0.0f : weight[d * layers + k] * s;
        const float* v = values + size_t(std::max(id, 0)) * channels;
        if (id >= 0) for (int c = 0; c < channels; ++c) out[c] += ws * v[c];
        float* layer = per_layer + (d * layers + k) * features;
        for (int f = 0; f < features; ++f) layer[f] = id < 0 ? 0.0f : ws * v[channels - features + f];
      }
    }
  });
}

// Gradient of gs_layers_forward with respect to the kept contributions: exact partial derivatives
// for the K kept splats of each pixel, none for the contributions that were not kept.
KB_EXPORT int gs_layers_backward(const int32_t* index, const float* weight,
                                 const float* transmittance, const float* values,
                                 const float* splats, int64_t n, int width, int height, int layers,
                                 int channels, int features, const float* d_image,
                                 const float* d_alpha, const float* d_per_layer, float* d_splats,
                                 float* d_values, int threads) {
  if (n < 0 || layers < 1 || layers > kMaxLayers || channels < 1 || threads < 1) return BAD_ARGUMENT;
  return guarded([&] {
    const LayersIn in = {index, weight, transmittance, values, width, height, layers, channels, features};
    const LayersGradIn grad = {d_image, d_alpha, features > 0 ? d_per_layer : nullptr};
    const int tiles_x = tiles_across(width);
    std::vector<TileGradients> tiles(size_t(tiles_x) * tiles_across(height));
    std::vector<SlotMap> maps;
    for (int t = 0; t < threads; ++t) maps.emplace_back(n);
    const Status status = parallel_tiles(threads, int(tiles.size()), [&](int t, int tile) {
      const TileBox box = tile_box(tile, tiles_x, width, height);
      layers_backward_tile(in, grad, reinterpret_cast<const Splat*>(splats), box, maps[t], tiles[tile]);
      maps[t].clear(tiles[tile]);
    });
    return status != OK ? status : reduce(tiles, n, channels, threads, d_splats, d_values);
  });
}
