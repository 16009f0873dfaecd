// Drawing the list of one tile: sort it front to back, as far as it can be seen, and fill pixels.
#pragma once
#include "kb_write.h"

namespace kb {

constexpr size_t MOST_BUCKETS = 4096;  // of a tile's depth range
constexpr size_t SHORT_LIST = 32;      // sorted by insertion; the least that is drawn at once

// The pixels of one tile while it is being filled. They hold places in the sorted list; what is
// there gets written once, at the end.
template <Footprint SHAPE, class E>
class Tile {
 public:
  Tile(const Frame& frame, int number, Worker& w)
      : f(frame),
        worker(w),
        x0(number % frame.grid.columns * TILE),
        y0(number / frame.grid.columns * TILE),
        width(std::min(TILE, frame.grid.x.n - x0)),
        height(std::min(TILE, frame.grid.y.n - y0)),
        xs(frame.xs + x0),
        ys(frame.ys + y0) {}

  void draw_sorted(const E* list, size_t n);

 private:
  const Frame& f;
  Worker& worker;
  const int x0, y0, width, height;
  const float *xs, *ys;
  const E* sorted;              // from place 1 on; place 0 stands for an empty slot
  uint32_t* slots;              // [TILE, TILE, k] places in `sorted`
  int left;                     // open pixels
  uint16_t open[TILE + LANES];  // bit x of row y: the pixel still takes points
  uint16_t filled[TILE_PIXELS];

  void begin();
  bool draw(uint32_t first, uint32_t last);
  void write() const;
  void write_empty() const;
  size_t first_slot(int y) const { return (size_t(y0 + y) * f.grid.x.n + x0) * f.k; }

  void append(int pixel, uint32_t place) {
    const int n = filled[pixel]++;
    slots[size_t(pixel) * f.k + n] = place;
    if (n + 1 < f.k) return;
    open[pixel / TILE] &= uint16_t(~(1u << pixel % TILE));
    --left;
  }

  // ------------------------------------------------- discs within eight by eight pixels
  struct Reach {
    bool small;
    int rows;           // most that a disc can cover
    float column, row;  // less these, a position in pixels is the first column, row, not rounded
  };
  Reach reach_of(float r) const {
    // as in pixel_span, with all that is added there at its largest
    const float reach = r * std::max(f.grid.x.scale, f.grid.y.scale);
    const float wide = reach * 1.00001f + 0.02f + 1e-6f * float(std::max(f.grid.x.n, f.grid.y.n));
    const float rows = 2.0f * wide + 1.1f;
    if (!(rows < LANES + 1)) return {false, 0, 0.0f, 0.0f};
    // -0.5 as in pixel_span, and 0.95 to round up
    return {true, int(rows), float(x0) + wide - 0.45f, float(y0) + wide - 0.45f};
  }

  // Bit 8 i + j: the disc covers the pixel j right of and i below the corner.
  struct Cover {
    uint64_t hits;
    int x, y;
  };

  Cover cover_of(const E& e, const Reach& reach) const {
    const float r = radius_of(f, e);
    const float column = (e.u + f.grid.x.half) * f.grid.x.scale - reach.column;
    const float row = (e.v + f.grid.y.half) * f.grid.y.scale - reach.row;
    // Clamped as integers, because the compiler makes jumps of it for floats; from a range that all
    // but overflows are in.
    const auto whole = [](float p) { return int(smaller(larger(p, -1e6f), 1e6f)); };
    const int x = std::min(std::max(whole(column), 0), TILE - LANES);
    const int y = std::min(std::max(whole(row), 0), TILE - reach.rows);
    const Float8 dx = sub(Float8(e.u), Float8::load(xs + x)), dx2 = mul(dx, dx);
    const Float8 dy = sub(Float8(e.v), Float8::load(ys + y)), r2(mul(r, r));
    float dy2[LANES];
    mul(dy, dy).store(dy2);
    uint64_t hits = 0;
    for (int i = 0; i < reach.rows; ++i) {
      hits |= uint64_t(less(add(dx2, Float8(dy2[i])), r2).bits()) << (LANES * i);
    }
    return {hits, x, y};
  }

  void draw_small(const Cover& cover, uint32_t place) {
    const int corner = cover.y * TILE + cover.x;
    for (uint64_t hits = cover.hits & open_window(cover.x, cover.y); hits; hits &= hits - 1) {
      const int bit = lowest_bit(hits);
      append(corner + bit + (bit & -LANES), place);
    }
  }

