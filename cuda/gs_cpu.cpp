// Gaussian splatting on the CPU: projection, tile binning, N-channel compositing forward and
// backward, and each pixel's K heaviest contributions. C ABI, no torch, no OpenMP.
//
// Every result is the same for any number of threads: work is split by tile or by Gaussian, and
// gradients of a Gaussian are summed over its tiles in tile order.
#include "gs_backward.h"
#include "gs_bins.h"
#include "gs_forward.h"
#include "gs_project.h"

using namespace gs;

namespace {

// What a thread that calls the kernels keeps between its calls.
struct Scratch {
  BinScratch bins;
  Gradients::Scratch gradients;
};
thread_local std::unique_ptr<Scratch> scratch;

Scratch& own_scratch() {
  if (!scratch) scratch = std::make_unique<Scratch>();
  return *scratch;
}

// One of T for each thread; each on the heap, because cache lines must not be shared.
template <class T>
std::vector<std::unique_ptr<T>> one_each(int threads) {
  std::vector<std::unique_ptr<T>> all(threads);
  for (auto& one : all) one.reset(new T);
  return all;
}

Camera unpack(const float* camera, int width, int height, int antialias) {
  Camera c;  // [21]: rotation 9, translation 3, fx, fy, cx, cy, position 3, near, eps2d
  memcpy(c.r, camera, sizeof c.r);
  memcpy(c.t, camera + 9, sizeof c.t);
  c.fx = camera[12];
  c.fy = camera[13];
  c.cx = camera[14];
  c.cy = camera[15];
  memcpy(c.position, camera + 16, sizeof c.position);
  c.near = camera[19];
  c.eps2d = camera[20];
  c.width = width;
  c.height = height;
  c.antialias = antialias;
  return c;
}

// Calls body(first, count) for [0, n), sixteen at a time.
template <class F>
Status parallel_sixteens(int threads, int64_t n, const F& body) {
  return parallel_range(threads, (n + kLanes - 1) / kLanes, [&](int64_t lo, int64_t hi) {
    for (int64_t i = lo; i < hi; ++i)
      body(i * kLanes, int(std::min<int64_t>(kLanes, n - i * kLanes)));
  });
}

Status forward(const GsBins& bins, const ForwardOut& out, int threads) {
  return guarded([&] {
    const auto own = one_each<ForwardScratch>(threads);
    return parallel_each(threads, bins.tiles(),
                         [&](int t, int tile) { forward_tile(bins, tile, out, *own[t]); });
  });
}

}  // namespace

// ------------------------------------------------------------------------------------ projection

