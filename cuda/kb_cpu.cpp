// Exact K-buffer rasteriser on CPU: for every pixel the K nearest points that cover its centre.
//
// Three passes (after the tile-based rasterisers of 3D Gaussian splatting, Kerbl et al. 2023):
//   1. count    project the points, count the (point, tile) pairs of each tile
//   2. scatter  project them again, rather than keep them, and copy them into the lists of their
//               tiles
//   3. walk     per tile: sort front to back, lazily, and fill pixels until all of them have K
// Every tile is the work of one thread and lists are sorted by a total order, so the result does
// not depend on the number of threads. One layer of points of a pixel needs no tiles: kb_nearest.h.
#include "kb_nearest.h"
#include "kb_walk.h"

using namespace kb;

// Mirrored field by field in render/kbuffer/native.py.
struct KbInput {
  const float* points;           // [n, 3]: (u, v, depth), or world (x, y, z) with world_to_screen
  const float* radius;           // [n] if radius_stride is 1, [1] if it is 0
  const float* world_to_screen;  // [3, 4] or null
  const float* x_centers;        // [width] pixel centres, ascending
  const float* y_centers;        // [height]
  int64_t n;
  int64_t radius_stride;
  int64_t max_pairs;  // bound of the key memory: larger frames are done in bands of tiles
  float x_half, x_scale, y_half, y_scale;  // see Axis
  float z_near;
  float radius_focal;  // > 0: the radius on screen is radius * radius_focal / depth
  int32_t width, height, k, footprint, threads;
};

struct KbOutput {
  int32_t* index;   // [height, width, k], -1 = empty
  float* depth;     // same shape, -1 = empty
  float* distance;  // same shape: squared distance over squared radius, -1 = empty
};

