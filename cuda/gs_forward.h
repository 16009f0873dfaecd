// Compositing of one tile from front to back: all contributions, the K heaviest of each pixel, and
// the picture that those K make.
#pragma once
#include "gs_keeper.h"

namespace gs {

// Null: not wanted.
struct ForwardOut {
  int layers, channels, features;
  const float* values;   // [N, C]
  bool composite_all;    // `image` is made from all contributions, else from the K layers
  int32_t* index;        // [H, W, K]
  float* weight;         // [H, W, K]
  float* depth;          // [H, W, K]
  float* distance;       // [H, W, K]
  float* transmittance;  // [H, W]
  int32_t* last;         // [H, W] position in the tile's list behind the last contribution
  float* image;          // [H, W, C]
  float* per_layer;      // [H, W, K, F] last F channels of each layer times its share
  float* mean_depth;     // [H, W] of the layers, by weight
};

struct ForwardScratch {
  alignas(64) float T[kPixels];  // by block
  alignas(64) float last[kPixels];
  std::vector<float> image;      // [blocks, C, 16]
  Keeper keeper;
};

// Transmittance 1, and 0 beyond the picture's edge, where nothing is drawn then. Returns a bit for
// each block with pixels in the picture.
inline uint32_t open_blocks(const TileBox& box, float* T) {
  std::fill(T, T + kPixels, 0.0f);
  uint32_t open = 0;
  for (int block = 0; block < kBlocks; ++block)
    each_pixel(box, block, [&](int lane, int, int) {
      T[block * kLanes + lane] = 1.0f;
      open |= 1u << block;
    });
  return open;
}

// Walks through the list of a tile; leaves transmittance, image and layers in the scratch.
inline void composite_tile(const GsBins& bins, int tile, const ForwardOut& out,
                           ForwardScratch& s) {
  const TileBox box = bins.box(tile);
  const TileBlocks pixels(box);
  const int channels = out.composite_all ? out.channels : 0;
  const int32_t* list = bins.list.get() + bins.start[tile];
  const int32_t count = int32_t(bins.start[tile + 1] - bins.start[tile]);
  uint32_t open = open_blocks(box, s.T);
  for (int32_t j = 0; j < count && open; ++j) {
    constexpr int32_t kAhead = 8;
    if (j + kAhead < count) {
      prefetch(&bins.footprint[list[j + kAhead]]);
      prefetch(out.values + size_t(list[j + kAhead]) * out.channels);
    }
    const Footprint& f = bins.footprint[list[j]];
    const float* value = channels ? out.values + size_t(list[j]) * channels : nullptr;
    for (uint32_t rest = f.blocks(box) & open; rest; rest &= rest - 1) {
      const int block = lowest_bit(rest);
      const Float16 sigma = sigma_of(f, pixels.dx(f, block), pixels.dy(f, block));
      if (!any(less(sigma, f.rim))) continue;
      float* through = s.T + block * kLanes;
      const Float16 T = Float16::load(through);
      const Float16 alpha =
          where(at_least(T, kTransmittanceMin), alpha_at(Float16(f.opacity), sigma));
      const auto hit = less(0.0f, alpha);
      if (!any(hit)) continue;
      const Float16 w = alpha * T, left = T - w;
      left.store(through);
      if (!any(at_least(left, kTransmittanceMin))) open &= ~(1u << block);
      if (out.layers) s.keeper.add(block, w, j);
      if (!channels) continue;
      float* image = &s.image[size_t(block) * kLanes * channels];
      for (int c = 0; c < channels; ++c, image += kLanes)
        (Float16::load(image) + where(hit, w * value[c])).store(image);
      float* last = s.last + block * kLanes;
      select(hit, tag_of(j + 1), Float16::load(last)).store(last);
    }
  }
}

// The slots of one block of the tile, in front-to-back order, as Gaussians and their shares.
struct BlockLayers {
  const float *weights, *tags;  // [K, 16]
  const int32_t* list;
  float scale[kLanes];  // of the weights: K layers stand for the whole pixel

