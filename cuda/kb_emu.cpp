// Test only: the CUDA rasteriser on the CPU. The host's part (kb_frame.h) and the steps of a thread
// (kb_device.h) are the very lines that the GPU runs; barriers, ballots and the sort are loops here.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "kb_frame.h"
#include "kb_host.h"

using namespace kb;

namespace {

void count(const Cloud& cloud, const Grid& grid, Footprint shape, const Band& band, Point* points,
           uint32_t* counts, Stats* stats) {
  for (int64_t i = 0; i < cloud.n; ++i) {
    points[i] = screen_point(cloud, shape, i);
    counts[i] = count_tiles(grid, shape, band, points[i]);
    if (counts[i] == 0) continue;
    stats->pairs += counts[i];
    stats->not_nearest = std::max(stats->not_nearest, ~float_bits(points[i].z));
    stats->farthest = std::max(stats->farthest, float_bits(points[i].z));
  }
}

void emit(int64_t n, const Grid& grid, Footprint shape, const Band& band, const KeyLayout& layout,
          const Point* points, const uint32_t* counts, const uint32_t* ends, uint64_t* keys,
          int32_t* values) {
  for (int64_t i = n - 1; i >= 0; --i) {  // threads come in any order
    if (counts[i] == 0) continue;
    emit_pairs(grid, shape, band, layout, points[i], int32_t(i), ends[i] - counts[i], keys, values);
  }
}

void ranges(const KeyLayout& layout, const uint64_t* keys, uint32_t n, PairRange* to) {
  for (uint32_t i = n; i-- > 0;) mark_range(layout, keys, n, i, to);
}

// kb_raster, one barrier after the other.
template <class List, Footprint SHAPE>
void raster_block(const Drawing& d, int block) {
  const int tile = d.first + block;
  std::vector<Point> points(BLOCK);
  std::vector<int32_t> ids(BLOCK);
  std::vector<Pixel> at(BLOCK);
  std::vector<List> lists(BLOCK);
  bool inside[BLOCK];
  for (int t = 0; t < BLOCK; ++t) {
    inside[t] = pixel_of(d, tile, t, &at[t]);
    lists[t].begin(d, at[t], inside[t]);
  }
  auto all_full = [&](int first, int n) {
    for (int t = first; t < first + n; ++t) {
      if (!lists[t].full()) return false;
    }
    return true;
  };
  const PairRange range = d.ranges[block];
  for (uint32_t begin = range.begin; begin < range.end; begin += BLOCK) {
    if (all_full(0, BLOCK)) break;
    const int batch = int(std::min(uint32_t(BLOCK), range.end - begin));
    for (int t = 0; t < batch; ++t) {
      ids[t] = d.order[begin + t];
      points[t] = read_point(d.points + ids[t]);
    }
    for (int warp = 0; warp < BLOCK; warp += WARP) {
      const Window window = window_of(d, tile, warp);
      for (int chunk = 0; chunk < batch; chunk += WARP) {
        if (all_full(warp, WARP)) break;
        for (int i = chunk; i < std::min(chunk + WARP, batch); ++i) {
          if (!may_cover<SHAPE>(d.grid, points[i], window)) continue;
          for (int t = warp; t < warp + WARP; ++t) {
            if (!lists[t].full() && covers<SHAPE>(d.grid, points[i], at[t])) lists[t].push(ids[i]);
          }
        }
      }
    }
  }
  for (int t = 0; t < BLOCK; ++t) {
    if (inside[t]) lists[t].template finish<SHAPE>(d, at[t]);
  }
}

template <class List>
void raster(const Drawing& d, Footprint shape, int tiles) {
  for (int block = 0; block < tiles; ++block) {
    if (shape == PIXEL) {
      raster_block<List, PIXEL>(d, block);
    } else {
      raster_block<List, DISC>(d, block);
    }
  }
}

class Emulator {
 public:
  explicit Emulator(const KbCudaInput& in) : in_(in) {}
  void* allocate(size_t bytes) { return in_.allocate(bytes, in_.context); }
  int scan_bytes(int64_t, size_t* bytes) {
    *bytes = 0;
    return 0;
  }
  int sort_bytes(size_t pairs, int, size_t* bytes) {
    *bytes = pairs * sizeof(uint32_t);
    return 0;
  }
  int count(const Cloud& cloud, const Grid& grid, Footprint shape, const Band& band, Point* points,
            uint32_t* counts, Stats* stats) {
    *stats = {0, 0, 0};
    ::count(cloud, grid, shape, band, points, counts, stats);
    return 0;
  }
  int scan(const uint32_t* counts, uint32_t* ends, int64_t n, void*, size_t) {
    std::partial_sum(counts, counts + n, ends);
    return 0;
  }
  int read(const Stats* from, Stats* to) {
    *to = *from;
    return 0;
  }
  int clear(PairRange* ranges, int tiles) {
    std::fill(ranges, ranges + tiles, PairRange{0, 0});
    return 0;
  }
  int emit(int64_t n, const Grid& grid, Footprint shape, const Band& band, const KeyLayout& layout,
           const Point* points, const uint32_t* counts, const uint32_t* ends, uint64_t* keys,
           int32_t* values) {
    ::emit(n, grid, shape, band, layout, points, counts, ends, keys, values);
    return 0;
  }
  int sort(uint64_t* keys[2], int32_t* values[2], size_t pairs, int bits, void* scratch, size_t,
           int* sorted) {
    uint32_t* order = static_cast<uint32_t*>(scratch);
    std::iota(order, order + pairs, 0u);
    const uint64_t mask = bits < 64 ? (uint64_t(1) << bits) - 1 : ~uint64_t(0);
    std::stable_sort(order, order + pairs, [&](uint32_t a, uint32_t b) {
      return (keys[0][a] & mask) < (keys[0][b] & mask);
    });
    for (size_t i = 0; i < pairs; ++i) {
      keys[1][i] = keys[0][order[i]];
      values[1][i] = values[0][order[i]];
    }
    *sorted = 1;
    return 0;
  }
  int ranges(const KeyLayout& layout, const uint64_t* keys, uint32_t pairs, PairRange* ranges) {
    ::ranges(layout, keys, pairs, ranges);
    return 0;
  }
  int raster(const Drawing& d, Footprint shape, int tiles) {
    with_list(d.out.k, [&](auto list) { ::raster<decltype(list)>(d, shape, tiles); });
    return 0;
  }

