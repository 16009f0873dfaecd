// Exact K-buffer rasteriser on CPU: for every pixel the K nearest points that cover its centre.
//
// Three passes (after the tile-based rasterisers of 3D Gaussian splatting, Kerbl et al. 2023):
//   1. count   project the points, count the (point, tile) pairs of each tile
//   2. scatter write a 64-bit key (depth, index) of each pair into its tile's list
//   3. walk    per tile: sort front to back, lazily, and fill pixels until all of them have K
// Every tile is the work of one thread and lists are sorted by a total order, so the result does
// not depend on the number of threads.
#include <algorithm>

#include "kb_host.h"
#include "kb_tile.h"

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

constexpr int BUCKETS = 256;        // of a tile's depth range
constexpr size_t SORT_WHOLE = 192;  // shorter lists are sorted at once
constexpr int LOOK_AHEAD = 12;      // keys between a prefetch and its use
constexpr int TILES_AT_ONCE = 4;    // taken from the queue of tiles by a thread

struct Worker {
  Buffer<uint64_t> sorted;
  Buffer<int32_t> index;
  Buffer<float> depth, distance;
};

struct Scratch {
  Buffer<Point> points;
  Buffer<uint64_t> keys;
  Buffer<float> centers;
  std::vector<uint32_t> counts;  // [threads, tiles]
  std::vector<size_t> cursors;   // [threads, tiles]
  std::vector<size_t> starts;    // [tiles + 1]
  std::vector<Worker> workers;   // owned here, because the threads themselves end with the call
};

thread_local std::unique_ptr<Scratch> scratch;

// Squared x distances of one point to the 16 columns of a tile.
struct RowTest {
  alignas(64) float dx2[TILE];

  RowTest(float u, const float* centers) {
    for (int x = 0; x < TILE; ++x) {
      const float dx = u - centers[x];
      dx2[x] = dx * dx;
    }
  }

  // Bit x: the centre in column x is nearer than the radius, strictly.
  uint32_t inside(float dy2, float r2) const {
#if defined(__AVX512F__)
    const __m512 d2 = _mm512_add_ps(_mm512_load_ps(dx2), _mm512_set1_ps(dy2));
    return _mm512_cmp_ps_mask(d2, _mm512_set1_ps(r2), _CMP_LT_OQ);
#elif defined(__AVX2__)
    const __m256 dy = _mm256_set1_ps(dy2), r = _mm256_set1_ps(r2);
    const __m256 low = _mm256_add_ps(_mm256_load_ps(dx2), dy);
    const __m256 high = _mm256_add_ps(_mm256_load_ps(dx2 + 8), dy);
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(low, r, _CMP_LT_OQ))) |
           uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(high, r, _CMP_LT_OQ))) << 8;
#else
    uint32_t bits = 0;
    for (int x = 0; x < TILE; ++x) bits |= uint32_t(dx2[x] + dy2 < r2) << x;
    return bits;
#endif
  }
};

// Copies past the caches where it can: the image is much larger than they are, and ordinary stores
// would first read every line that they overwrite.
template <class T>
void stream(T* to, const T* from, size_t n) {
#if defined(__AVX2__)
  static_assert(sizeof(T) == 4, "eight to a vector");
  if (uintptr_t(to) % 32 == 0 && n % 8 == 0) {
    for (size_t i = 0; i < n; i += 8) {
      const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), v);
    }
    return;
  }
#endif
  memcpy(to, from, n * sizeof(T));
}

// Streamed stores are not ordered by locks: call before another thread may read them.
inline void finish_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// What every thread reads and none writes.
struct Frame {
  Grid grid;
  Footprint shape;
  int k;
  const float *xs, *ys;  // pixel centres, padded to whole tiles
  const Point* points;
  KbOutput out;
};

