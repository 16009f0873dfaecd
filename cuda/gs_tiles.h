// What all Gaussian kernels of the CPU share: tiles of 16x16 pixels in blocks of 4x4, the lists of
// the tiles, and work shared out to threads.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "gs_core.h"
#include "kb_host.h"
#include "simd.h"

namespace gs {

using namespace kb;
using simd::Float16;

constexpr int kTile = 16;
constexpr int kPixels = kTile * kTile;
constexpr int kSide = 4;              // of a block: its 16 pixels are one Float16
constexpr int kLanes = kSide * kSide;
constexpr int kBlocks = kPixels / kLanes;
constexpr int kMaxLayers = 64;
// What the method kbuffer has: the inner loops over K and over the channels are also compiled for
// just these numbers.
constexpr int kUsualLayers = 8;
constexpr int kUsualChannels = 9, kUsualFeatures = 4;

// Calls body(begin, end) on contiguous shares of [0, n).
template <class F>
Status parallel_range(int threads, int64_t n, const F& body) {
  return parallel(threads, [&](int t) {
    const Range range = share(n, threads, t);
    body(range.begin, range.end);
  });
}

// Calls body(thread, item) once for every item of [0, n).
template <class F>
Status parallel_each(int threads, int n, const F& body) {
  std::atomic<int> next{0};
  return parallel(threads, [&](int t) {
    for (int item; (item = next++) < n;) body(t, item);
  });
}

inline int tiles_across(int pixels) { return (pixels + kTile - 1) / kTile; }

struct TileBox {
  int x, y, w, h;  // first pixel; w, h < 16 at the picture's edge
};
inline TileBox tile_box(int tile, int tiles_x, int width, int height) {
  const int x = tile % tiles_x * kTile, y = tile / tiles_x * kTile;
  return {x, y, std::min(kTile, width - x), std::min(kTile, height - y)};
}

// What the compositing needs of one Gaussian.
struct Footprint {
  float x, y, half_a, b, half_c, opacity;
  float rim;  // where sigma is larger, alpha is less than 1/255
  float depth;
  int32_t x0, x1, y0, y1;  // first and last pixel that it may reach

  // Blocks of a tile that it may reach, a bit each.
  uint32_t blocks(const TileBox& box) const {
    const int left = std::max(x0 - box.x, 0) / kSide, top = std::max(y0 - box.y, 0) / kSide;
    const int right = std::min(x1 - box.x, kTile - 1) / kSide;
    const int bottom = std::min(y1 - box.y, kTile - 1) / kSide;
    const uint32_t columns = (2u << right) - (1u << left);  // of one row of blocks
    const uint32_t rows = (uint32_t(2) << 4 * bottom) - (1u << 4 * top);
    return columns * (rows & 0x1111u);
  }
};

}  // namespace gs

// The Gaussians that may touch each tile, nearest first. Lives until the backward pass.
struct GsBins {
  int width, height, tiles_x, tiles_y;
  std::unique_ptr<gs::Footprint[]> footprint;  // [N]; only those in a list are filled
  std::unique_ptr<int32_t[]> list;             // Gaussians, tile after tile
  std::vector<int64_t> start;                  // [tiles + 1]

  int tiles() const { return tiles_x * tiles_y; }
  gs::TileBox box(int tile) const { return gs::tile_box(tile, tiles_x, width, height); }
};

namespace gs {

// One tile on its way through its list: pixel centres by block.
struct TileBlocks {
  Float16 x[kSide], y[kSide];
  explicit TileBlocks(const TileBox& box) {
    float cx[kLanes], cy[kLanes];
    for (int i = 0; i < kSide; ++i) {
      for (int lane = 0; lane < kLanes; ++lane) {
        cx[lane] = float(box.x + i * kSide + lane % kSide) + 0.5f;
        cy[lane] = float(box.y + i * kSide + lane / kSide) + 0.5f;
      }
      x[i] = Float16::load(cx);
      y[i] = Float16::load(cy);
    }
  }
  Float16 dx(const Footprint& f, int block) const { return f.x - x[block % kSide]; }
  Float16 dy(const Footprint& f, int block) const { return f.y - y[block / kSide]; }
};

inline Float16 sigma_of(const Footprint& f, const Float16& dx, const Float16& dy) {
  return sigma_at<Float16>(f.half_a, f.b, f.half_c, dx, dy);
}

// Calls f(lane, x, y) for the pixels of a block that lie in the picture; x, y count from the tile.
template <class F>
void each_pixel(const TileBox& box, int block, const F& f) {
  const int left = block % kSide * kSide, top = block / kSide * kSide;
  for (int y = top; y < std::min(top + kSide, box.h); ++y)
    for (int x = left; x < std::min(left + kSide, box.w); ++x)
      f((y - top) * kSide + x - left, x, y);
}

// Positions in a list as floats that compare like the positions. Raw bits below 2^23 would be
// denormal, which the processor may be told to take for 0.
constexpr int32_t kFirstTag = 1 << 23;
constexpr int32_t kNoTag = 0x7f7fffff;  // behind all others
inline float tag_of(int32_t position) {
  const int32_t bits = kFirstTag + position;
  float tag;
  memcpy(&tag, &bits, 4);
  return tag;
}
inline int32_t tag_bits(float tag) {
  int32_t bits;
  memcpy(&bits, &tag, 4);
  return bits;
}

}  // namespace gs
