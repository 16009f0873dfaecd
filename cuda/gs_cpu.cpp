// Gaussian splatting on the CPU: projection, tile binning, N-channel compositing forward and
// backward, and each pixel's K heaviest contributions. C ABI, no torch, no OpenMP.
//
// Every result is the same for any number of threads: work is split by tile or by Gaussian, and
// gradients of a Gaussian are summed over its tiles in tile order.
#include "gs_core.h"
#include "simd.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#if defined(_MSC_VER)
#define GS_EXPORT extern "C" __declspec(dllexport)
#else
#define GS_EXPORT extern "C" __attribute__((visibility("default")))
#endif

using gs::Splat;

namespace {

constexpr int kTile = 16;
constexpr int kPixels = kTile * kTile;
constexpr int kMaxLayers = 64;
constexpr int kGeometry = 6;  // gradient of x, y, a, b, c, opacity

enum Status { kOk = 0, kBadArgument = 1, kOutOfMemory = 2 };

// Runs body(0) ... body(threads - 1) at the same time and passes on the first exception.
template <class F>
void parallel(int threads, F body) {
  std::vector<std::exception_ptr> failure(threads);
  auto run = [&](int i) {
    try { body(i); } catch (...) { failure[i] = std::current_exception(); }
  };
  std::vector<std::thread> pool;
  for (int i = 1; i < threads; ++i) pool.emplace_back(run, i);
  run(0);
  for (auto& t : pool) t.join();
  for (auto& f : failure) if (f) std::rethrow_exception(f);
}

// Calls body(begin, end) on contiguous shares of [0, n).
template <class F>
void parallel_range(int threads, int64_t n, F body) {
  const int64_t share = (n + threads - 1) / threads;
  parallel(threads, [&](int t) { body(std::min(n, t * share), std::min(n, (t + 1) * share)); });
}

// Per-pixel state of one tile.
struct TileBox { int x, y, w, h; };

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
  TileBox box(int tile) const {
    const int x = tile % tiles_x * kTile, y = tile / tiles_x * kTile;
    return {x, y, std::min(kTile, width - x), std::min(kTile, height - y)};
  }
  // Rows of the tile that the splat of this rank can reach.
  bool rows(int rank, const TileBox& b, int* y0, int* y1) const {
    const float y = splat[rank].y, r = extent_y[rank];
    *y0 = std::max(0, int(std::ceil(y - r - 0.5f)) - b.y);
    *y1 = std::min(b.h - 1, int(std::floor(y + r - 0.5f)) - b.y);
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
    const __m256i move = _mm256_load_si256(reinterpret_cast<const __m256i*>(shift[simd::highest_bit(lightest)]));
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
  const int k = out.layers, channels = out.values ? out.channels : 0;
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
        const int x = simd::lowest_bit(heavy), p = y * kTile + x;
        const size_t slot = size_t(p) * keeper.stride;
        s.threshold[p] = keeper.insert(&s.weight[slot], &s.rank[slot], weight[x], rank);
      }
      for (uint32_t m = channels ? hit : 0; m; m &= m - 1) {
        const int x = simd::lowest_bit(m), p = y * kTile + x;
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
void reduce(const std::vector<TileGradients>& tiles, int64_t n, int channels, int threads,
            float* d_splats, float* d_values) {
  const int stride = kGeometry + channels;
  parallel_range(threads, n, [&](int64_t lo, int64_t hi) {
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
inline float share(const float* w, int k, float T) {
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
      const float T = in.transmittance[d], A = 1.0f - T, s = share(w, n, T), inv_sum = s / A;
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
        const int x = simd::lowest_bit(m), p = y * kTile + x;
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
  gs::Camera c;  // [23]: rotation 9, translation 3, fx, fy, cx, cy, position 3, near, eps2d
  memcpy(c.r, camera, sizeof c.r);
  memcpy(c.t, camera + 9, sizeof c.t);
  c.fx = camera[12]; c.fy = camera[13]; c.cx = camera[14]; c.cy = camera[15];
  memcpy(c.position, camera + 16, sizeof c.position);
  c.near = camera[19]; c.eps2d = camera[20];
  c.width = width; c.height = height; c.antialias = antialias;
  return c;
}

void direction(const gs::Camera& cam, const float* mean, float* d) {
  float n = 0.0f;
  for (int i = 0; i < 3; ++i) { d[i] = mean[i] - cam.position[i]; n += d[i] * d[i]; }
  n = 1.0f / std::max(std::sqrt(n), 1e-12f);
  for (int i = 0; i < 3; ++i) d[i] *= n;
}

template <class F>
int guarded(F body) {
  try { return body(); } catch (const std::bad_alloc&) { return kOutOfMemory; }
}

}  // namespace

// ------------------------------------------------------------------------------------ projection

// means [N,3] quats [N,4] log_scales [N,3] logits [N] sh0 [N,3] sh_rest [N,B,3] -> splats [N,6],
// depth [N], extent [N,2] (0 where unseen), rgb [N,3] (clamped at 0 from below).
GS_EXPORT int gs_project(const float* camera, int width, int height, int antialias, int64_t n,
                         const float* means, const float* quats, const float* log_scales,
                         const float* logits, const float* sh0, const float* sh_rest, int sh_count,
                         float* splats, float* depth, float* extent, float* rgb, int threads) {
  if (n < 0 || width < 1 || height < 1 || threads < 1) return kBadArgument;
  const gs::Camera cam = unpack(camera, width, height, antialias);
  return guarded([&] {
    parallel_range(threads, n, [&](int64_t lo, int64_t hi) {
      for (int64_t i = lo; i < hi; ++i) {
        gs::Projection o;
        Splat s = {0, 0, 1, 0, 1, 0};
        depth[i] = 0.0f; extent[2 * i] = extent[2 * i + 1] = 0.0f;
        if (gs::project(cam, means + 3 * i, quats + 4 * i, log_scales + 3 * i, logits[i], o)) {
          s = gs::splat_of(cam, o);
          depth[i] = o.p[2];
          gs::extent_of(o, s.opacity, extent + 2 * i, extent + 2 * i + 1);
        }
        memcpy(splats + 6 * i, &s, sizeof s);
        float d[3], basis[15];
        direction(cam, means + 3 * i, d);
        gs::sh_basis(d, sh_count, basis);
        for (int c = 0; c < 3; ++c) {
          float v = 0.5f + gs::kShDegree0 * sh0[3 * i + c];
          for (int k = 0; k < sh_count; ++k) v += basis[k] * sh_rest[(i * sh_count + k) * 3 + c];
          rgb[3 * i + c] = std::max(v, 0.0f);
        }
      }
    });
    return int(kOk);
  });
}

// Gradients of gs_project. The viewing direction is taken as constant.
GS_EXPORT int gs_project_backward(const float* camera, int width, int height, int antialias,
                                  int64_t n, const float* means, const float* quats,
                                  const float* log_scales, const float* logits, int sh_count,
                                  const float* extent, const float* rgb, const float* d_splats,
                                  const float* d_rgb, float* d_means, float* d_quats,
                                  float* d_log_scales, float* d_logits, float* d_sh0,
                                  float* d_sh_rest, int threads) {
  if (n < 0 || threads < 1) return kBadArgument;
  const gs::Camera cam = unpack(camera, width, height, antialias);
  return guarded([&] {
    parallel_range(threads, n, [&](int64_t lo, int64_t hi) {
      for (int64_t i = lo; i < hi; ++i) {
        gs::Projection o;
        float* gm = d_means + 3 * i; float* gq = d_quats + 4 * i; float* gs_ = d_log_scales + 3 * i;
        if (extent[2 * i] > 0.0f &&
            gs::project(cam, means + 3 * i, quats + 4 * i, log_scales + 3 * i, logits[i], o)) {
          gs::project_backward(cam, o, d_splats + 6 * i, gm, gq, gs_, d_logits + i);
        } else {
          for (int c = 0; c < 3; ++c) gm[c] = gs_[c] = 0.0f;
          for (int c = 0; c < 4; ++c) gq[c] = 0.0f;
          d_logits[i] = 0.0f;
        }
        float d[3], basis[15];
        direction(cam, means + 3 * i, d);
        gs::sh_basis(d, sh_count, basis);
        for (int c = 0; c < 3; ++c) {
          const float v = rgb[3 * i + c] > 0.0f ? d_rgb[3 * i + c] : 0.0f;
          d_sh0[3 * i + c] = gs::kShDegree0 * v;
          for (int k = 0; k < sh_count; ++k) d_sh_rest[(i * sh_count + k) * 3 + c] = basis[k] * v;
        }
      }
    });
    return int(kOk);
  });
}

// --------------------------------------------------------------------------------------- binning

GS_EXPORT void gs_bins_free(GsBins* bins) { delete bins; }
GS_EXPORT int64_t gs_bins_pairs(const GsBins* bins) { return bins->start.back(); }

// Sorts by depth (ties by index) and lists each tile's Gaussians. Null on bad input or no memory.
GS_EXPORT GsBins* gs_bins_make(int64_t n, const float* splats, const float* depth,
                               const float* extent, int width, int height, int threads) {
  if (n < 0 || n >= (int64_t(1) << 31) || width < 1 || height < 1 || threads < 1) return nullptr;
  try {
    auto bins = std::make_unique<GsBins>();
    bins->width = width; bins->height = height;
    bins->tiles_x = (width + kTile - 1) / kTile; bins->tiles_y = (height + kTile - 1) / kTile;
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
      if (!(extent[2 * i] > 0.0f)) continue;
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
    const int64_t step = (m + threads - 1) / threads;
    auto each = [&](int64_t r, auto&& f) {
      const Rect q = rect(int64_t(uint32_t(key[r])));
      for (int ty = std::max(q.y0, 0) / kTile; ty <= q.y1 / kTile; ++ty)
        for (int tx = std::max(q.x0, 0) / kTile; tx <= q.x1 / kTile; ++tx) f(ty * bins->tiles_x + tx);
    };
    parallel(threads, [&](int t) {
      int64_t* c = &cursor[size_t(t) * tiles];
      for (int64_t r = t * step; r < std::min(m, (t + 1) * step); ++r) {
        const int64_t i = int64_t(uint32_t(key[r]));
        memcpy(&bins->splat[r], splats + 6 * i, sizeof(Splat));
        bins->extent_y[r] = extent[2 * i + 1]; bins->id[r] = int32_t(i); bins->depth[r] = depth[i];
        bins->inv_rim[r] = 1.0f / std::max(std::log(splats[6 * i + 5] / gs::kAlphaMin), 1e-12f);
        each(r, [&](int tile) { ++c[tile]; });
      }
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
    parallel(threads, [&](int t) {
      int64_t* c = &cursor[size_t(t) * tiles];
      for (int64_t r = t * step; r < std::min(m, (t + 1) * step); ++r)
        each(r, [&](int tile) { bins->list[c[tile]++] = int32_t(r); });
    });
    return bins.release();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

// ----------------------------------------------------------------------------------- compositing

// The K heaviest contributions of every pixel and what shines through all of them; with `values`
// [N, C] also the composite of *all* contributions.
GS_EXPORT int gs_forward(const GsBins* bins, int layers, const float* values, int channels,
                         int32_t* index, float* weight, float* depth, float* distance,
                         float* transmittance, float* image, int32_t* last, int threads) {
  if (layers < 0 || layers > kMaxLayers || channels < 0 || threads < 1) return kBadArgument;
  return guarded([&] {
    const ForwardOut out = {index, weight, depth, distance, transmittance, last, values, image, channels, layers};
    std::vector<std::unique_ptr<ForwardScratch>> scratch(threads);
    for (auto& s : scratch) s.reset(new ForwardScratch);
    std::atomic<int> next{0};
    const Keeper keeper(layers);
    parallel(threads, [&](int t) {
      for (int tile; (tile = next++) < bins->tiles();) 
        forward_tile(*bins, tile, out, keeper, *scratch[t]);
    });
    return int(kOk);
  });
}

// Gradient of the composite of all contributions.
GS_EXPORT int gs_backward(const GsBins* bins, int64_t n, const float* values, int channels,
                          const float* transmittance, const int32_t* last, const float* d_image,
                          const float* d_alpha, float* d_splats, float* d_values, int threads) {
  if (n < 0 || channels < 1 || threads < 1) return kBadArgument;
  return guarded([&] {
    const SplatGradIn in = {values, transmittance, last, d_image, d_alpha, channels};
    std::vector<TileGradients> tiles(bins->tiles());
    std::atomic<int> next{0};
    parallel(threads, [&](int) {
      for (int tile; (tile = next++) < bins->tiles();) splat_backward_tile(*bins, tile, in, tiles[tile]);
    });
    reduce(tiles, n, channels, threads, d_splats, d_values);
    return int(kOk);
  });
}

// The picture of the K layers: image [H, W, C] = sum of shares times values, and the last
// `features` channels of every layer times its share, [H, W, K, F].
GS_EXPORT int gs_layers_forward(const int32_t* index, const float* weight,
                                const float* transmittance, const float* values, int width,
                                int height, int layers, int channels, int features, float* image,
                                float* per_layer, int threads) {
  if (layers < 1 || layers > kMaxLayers || channels < 1 || features > channels || threads < 1) return kBadArgument;
  parallel_range(threads, height, [&](int64_t lo, int64_t hi) {
    for (size_t d = size_t(lo) * width; d < size_t(hi) * width; ++d) {
      float* out = image + d * channels;
      std::fill(out, out + channels, 0.0f);
      const float s = share(weight + d * layers, layers, transmittance[d]);
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
  return kOk;
}

// Gradient of gs_layers_forward with respect to the kept contributions: exact partial derivatives
// for the K kept splats of each pixel, none for the contributions that were not kept.
GS_EXPORT int gs_layers_backward(const int32_t* index, const float* weight,
                                 const float* transmittance, const float* values,
                                 const float* splats, int64_t n, int width, int height, int layers,
                                 int channels, int features, const float* d_image,
                                 const float* d_alpha, const float* d_per_layer, float* d_splats,
                                 float* d_values, int threads) {
  if (n < 0 || layers < 1 || layers > kMaxLayers || channels < 1 || threads < 1) return kBadArgument;
  return guarded([&] {
    const LayersIn in = {index, weight, transmittance, values, width, height, layers, channels, features};
    const LayersGradIn grad = {d_image, d_alpha, features > 0 ? d_per_layer : nullptr};
    const int tx = (width + kTile - 1) / kTile, ty = (height + kTile - 1) / kTile;
    std::vector<TileGradients> tiles(size_t(tx) * ty);
    std::vector<SlotMap> maps;
    for (int t = 0; t < threads; ++t) maps.emplace_back(n);
    std::atomic<int> next{0};
    parallel(threads, [&](int t) {
      for (int tile; (tile = next++) < tx * ty;) {
        const int x = tile % tx * kTile, y = tile / tx * kTile;
        const TileBox box = {x, y, std::min(kTile, width - x), std::min(kTile, height - y)};
        layers_backward_tile(in, grad, reinterpret_cast<const Splat*>(splats), box, maps[t], tiles[tile]);
        maps[t].clear(tiles[tile]);
      }
    });
    reduce(tiles, n, channels, threads, d_splats, d_values);
    return int(kOk);
  });
}