 private:
  const KbCudaInput& in_;
};

// The i-th argument of a kernel, as cuLaunchKernel gets them.
template <class T>
T& argument(void** arguments, int i) {
  return *static_cast<T*>(arguments[i]);
}

template <class List, Footprint SHAPE>
void launch_raster(void** a, unsigned blocks) {
  for (unsigned block = 0; block < blocks; ++block) {
    raster_block<List, SHAPE>(argument<Drawing>(a, 0), int(block));
  }
}

}  // namespace

KB_EXPORT int kb_emu_rasterize(const KbCudaInput* in, KbCudaOutput* out) {
  return guarded([&] {
    Emulator machine(*in);
    return Status(draw_frame(machine, *in, *out));
  });
}

// Pairs of the tiles [first, last): the 64-bit sum alone.
KB_EXPORT int64_t kb_emu_pairs(const KbCudaInput* in, int first, int last) {
  const Grid grid = make_grid({in->x_half, in->x_scale, in->width},
                              {in->y_half, in->y_scale, in->height});
  const Band band = make_band(grid, first, last);
  const Cloud cloud = cloud_of(*in);
  std::vector<Point> points(size_t(in->n));
  std::vector<uint32_t> counts(size_t(in->n));
  Stats stats = {0, 0, 0};
  count(cloud, grid, Footprint(in->footprint), band, points.data(), counts.data(), &stats);
  return int64_t(stats.pairs);
}

// Stands in for cuLaunchKernel: runs the kernel of that name. 0, or 1 if there is none.
KB_EXPORT int kb_emu_launch(const char* name, unsigned blocks, void** a) {
  const auto is = [&](const char* other) { return strcmp(name, other) == 0; };
  if (is("kb::kb_count")) {
    count(argument<Cloud>(a, 0), argument<Grid>(a, 1), argument<Footprint>(a, 2),
          argument<Band>(a, 3), argument<Point*>(a, 4), argument<uint32_t*>(a, 5),
          argument<Stats*>(a, 6));
  } else if (is("kb::kb_emit")) {
    emit(argument<int64_t>(a, 0), argument<Grid>(a, 1), argument<Footprint>(a, 2),
         argument<Band>(a, 3), argument<KeyLayout>(a, 4), argument<const Point*>(a, 5),
         argument<const uint32_t*>(a, 6), argument<const uint32_t*>(a, 7),
         argument<uint64_t*>(a, 8), argument<int32_t*>(a, 9));
  } else if (is("kb::kb_ranges")) {
    ranges(argument<KeyLayout>(a, 0), argument<const uint64_t*>(a, 1), argument<uint32_t>(a, 2),
           argument<PairRange*>(a, 3));
#define KB_RASTER(list)                                                              \
  }                                                                                  \
  else if (is("kb::kb_raster<kb::" #list ", kb::DISC>")) {                           \
    launch_raster<list, DISC>(a, blocks);                                            \
  }                                                                                  \
  else if (is("kb::kb_raster<kb::" #list ", kb::PIXEL>")) {                          \
    launch_raster<list, PIXEL>(a, blocks);
    KB_RASTER(RegisterList<1>)
    KB_RASTER(RegisterList<2>)
    KB_RASTER(RegisterList<4>)
    KB_RASTER(RegisterList<8>)
    KB_RASTER(RegisterList<16>)
    KB_RASTER(MemoryList)
#undef KB_RASTER
  } else {
    return 1;
  }
  return 0;
}