  int32_t id(int slot, int lane) const {  // -1: empty
    const int32_t bits = tag_bits(tags[slot * kLanes + lane]);
    return bits == kNoTag ? -1 : list[bits - kFirstTag];
  }
};

// With A = 1 - T the opacity of *all* contributions and S = sum of the kept weights, layer k
// contributes w_k A / S.
inline void find_scale(const float* T, int layers, BlockLayers& b) {
  Float16 total = 0.0f;
  for (int i = 0; i < layers; ++i) total = total + Float16::load(b.weights + i * kLanes);
  const Float16 scale = (1.0f - Float16::load(T)) / total;
  where(less(0.0f, total), scale).store(b.scale);
}

// Distances of the K-buffer: alpha = 1/255 is the rim of the footprint; sigma over sigma at the
// rim, in [0, 1).
inline float distance_at(const Footprint& f, int x, int y) {
  const float dx = f.x - (float(x) + 0.5f), dy = f.y - (float(y) + 0.5f);
  const float sigma = sigma_at(f.half_a, f.b, f.half_c, dx, dy);
  const float rim = max(log_of(f.opacity / kAlphaMin), 1e-12f);
  return std::min(std::max(sigma / rim, 0.0f), 0.99999994f);
}

// The K-buffer of pixel d, whose layers lie in `lane`.
inline void write_slots(const GsBins& bins, const ForwardOut& out, const BlockLayers& b, int lane,
                        int x, int y, size_t d) {
  const int k = out.layers;
  for (int i = 0; i < k; ++i) {
    const int32_t id = b.id(i, lane);
    out.index[d * k + i] = id;
    out.weight[d * k + i] = b.weights[i * kLanes + lane];
    if (!out.depth) continue;
    out.depth[d * k + i] = id < 0 ? -1.0f : bins.footprint[id].depth;
    out.distance[d * k + i] = id < 0 ? -1.0f : distance_at(bins.footprint[id], x, y);
  }
}

// The picture of the K layers at pixel d. kChannels > 0: so many and kFeatures, else as many as
// `out` says.
template <int kChannels, int kFeatures>
void write_layers(const GsBins& bins, const ForwardOut& out, const BlockLayers& b, int lane,
                  size_t d) {
  const int k = out.layers, features = kChannels ? kFeatures : out.features;
  const int channels = kChannels ? kChannels : out.channels;
  float own[kChannels ? kChannels : 1];
  float* image = kChannels ? own : out.image + d * channels;
  float* layer = out.per_layer + d * k * features;
  std::fill(image, image + channels, 0.0f);
  float total = 0.0f, depth = 0.0f;
  int slot = 0;
  for (; slot < k; ++slot, layer += features) {
    const int32_t id = b.id(slot, lane);
    if (id < 0) break;
    const float w = b.weights[slot * kLanes + lane], ws = w * b.scale[lane];
    const float* value = out.values + size_t(id) * channels;
    for (int c = 0; c < channels; ++c) image[c] += ws * value[c];
    for (int f = 0; f < features; ++f) layer[f] = ws * value[channels - features + f];
    total += w;
    depth += w * bins.footprint[id].depth;
  }
  if (kChannels) memcpy(out.image + d * channels, own, sizeof own);
  std::fill(layer, layer + size_t(k - slot) * features, 0.0f);
  out.mean_depth[d] = total > 0.0f ? depth / total : 0.0f;
}

// Pixels of a row of `n` pixels from d on that nothing touches.
inline void write_empty(const ForwardOut& out, size_t d, size_t n) {
  const size_t k = size_t(out.layers);
  if (out.index) {
    std::fill_n(out.index + d * k, n * k, -1);
    std::fill_n(out.weight + d * k, n * k, 0.0f);
  }
  if (out.depth) {
    std::fill_n(out.depth + d * k, n * k, -1.0f);
    std::fill_n(out.distance + d * k, n * k, -1.0f);
  }
  if (out.composite_all) return;
  std::fill_n(out.image + d * out.channels, n * out.channels, 0.0f);
  std::fill_n(out.per_layer + d * k * out.features, n * k * out.features, 0.0f);
  std::fill_n(out.mean_depth + d, n, 0.0f);
}

inline void write_tile(const GsBins& bins, int tile, const ForwardOut& out, ForwardScratch& s) {
  const TileBox box = bins.box(tile);
  for (int block = 0; block < kBlocks; ++block) {
    const float* T = s.T + block * kLanes;
    const int side = block % kSide * kSide, wide = std::min(kSide, box.w - side);
    auto place = [&](int x, int y) { return size_t(box.y + y) * bins.width + box.x + x; };
    each_pixel(box, block, [&](int lane, int x, int y) {
      const size_t d = place(x, y);
      out.transmittance[d] = T[lane];
      if (!out.composite_all) return;
      const float* image = &s.image[size_t(block) * kLanes * out.channels];
      for (int c = 0; c < out.channels; ++c)
        out.image[d * out.channels + c] = image[c * kLanes + lane];
      out.last[d] = tag_bits(s.last[block * kLanes + lane]) - kFirstTag;
    });
    if (!out.layers || wide <= 0) continue;
    if (!s.keeper.used(block)) {
      const int top = block / kSide * kSide;
      for (int y = top; y < std::min(top + kSide, box.h); ++y)
        write_empty(out, place(side, y), size_t(wide));
      continue;
    }
    s.keeper.sort(block);
    BlockLayers layers = {s.keeper.weights(block), s.keeper.tags(block),
                          bins.list.get() + bins.start[tile], {}};
    find_scale(T, out.layers, layers);
    each_pixel(box, block, [&](int lane, int x, int y) {
      const size_t d = place(x, y);
      if (out.index) write_slots(bins, out, layers, lane, box.x + x, box.y + y, d);
      if (out.composite_all) return;
      if (out.channels == kUsualChannels && out.features == kUsualFeatures)
        write_layers<kUsualChannels, kUsualFeatures>(bins, out, layers, lane, d);
      else
        write_layers<0, 0>(bins, out, layers, lane, d);
    });
  }
}

inline void forward_tile(const GsBins& bins, int tile, const ForwardOut& out, ForwardScratch& s) {
  s.keeper.begin(out.layers);
  if (out.composite_all) {
    s.image.assign(size_t(kPixels) * out.channels, 0.0f);
    std::fill(s.last, s.last + kPixels, tag_of(0));
  }
  composite_tile(bins, tile, out, s);
  write_tile(bins, tile, out, s);
}

}  // namespace gs