// The pixels of one tile while it is being filled, in memory that stays in the L1 cache.
class Tile {
 public:
  Tile(const Frame& frame, int number, Worker& w)
      : f(frame),
        x0(number % frame.grid.columns * TILE),
        y0(number / frame.grid.columns * TILE),
        width(std::min(TILE, frame.grid.x.n - x0)),
        height(std::min(TILE, frame.grid.y.n - y0)),
        xs(frame.xs + x0),
        ys(frame.ys + y0) {
    const size_t slots = size_t(TILE_PIXELS) * f.k;
    index = w.index.get(slots);
    depth = w.depth.get(slots);
    distance = w.distance.get(slots);
    const size_t used = size_t(height) * TILE * f.k;
    std::fill(index, index + used, -1);
    std::fill(depth, depth + used, -1.0f);
    std::fill(distance, distance + used, -1.0f);
    memset(filled, 0, sizeof filled);
    for (int y = 0; y < TILE; ++y) open[y] = y < height ? uint16_t((1u << width) - 1) : 0;
    for (int x = 0; x < TILE; ++x) open_in_column[x] = uint8_t(x < width ? height : 0);
    find_open_box();
  }

  // Draws points front to back. True once every pixel has its K: what is left cannot be seen.
  bool draw(const uint64_t* begin, const uint64_t* end) {
    for (const uint64_t* key = begin; key < end; ++key) {
      if (key + LOOK_AHEAD < end) prefetch(&f.points[key_index(key[LOOK_AHEAD])]);
      const uint32_t i = key_index(*key);
      if (f.shape == PIXEL) {
        draw_pixel(f.points[i], int32_t(i));
      } else {
        draw_disc(f.points[i], int32_t(i));
      }
      if (box_shrinks && !find_open_box()) return true;
    }
    return false;
  }

  void write() const {
    const size_t row = size_t(width) * f.k;
    for (int y = 0; y < height; ++y) {
      const size_t to = (size_t(y0 + y) * f.grid.x.n + x0) * f.k, from = size_t(y) * TILE * f.k;
      stream(f.out.index + to, index + from, row);
      stream(f.out.depth + to, depth + from, row);
      stream(f.out.distance + to, distance + from, row);
    }
  }

 private:
  const Frame& f;
  const int x0, y0, width, height;
  const float *xs, *ys;
  int32_t* index;
  float *depth, *distance;
  uint16_t open[TILE];  // bit x of row y: the pixel still takes points
  uint8_t open_in_column[TILE];
  uint8_t filled[TILE_PIXELS];
  // Box of the open pixels: silhouette tiles never fill, and most of their later points miss it.
  int first_row, last_row;
  float box_x, box_y, box_half_width, box_half_height;
  bool box_shrinks;

  bool find_open_box() {
    box_shrinks = false;
    uint32_t columns = 0;
    first_row = TILE;
    for (int y = 0; y < TILE; ++y) {
      if (!open[y]) continue;
      columns |= open[y];
      first_row = std::min(first_row, y);
      last_row = y;
    }
    if (!columns) return false;
    const float left = xs[lowest_bit(columns)], right = xs[highest_bit(columns)];
    box_x = 0.5f * (left + right);
    box_y = 0.5f * (ys[first_row] + ys[last_row]);
    // 0.02 pixels wider, see pixel_span
    box_half_width = 0.5f * (right - left) + 0.02f / f.grid.x.scale;
    box_half_height = 0.5f * (ys[last_row] - ys[first_row]) + 0.02f / f.grid.y.scale;
    return true;
  }

  bool misses_box(const Point& p) const {
    const float reach = p.r * 1.000002f;  // more than all roundings of the exact test
    return (fabsf(p.u - box_x) - box_half_width > reach) |
           (fabsf(p.v - box_y) - box_half_height > reach);
  }

  void draw_disc(const Point& p, int32_t id) {
    if (misses_box(p)) return;
    int first, last;
    pixel_span(f.grid.y, p.v, p.r, &first, &last);
    first = std::max(first - y0, first_row);
    last = std::min(last - y0, last_row);
    const RowTest test(p.u, xs);
    const float r2 = mul(p.r, p.r);
    for (int y = first; y <= last; ++y) {
      const float dy = p.v - ys[y], dy2 = mul(dy, dy);
      for (uint32_t hit = test.inside(dy2, r2) & open[y]; hit; hit &= hit - 1) {
        const int x = lowest_bit(hit);
        append(x, y, id, p.z, (test.dx2[x] + dy2) / r2);
      }
    }
  }

  void draw_pixel(const Point& p, int32_t id) {
    const int x = pixel_at(f.grid.x, p.u) - x0, y = pixel_at(f.grid.y, p.v) - y0;
    if (!(open[y] >> x & 1)) return;
    const float dx = mul(p.u - xs[x], f.grid.x.scale), dy = mul(p.v - ys[y], f.grid.y.scale);
    append(x, y, id, p.z, squared_distance(dx, dy));
  }