  // Bit 8 i + j: pixel (x + j, y + i) is open.
  uint64_t open_window(int x, int y) const {
    static_assert(TILE == 2 * LANES, "a row of a window is a byte, a row of a tile two");
    uint64_t bits = 0;
#if defined(__AVX2__)
    const __m128i rows = _mm_loadu_si128(reinterpret_cast<const __m128i*>(open + y));
    const __m128i words = _mm_srl_epi16(rows, _mm_cvtsi32_si128(x));
    const __m128i bytes = _mm_and_si128(words, _mm_set1_epi16(255));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(&bits), _mm_packus_epi16(bytes, bytes));
#else
    for (int i = 0; i < LANES; ++i) bits |= uint64_t(open[y + i] >> x & 255) << (LANES * i);
#endif
    return bits;
  }

  // ------------------------------------------------- larger discs
  // Box of the open pixels: silhouette tiles never fill, and most of their later points miss it.
  Window open_box() const {
    uint32_t columns = 0;
    int first = TILE, last = 0;
    for (int y = 0; y < TILE; ++y) {
      if (!open[y]) continue;
      columns |= open[y];
      first = std::min(first, y);
      last = y;
    }
    return make_window(f.grid, xs, ys, lowest_bit(columns), highest_bit(columns), first, last);
  }

  void draw_large(const E& e, const Window& box, uint32_t place) {
    const float r = radius_of(f, e), r2 = mul(r, r);
    if (!may_cover<DISC>(f.grid, Point{e.u, e.v, 0.0f, r}, box)) return;
    int first, last;
    pixel_span(f.grid.y, e.v, r, &first, &last);
    first = std::max(first - y0, box.y0);
    last = std::min(last - y0, box.y1);
    const Float8 left_dx = sub(Float8(e.u), Float8::load(xs));
    const Float8 right_dx = sub(Float8(e.u), Float8::load(xs + LANES));
    const Float8 left_dx2 = mul(left_dx, left_dx), right_dx2 = mul(right_dx, right_dx);
    for (int y = first; y <= last; ++y) {
      if (!open[y]) continue;
      const float dy = sub(e.v, ys[y]);
      const Float8 dy2(mul(dy, dy));
      const uint32_t inside = less(add(left_dx2, dy2), Float8(r2)).bits() |
                              less(add(right_dx2, dy2), Float8(r2)).bits() << LANES;
      for (uint32_t hits = inside & open[y]; hits; hits &= hits - 1) {
        append(y * TILE + lowest_bit(hits), place);
      }
    }
  }

  void draw_pixel(const E& e, uint32_t place) {
    const int x = pixel_at(f.grid.x, e.u) - x0, y = pixel_at(f.grid.y, e.v) - y0;
    if (open[y] >> x & 1) append(y * TILE + x, place);
  }
};

template <Footprint SHAPE, class E>
void Tile<SHAPE, E>::begin() {
  const size_t used = size_t(height) * TILE * f.k;
  slots = worker.slots.get(used);
  memset(slots, 0, used * sizeof *slots);
  memset(filled, 0, sizeof filled);
  memset(open, 0, sizeof open);
  for (int y = 0; y < height; ++y) open[y] = uint16_t((1u << width) - 1);
  left = width * height;
}

// Draws the places [first, last), front to back. True once every pixel has its K: what is left
// cannot be seen.
template <Footprint SHAPE, class E>
bool Tile<SHAPE, E>::draw(uint32_t first, uint32_t last) {
  if (SHAPE == PIXEL) {
    for (uint32_t i = first; i < last; ++i) draw_pixel(sorted[i], i);
    return left == 0;
  }
  const bool sized = sizeof(E) > sizeof(Entry);
  Reach reach = reach_of(f.radius);
  if (!sized && reach.small) {
    // In two steps: whether a pixel is open is hard to foresee, and a wrong guess costs less where
    // there is less work behind it that has to be given up.
    Cover covers[SHORT_LIST];
    while (first < last) {
      const uint32_t n = std::min(last - first, uint32_t(SHORT_LIST));
      for (uint32_t i = 0; i < n; ++i) covers[i] = cover_of(sorted[first + i], reach);
      for (uint32_t i = 0; i < n; ++i) draw_small(covers[i], first++);
    }
    return left == 0;
  }
  const Window box = open_box();
  for (uint32_t i = first; i < last; ++i) {
    if (sized) reach = reach_of(radius_of(f, sorted[i]));
    if (sized && reach.small) {
      draw_small(cover_of(sorted[i], reach), i);
    } else {
      draw_large(sorted[i], box, i);
    }
  }
  return left == 0;
}

