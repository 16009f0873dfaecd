// The image is cut into square tiles; each is rasterised on its own. Shared by host and device.
#pragma once
#include "kb_core.h"

namespace kb {

constexpr int TILE_SHIFT = 4;
constexpr int TILE = 1 << TILE_SHIFT;
constexpr int TILE_PIXELS = TILE * TILE;

enum Footprint { DISC = 0, PIXEL = 1 };  // all centres within the radius | the pixel it falls in

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

}  // namespace kb