  void append(int x, int y, int32_t id, float z, float d) {
    const int pixel = y * TILE + x, n = filled[pixel]++;
    const size_t slot = size_t(pixel) * f.k + n;
    index[slot] = id;
    depth[slot] = z;
    distance[slot] = d;
    if (n + 1 < f.k) return;
    open[y] &= uint16_t(~(1u << x));
    --open_in_column[x];
    box_shrinks |= !open[y] | !open_in_column[x];
  }
};

// Sorts the keys of a tile and draws them. Only the part of the list that is seen gets sorted:
// one counting pass splits it into depth buckets, each is sorted when the drawing reaches it.
void draw_sorted(Tile& tile, uint64_t* keys, size_t n, Buffer<uint64_t>& sorted) {
  if (n <= SORT_WHOLE) {
    std::sort(keys, keys + n);
    tile.draw(keys, keys + n);
    return;
  }
  uint32_t nearest = UINT32_MAX, farthest = 0;
  for (size_t i = 0; i < n; ++i) {
    nearest = std::min(nearest, key_depth(keys[i]));
    farthest = std::max(farthest, key_depth(keys[i]));
  }
  int shift = 0;
  while ((farthest - nearest) >> shift >= BUCKETS) ++shift;
  auto bucket = [&](uint64_t key) { return (key_depth(key) - nearest) >> shift; };

  size_t ends[BUCKETS + 1] = {};
  for (size_t i = 0; i < n; ++i) ++ends[bucket(keys[i]) + 1];
  for (int b = 0; b < BUCKETS; ++b) ends[b + 1] += ends[b];
  uint64_t* out = sorted.get(n);
  for (size_t i = 0; i < n; ++i) out[ends[bucket(keys[i])]++] = keys[i];  // starts become ends
  size_t begin = 0;
  for (int b = 0; b < BUCKETS; ++b) {
    if (begin == ends[b]) continue;
    std::sort(out + begin, out + ends[b]);
    if (tile.draw(out + begin, out + ends[b])) return;
    begin = ends[b];
  }
}

// Pixel centres padded to whole tiles with positions that no point covers.
const float* padded(const float* centers, int n, int tiles, float* to) {
  std::copy(centers, centers + n, to);
  std::fill(to + n, to + size_t(tiles) * TILE, 1e30f);
  return to;
}

Point load_point(const KbInput& in, int64_t i) {
  const float* p = in.points + 3 * i;
  Point q = in.world_to_screen ? project(in.world_to_screen, p) : Point{p[0], p[1], p[2], 0.0f};
  const float r = in.radius[i * in.radius_stride];
  q.r = in.radius_focal > 0.0f ? div(mul(r, in.radius_focal), q.z) : r;
  if (in.footprint == PIXEL) q.r = 1.0f;  // its size plays no part
  if (!drawable(q, in.z_near)) q.z = -1.0f;
  q.z += 0.0f;  // -0 becomes +0, whose bits sort first
  return q;
}

// Calls f(tile) for the tiles of point p in [first, last).
template <class F>
void each_tile(const Grid& grid, Footprint shape, const Point& p, size_t first, size_t last,
               const F& f) {
  if (!(p.z >= 0.0f)) return;
  const TileRect r = tiles_of(grid, p, shape);
  for (int y = r.y0; y <= r.y1; ++y) {
    for (int x = r.x0; x <= r.x1; ++x) {
      const size_t tile = size_t(y) * grid.columns + x;
      if (tile - first < last - first) f(tile);
    }
  }
}

// Pass 1. Leaves counts [threads, tiles] in the scratch and the pairs of all tiles in `starts`.
Status count_pairs(const KbInput& in, const Frame& frame, Point* points, size_t tiles) {
  Scratch& s = *scratch;
  const int threads = in.threads;
  s.counts.assign(tiles * threads, 0);
  s.cursors.resize(tiles * threads);
  s.starts.resize(tiles + 1);
  uint32_t* counts = s.counts.data();
  const Status status = parallel(threads, [&](int t) {
    uint32_t* mine = counts + tiles * t;
    const KbInput task = in;  // copies that the stores below cannot alias
    const Grid grid = frame.grid;
    const Range range = share(task.n, threads, t);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const Point p = load_point(task, i);
      points[i] = p;
      each_tile(grid, frame.shape, p, 0, tiles, [=](size_t tile) { ++mine[tile]; });
    }
  });
  size_t total = 0;
  for (size_t tile = 0; tile < tiles; ++tile) {
    s.starts[tile] = total;
    for (int t = 0; t < threads; ++t) {
      s.cursors[tiles * t + tile] = total;
      total += s.counts[tiles * t + tile];
    }
  }
  s.starts[tiles] = total;
  return status;
}