template <class E>
void insertion_sort(E* begin, E* end) {
  for (E* next = begin + 1; next < end; ++next) {
    const E moving = *next;
    E* to = next;
    for (; to > begin && to[-1].key > moving.key; --to) *to = to[-1];
    *to = moving;
  }
}

// Sorts a list and draws it. Only the part that is seen gets sorted: one counting pass splits it
// into depth buckets, a few are sorted when the drawing reaches them.
template <Footprint SHAPE, class E>
void Tile<SHAPE, E>::draw_sorted(const E* list, size_t n) {
  if (n == 0) return write_empty();
  begin();
  E* out = room<E>(worker.sorted, n + 1);
  sorted = out;
  out[0] = E{};
  out[0].key = order_key(-1.0f, UINT32_MAX);
  ++out;
  if (n <= SHORT_LIST) {
    std::copy(list, list + n, out);
    insertion_sort(out, out + n);
    draw(1, uint32_t(n) + 1);
    return write();
  }
  uint32_t nearest = UINT32_MAX, farthest = 0;
  for (size_t i = 0; i < n; ++i) {
    nearest = std::min(nearest, key_depth(list[i].key));
    farthest = std::max(farthest, key_depth(list[i].key));
  }
  size_t buckets = SHORT_LIST;
  while (buckets < 2 * n && buckets < MOST_BUCKETS) buckets *= 2;
  const uint64_t scale = (uint64_t(buckets) << 32) / (uint64_t(farthest - nearest) + 1);
  const auto bucket = [=](const E& e) {
    return size_t((key_depth(e.key) - nearest) * scale >> 32);
  };
  uint32_t ends[MOST_BUCKETS + 1];
  std::fill(ends, ends + buckets + 1, 0);
  for (size_t i = 0; i < n; ++i) ++ends[bucket(list[i]) + 1];
  for (size_t b = 0; b < buckets; ++b) ends[b + 1] += ends[b];
  for (size_t i = 0; i < n; ++i) out[ends[bucket(list[i])]++] = list[i];  // starts become ends

  size_t first = 0, last = 0;
  for (size_t b = 0; first < n; first = last) {
    while (b < buckets && last - first < SHORT_LIST) last = ends[b++];
    if (last - first <= 2 * SHORT_LIST) {
      insertion_sort(out + first, out + last);
    } else {
      std::sort(out + first, out + last,
                [](const E& left, const E& right) { return left.key < right.key; });
    }
    if (draw(uint32_t(first) + 1, uint32_t(last) + 1)) break;
  }
  write();
}

template <Footprint SHAPE, class E>
void Tile<SHAPE, E>::write() const {
  const size_t n = size_t(width) * f.k;
  float* centers = worker.centers.get(size_t(TILE) * f.k);
  for (int x = 0; x < TILE; ++x) std::fill_n(centers + size_t(x) * f.k, f.k, xs[x]);
  const Row row(worker.row, n);
  for (int y = 0; y < height; ++y) {
    const uint32_t* from = slots + size_t(y) * TILE * f.k;
    for (size_t i = 0; i < n; i += LANES) {
      const PointOf<Float8> p = gather(f, sorted, from + i, row.index + i);
      const Float8 x = Float8::load(centers + i);
      const Float8 d = relative_distance<SHAPE>(f.grid, p, x, Float8(ys[y]));
      p.z.store(row.depth + i);
      select(less(p.z, Float8(0.0f)), p.z, d).store(row.distance + i);
    }
    row.stream_to(f, first_slot(y), n);
  }
}

template <Footprint SHAPE, class E>
void Tile<SHAPE, E>::write_empty() const {
  const size_t n = size_t(width) * f.k;
  const Row row(worker.row, n);
  std::fill_n(row.index, n, -1);
  std::fill_n(row.depth, n, -1.0f);
  std::fill_n(row.distance, n, -1.0f);
  for (int y = 0; y < height; ++y) row.stream_to(f, first_slot(y), n);
}

}  // namespace kb