namespace {

constexpr int TILES_AT_ONCE = 4;  // taken from the queue of tiles by a thread

struct Scratch {
  Buffer<Entry> lists;
  Buffer<float> centers;
  Buffer<std::atomic<uint64_t>> nearest;
  std::vector<uint32_t> cursors;  // [threads, tiles]
  std::vector<size_t> starts;     // [tiles + 1]
  std::vector<Worker> workers;    // owned here, because the threads themselves end with the call
};

thread_local std::unique_ptr<Scratch> scratch;

// Pixel centres padded to whole tiles, and a bit more, with positions that no point covers.
const float* padded(const float* centers, int n, size_t size, float* to) {
  std::copy(centers, centers + n, to);
  std::fill(to + n, to + size, 1e30f);
  return to;
}

// Pass 1. Leaves where the list of each tile begins in `starts`, and where in it each thread does
// in `cursors`.
template <Footprint SHAPE>
Status count_pairs(const Cloud& cloud, const Grid& grid, int threads) {
  Scratch& s = *scratch;
  const size_t tiles = size_t(grid.columns) * size_t(grid.rows);
  s.cursors.resize(tiles * size_t(threads));
  s.starts.assign(tiles + 1, 0);
  uint32_t* counts = s.cursors.data();
  const Status status = parallel(threads, [&](int t) {
    uint32_t* mine = counts + tiles * size_t(t);
    std::fill(mine, mine + tiles, 0);
    const Cloud c = cloud;  // copies that the stores below cannot alias
    const Grid g = grid;
    each_eight<SHAPE>(c, share(c.n, threads, t), [=](int64_t, const PointOf<Float8>& p) {
      each_pair<SHAPE>(g, p, [=](size_t tile, int) { ++mine[tile]; });
    });
  });
  std::vector<uint32_t> totals(tiles, 0);
  for (int t = 0; t < threads; ++t) {
    uint32_t* mine = counts + tiles * size_t(t);
    for (size_t tile = 0; tile < tiles; ++tile) {
      const uint32_t before = totals[tile];
      totals[tile] += mine[tile];
      mine[tile] = before;
    }
  }
  for (size_t tile = 0; tile < tiles; ++tile) s.starts[tile + 1] = s.starts[tile] + totals[tile];
  return status;
}

// Pass 2, for the tiles [first, last).
template <Footprint SHAPE, class E>
Status scatter(const Cloud& cloud, const Grid& grid, int threads, size_t first, size_t last,
               E* lists) {
  Scratch& s = *scratch;
  const size_t tiles = s.starts.size() - 1;
  const size_t* starts = s.starts.data();
  uint32_t* all_cursors = s.cursors.data();
  return parallel(threads, [&](int t) {
    uint32_t* cursors = all_cursors + tiles * size_t(t);
    for (size_t tile = first; tile < last; ++tile) {
      cursors[tile] += uint32_t(starts[tile] - starts[first]);
    }
    const Cloud c = cloud;
    const Grid g = grid;
    each_eight<SHAPE>(c, share(c.n, threads, t), [=](int64_t i, const PointOf<Float8>& p) {
      E entries[LANES];
      pack(p, i, entries);
      each_pair<SHAPE>(g, p, [&](size_t tile, int lane) {
        if (tile - first < last - first) lists[cursors[tile]++] = entries[lane];
      });
    });
  });
}

// Passes 2 and 3, in bands of tiles with up to max_pairs pairs.
template <Footprint SHAPE, class E>
Status draw_bands(const Cloud& cloud, const Frame& frame, int threads, size_t max_pairs) {
  Scratch& s = *scratch;
  const size_t tiles = s.starts.size() - 1;
  const size_t* starts = s.starts.data();
  Worker* workers = s.workers.data();
  Status status = OK;
  for (size_t first = 0, last; first < tiles && status == OK; first = last) {
    last = first + 1;
    while (last < tiles && starts[last + 1] - starts[first] <= max_pairs) ++last;
    E* lists = room<E>(s.lists, starts[last] - starts[first]);
    status = scatter<SHAPE, E>(cloud, frame.grid, threads, first, last, lists);
    if (status != OK) break;
    std::atomic<size_t> queue{first};
    status = parallel(threads, [&](int t) {
      for (size_t tile; (tile = queue.fetch_add(TILES_AT_ONCE)) < last;) {
        for (const size_t end = std::min(last, tile + TILES_AT_ONCE); tile < end; ++tile) {
          Tile<SHAPE, E> pixels(frame, int(tile), workers[t]);
          pixels.draw_sorted(lists + (starts[tile] - starts[first]),
                             starts[tile + 1] - starts[tile]);
        }
      }
      finish_streams();
    });
  }
  return status;
}

template <Footprint SHAPE, class E>
Status draw(const Cloud& cloud, const Frame& frame, int threads, size_t max_pairs) {
  const Status status = count_pairs<SHAPE>(cloud, frame.grid, threads);
  return status == OK ? draw_bands<SHAPE, E>(cloud, frame, threads, max_pairs) : status;
}

bool valid(const KbInput& in) {
  return in.n >= 0 && in.n < INT32_MAX && in.width >= 1 && in.height >= 1 && in.k >= 1 &&
         in.k <= 255 && in.threads >= 1 && in.z_near >= 0.0f && in.x_scale > 0.0f &&
         in.y_scale > 0.0f && in.max_pairs >= 1 && in.max_pairs <= INT32_MAX &&
         int64_t(in.width) * in.height < INT32_MAX &&
         (in.footprint == DISC || in.footprint == PIXEL) &&
         (in.radius_stride == 0 || in.radius_stride == 1);
}

Cloud cloud_of(const KbInput& in) {
  Cloud c = {in.points, in.radius, in.n, in.radius_stride, {}, in.z_near, in.radius_focal,
             in.world_to_screen != nullptr};
  if (in.world_to_screen) std::copy(in.world_to_screen, in.world_to_screen + 12, c.world_to_screen);
  return c;
}

Status rasterize(const KbInput& in, const KbOutput& out) {
  if (!valid(in)) return BAD_ARGUMENT;
  if (!scratch) scratch = std::make_unique<Scratch>();
  Scratch& s = *scratch;
  s.workers.resize(std::max(s.workers.size(), size_t(in.threads)));

  const Cloud cloud = cloud_of(in);
  Frame f;
  f.grid = make_grid({in.x_half, in.x_scale, in.width}, {in.y_half, in.y_scale, in.height});
  f.k = in.k;
  const size_t columns = size_t(f.grid.columns) * TILE + LANES;
  const size_t rows = size_t(f.grid.rows) * TILE + LANES;
  float* centers = s.centers.get(columns + rows);
  f.xs = padded(in.x_centers, in.width, columns, centers);
  f.ys = padded(in.y_centers, in.height, rows, centers + columns);
  f.index = out.index, f.depth = out.depth, f.distance = out.distance;

  const size_t most = size_t(in.max_pairs);
  const bool sized = in.radius_stride == 1 || in.radius_focal > 0.0f;
  f.radius = sized || in.footprint == PIXEL || in.n == 0 ? 1.0f : in.radius[0];
  if (in.footprint == PIXEL) {
    if (in.k == 1) {
      return draw_nearest(cloud, f, in.threads, s.nearest.get(size_t(in.width) * in.height));
    }
    return draw<PIXEL, Entry>(cloud, f, in.threads, most);
  }
  return sized ? draw<DISC, SizedEntry>(cloud, f, in.threads, most)
               : draw<DISC, Entry>(cloud, f, in.threads, most);
}

}  // namespace

// Fills `out`; 0 or a Status.
KB_EXPORT int kb_rasterize(const KbInput* in, const KbOutput* out) {
  return guarded([&] { return rasterize(*in, *out); });
}

// Frees the memory that the calling thread keeps between its calls.
KB_EXPORT void kb_trim() { scratch.reset(); }