// Passes 2 and 3 for the tiles [first, last).
Status draw_band(const KbInput& in, const Frame& frame, size_t first, size_t last, size_t tiles) {
  Scratch& s = *scratch;
  const size_t base = s.starts[first];
  uint64_t* keys = s.keys.get(s.starts[last] - base);
  size_t* all_cursors = s.cursors.data();
  Status status = parallel(in.threads, [&](int t) {
    size_t* cursors = all_cursors + tiles * t;
    const Grid grid = frame.grid;
    const Range range = share(in.n, in.threads, t);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const Point p = frame.points[i];
      const uint64_t key = order_key(p.z, uint32_t(i));
      each_tile(grid, frame.shape, p, first, last,
                [=](size_t tile) { keys[cursors[tile]++ - base] = key; });
    }
  });
  if (status != OK) return status;

  std::atomic<size_t> queue{first};
  const size_t* starts = s.starts.data();
  Worker* workers = s.workers.data();
  return parallel(in.threads, [&](int t) {
    for (size_t tile; (tile = queue.fetch_add(TILES_AT_ONCE)) < last;) {
      for (const size_t end = std::min(last, tile + TILES_AT_ONCE); tile < end; ++tile) {
        Tile pixels(frame, int(tile), workers[t]);
        const size_t n = starts[tile + 1] - starts[tile];
        draw_sorted(pixels, keys + (starts[tile] - base), n, workers[t].sorted);
        pixels.write();
      }
    }
    finish_streams();
  });
}

bool valid(const KbInput& in) {
  return in.n >= 0 && in.n < INT32_MAX && in.width >= 1 && in.height >= 1 && in.k >= 1 &&
         in.k <= 255 && in.threads >= 1 && in.z_near >= 0.0f && in.x_scale > 0.0f &&
         in.y_scale > 0.0f && in.max_pairs >= 1 && int64_t(in.width) * in.height < INT32_MAX &&
         (in.footprint == DISC || in.footprint == PIXEL) &&
         (in.radius_stride == 0 || in.radius_stride == 1);
}

Status rasterize(const KbInput& in, const KbOutput& out) {
  if (!valid(in)) return BAD_ARGUMENT;
  if (!scratch) scratch = std::make_unique<Scratch>();
  Scratch& s = *scratch;
  s.workers.resize(std::max(s.workers.size(), size_t(in.threads)));

  Frame frame;
  frame.grid = make_grid({in.x_half, in.x_scale, in.width}, {in.y_half, in.y_scale, in.height});
  frame.shape = Footprint(in.footprint);
  frame.k = in.k;
  frame.out = out;
  const int columns = frame.grid.columns, rows = frame.grid.rows;
  float* centers = s.centers.get(size_t(columns + rows) * TILE);
  frame.xs = padded(in.x_centers, in.width, columns, centers);
  frame.ys = padded(in.y_centers, in.height, rows, centers + size_t(columns) * TILE);
  Point* points = s.points.get(size_t(in.n));
  frame.points = points;

  const size_t tiles = size_t(columns) * rows;
  Status status = count_pairs(in, frame, points, tiles);
  for (size_t first = 0, last; first < tiles && status == OK; first = last) {
    last = first + 1;
    const size_t limit = s.starts[first] + size_t(in.max_pairs);
    while (last < tiles && s.starts[last + 1] <= limit) ++last;
    status = draw_band(in, frame, first, last, tiles);
  }
  return status;
}

}  // namespace

// Fills `out`; 0 or a Status.
KB_EXPORT int kb_rasterize(const KbInput* in, const KbOutput* out) {
  return guarded([&] { return rasterize(*in, *out); });
}

// Frees the memory that the calling thread keeps between its calls.
KB_EXPORT void kb_trim() { scratch.reset(); }
