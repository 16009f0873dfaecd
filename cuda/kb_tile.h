// Points on the screen, and the square tiles that the image is cut into: each is rasterised on its
// own. Shared by host and device.
#pragma once
#include "kb_core.h"

namespace kb {

constexpr int TILE_SHIFT = 4;
constexpr int TILE = 1 << TILE_SHIFT;
constexpr int TILE_PIXELS = TILE * TILE;

enum Footprint { DISC = 0, PIXEL = 1 };  // all centres within the radius | the pixel it falls in

// The points as they are given.
struct Cloud {
  const float* points;  // [n, 3]
  const float* radius;  // [n] or [1]
  int64_t n, radius_stride;
  float world_to_screen[12];
  float z_near, radius_focal;
  int32_t from_world;
};

// Point (x, y, z) on the screen, with z = -1 if it takes no part.
template <class T>
KB_HD PointOf<T> to_screen(const Cloud& c, Footprint shape, T x, T y, T z, T radius) {
  PointOf<T> q = {x, y, z, radius};
  if (c.from_world) {
    const float* m = c.world_to_screen;  // [3, 4] intrinsics times world-to-camera
    q.z = affine(m + 8, x, y, z);
    q.u = div(affine(m, x, y, z), q.z);
    q.v = div(affine(m + 4, x, y, z), q.z);
  }
  if (c.radius_focal > 0.0f) q.r = div(mul(radius, T(c.radius_focal)), q.z);
  if (shape == PIXEL) q.r = T(1.0f);  // its size plays no part
  // -0 becomes +0, whose bits sort first
  q.z = select(drawable(q, c.z_near), magnitude(q.z), T(-1.0f));
  return q;
}

KB_HD Point screen_point(const Cloud& c, Footprint shape, int64_t i) {
  const float* p = c.points + 3 * i;
  return to_screen(c, shape, p[0], p[1], p[2], c.radius[i * c.radius_stride]);
}

struct Grid {
  Axis x, y;
  int columns, rows;  // tiles
};

KB_HD Grid make_grid(Axis x, Axis y) {
  return {x, y, (x.n + TILE - 1) / TILE, (y.n + TILE - 1) / TILE};
}

// Tiles [x0, x1] x [y0, y1]; empty if x0 > x1 or y0 > y1.
struct TileRect {
  int x0, x1, y0, y1;
};

KB_HD TileRect tiles_of(const Grid& g, const Point& p, Footprint shape) {
  int x0, x1, y0, y1;
  if (shape == PIXEL) {
    x0 = x1 = pixel_at(g.x, p.u);
    y0 = y1 = pixel_at(g.y, p.v);
    if (x0 < 0 || y0 < 0) return {1, 0, 1, 0};
  } else {
    pixel_span(g.x, p.u, p.r, &x0, &x1);
    pixel_span(g.y, p.v, p.r, &y0, &y1);
    if (x0 > x1 || y0 > y1) return {1, 0, 1, 0};
  }
  return {x0 >> TILE_SHIFT, x1 >> TILE_SHIFT, y0 >> TILE_SHIFT, y1 >> TILE_SHIFT};
}

// One pixel of the image and its centre.
struct Pixel {
  int column, row;
  float x, y;
};

template <Footprint SHAPE>
KB_HD bool covers(const Grid& g, const Point& p, const Pixel& at) {
  if (SHAPE == PIXEL) return pixel_at(g.x, p.u) == at.column && pixel_at(g.y, p.v) == at.row;
  return squared_distance(sub(p.u, at.x), sub(p.v, at.y)) < mul(p.r, p.r);
}

// The `distance` of a K-buffer, to a pixel centre: squared, over the squared radius | in pixels.
template <Footprint SHAPE, class T>
KB_HD T relative_distance(const Grid& g, const PointOf<T>& p, T x, T y) {
  const T dx = sub(p.u, x), dy = sub(p.v, y);
  if (SHAPE == PIXEL) return squared_distance(mul(dx, T(g.x.scale)), mul(dy, T(g.y.scale)));
  return div(squared_distance(dx, dy), mul(p.r, p.r));
}

// Some pixels of a tile: columns [x0, x1], rows [y0, y1], and the box that their centres span.
struct Window {
  int x0, x1, y0, y1;
  float x, y, half_width, half_height;
};

KB_HD Window make_window(const Grid& g, const float* xs, const float* ys, int x0, int x1, int y0,
                         int y1) {
  const float left = xs[x0], right = xs[x1], top = ys[y0], bottom = ys[y1];
  // 0.02 pixels wider, see pixel_span
  return {x0, x1, y0, y1, mul(0.5f, add(left, right)), mul(0.5f, add(top, bottom)),
          add(mul(0.5f, sub(right, left)), div(0.02f, g.x.scale)),
          add(mul(0.5f, sub(bottom, top)), div(0.02f, g.y.scale))};
}

// False only if the point covers no pixel of the window.
template <Footprint SHAPE>
KB_HD bool may_cover(const Grid& g, const Point& p, const Window& w) {
  if (SHAPE == PIXEL) {
    const int x = pixel_at(g.x, p.u), y = pixel_at(g.y, p.v);
    return x >= w.x0 && x <= w.x1 && y >= w.y0 && y <= w.y1;
  }
  const float reach = mul(p.r, 1.000002f);  // more than all roundings of the exact test
  return sub(fabsf(sub(p.u, w.x)), w.half_width) <= reach &&
         sub(fabsf(sub(p.v, w.y)), w.half_height) <= reach;
}

}  // namespace kb