// means [N,3] quats [N,4] log_scales [N,3] logits [N] sh0 [N,3] sh_rest [N,B,3] -> splats [N,6],
// depth [N], extent [N,2] (0 where unseen), rgb [N,3] (clamped at 0 from below, 0 where unseen).
KB_EXPORT int gs_project(const float* camera, int width, int height, int antialias, int64_t n,
                         const float* means, const float* quats, const float* log_scales,
                         const float* logits, const float* sh0, const float* sh_rest, int sh_count,
                         float* splats, float* depth, float* extent, float* rgb, int threads) {
  if (n < 0 || width < 1 || height < 1 || sh_count < 0 || sh_count > kMaxHarmonics || threads < 1)
    return BAD_ARGUMENT;
  const Camera cam = unpack(camera, width, height, antialias);
  const Gaussians in = {means, quats, log_scales, logits, sh0, sh_rest, sh_count};
  const ProjectOut out = {splats, depth, extent, rgb};
  return parallel_sixteens(threads, n, [&](int64_t first, int count) {
    project_sixteen(cam, in, first, count, out);
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
  if (n < 0 || sh_count < 0 || sh_count > kMaxHarmonics || threads < 1) return BAD_ARGUMENT;
  const Camera cam = unpack(camera, width, height, antialias);
  const Gaussians in = {means, quats, log_scales, logits, nullptr, nullptr, sh_count};
  const ProjectGradIn grad = {extent, rgb, d_splats, d_rgb};
  const ProjectGradOut out = {d_means, d_quats, d_log_scales, d_logits, d_sh0, d_sh_rest};
  return parallel_sixteens(threads, n, [&](int64_t first, int count) {
    project_backward_sixteen(cam, in, first, count, grad, out);
  });
}

// --------------------------------------------------------------------------------------- binning

KB_EXPORT void gs_bins_free(GsBins* bins) { delete bins; }

// Sorts by depth (ties by index) and lists each tile's Gaussians. Null on bad input or no memory.
KB_EXPORT GsBins* gs_bins_make(int64_t n, const float* splats, const float* depth,
                               const float* extent, int width, int height, int threads) {
  if (n < 0 || n >= (int64_t(1) << 31) || width < 1 || height < 1 || threads < 1) return nullptr;
  GsBins* made = nullptr;
  guarded([&] {
    auto bins = std::make_unique<GsBins>();
    bins->width = width;
    bins->height = height;
    const Status status =
        make_bins(n, splats, depth, extent, threads, own_scratch().bins, *bins);
    if (status == OK) made = bins.release();
    return status;
  });
  return made;
}

// Frees the memory that the calling thread keeps between its calls.
KB_EXPORT void gs_trim() { scratch.reset(); }

// ----------------------------------------------------------------------------------- compositing

// The composite of *all* contributions' values [N, C], what shines through them, `last` for
// gs_backward, and the K-buffer of each pixel's K heaviest.
KB_EXPORT int gs_forward(const GsBins* bins, int layers, const float* values, int channels,
                         int32_t* index, float* weight, float* depth, float* distance,
                         float* transmittance, float* image, int32_t* last, int threads) {
  if (layers < 0 || layers > kMaxLayers || channels < 1 || threads < 1) return BAD_ARGUMENT;
  ForwardOut out = {};
  out.layers = layers;
  out.channels = channels;
  out.values = values;
  out.composite_all = true;
  out.index = layers ? index : nullptr;
  out.weight = weight;
  out.depth = layers ? depth : nullptr;
  out.distance = distance;
  out.transmittance = transmittance;
  out.last = last;
  out.image = image;
  return forward(*bins, out, threads);
}

// The picture of the K heaviest: image [H, W, C] = sum of shares times values, the last `features`
// channels of every layer times its share [H, W, K, F], and the mean depth [H, W]. Null where not
// wanted: depth and distance, or those two and index and weight.
KB_EXPORT int gs_layers_forward(const GsBins* bins, int layers, const float* values, int channels,
                                int features, int32_t* index, float* weight, float* depth,
                                float* distance, float* transmittance, float* image,
                                float* per_layer, float* mean_depth, int threads) {
  if (layers < 1 || layers > kMaxLayers || channels < 1 || features < 0 || features > channels ||
      threads < 1)
    return BAD_ARGUMENT;
  ForwardOut out = {};
  out.layers = layers;
  out.channels = channels;
  out.features = features;
  out.values = values;
  out.index = index;
  out.weight = weight;
  out.depth = depth;
  out.distance = distance;
  out.transmittance = transmittance;
  out.image = image;
  out.per_layer = per_layer;
  out.mean_depth = mean_depth;
  return forward(*bins, out, threads);
}

// Gradient of the composite of all contributions.
KB_EXPORT int gs_backward(const GsBins* bins, int64_t n, const float* values, int channels,
                          const float* transmittance, const int32_t* last, const float* d_image,
                          const float* d_alpha, float* d_splats, float* d_values, int threads) {
  if (n < 0 || channels < 1 || threads < 1) return BAD_ARGUMENT;
  return guarded([&] {
    const CompositeGradIn in = {values, transmittance, last, d_image, d_alpha, channels};
    Gradients gradients(own_scratch().gradients, n, bins->tiles(), channels, threads);
    const auto own = one_each<CompositeScratch>(threads);
    const Status status = parallel_each(threads, bins->tiles(), [&](int t, int tile) {
      RowStore& rows = gradients.begin(t, tile);
      composite_backward_tile(*bins, tile, in, *own[t], rows);
      gradients.end(tile);
    });
    if (status != OK) return status;
    // Footprints of Gaussians that are in no tile are not filled; nor do they have gradients.
    auto conic = [&](int64_t i, float* a, float* b, float* c, float* opacity) {
      const Footprint& f = bins->footprint[i];
      *a = 2.0f * f.half_a;
      *b = f.b;
      *c = 2.0f * f.half_c;
      *opacity = f.opacity;
    };
    return gradients.reduce(threads, conic, d_splats, d_values);
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
  if (n < 0 || layers < 1 || layers > kMaxLayers || channels < 1 || features < 0 ||
      features > channels || threads < 1)
    return BAD_ARGUMENT;
  return guarded([&] {
    const LayersGradIn in = {index,  weight, transmittance, values,   splats,  width,  height,
                             layers, channels, features,    d_image, d_alpha, d_per_layer};
    const int tiles_x = tiles_across(width), tiles = tiles_x * tiles_across(height);
    Gradients gradients(own_scratch().gradients, n, tiles, channels, threads);
    const auto own = one_each<RowTable>(threads);
    const Status status = parallel_each(threads, tiles, [&](int t, int tile) {
      RowStore& rows = gradients.begin(t, tile);
      const TileBox box = tile_box(tile, tiles_x, width, height);
      layers_backward_tile(in, box, *own[t], rows);
      gradients.end(tile);
    });
    if (status != OK) return status;
    auto conic = [&](int64_t i, float* a, float* b, float* c, float* opacity) {
      const float* s = splats + 6 * i;
      *a = s[2];
      *b = s[3];
      *c = s[4];
      *opacity = s[5];
    };
    return gradients.reduce(threads, conic, d_splats, d_values);
  });
}
