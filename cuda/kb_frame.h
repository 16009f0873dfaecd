// One frame, from the host's side: which steps follow each other, how much memory they need, and
// what happens when there is too little. `Machine` runs the steps: on a GPU (kb_cuda.cu) or, to test
// all this, on the CPU (kb_emu.cpp). Its methods return 0 or an error that ends the frame.
#pragma once
#include "kb_cuda.h"
#include "kb_device.h"

namespace kb {

// Parts of one piece of scratch memory, each aligned to 256 bytes. Measure with base = null.
class Layout {
 public:
  explicit Layout(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(size_t n) {
    const size_t at = used_;
    used_ += (n * sizeof(T) + 255) / 256 * 256;
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// Memory that is asked for again only when it has to grow.
template <class Machine>
class Scratch {
 public:
  Scratch(Machine& machine, KbCudaOutput& out) : machine_(machine), out_(out) {}
  void* get(size_t bytes) {
    if (bytes <= capacity_) return data_;
    out_.wanted = int64_t(bytes);
    void* data = machine_.allocate(bytes);
    if (data) data_ = data, capacity_ = bytes;
    return data;
  }

 private:
  Machine& machine_;
  KbCudaOutput& out_;
  void* data_ = nullptr;
  size_t capacity_ = 0;
};

// Alive while the frame is drawn.
struct FrameMemory {
  Point* points;
  uint32_t *counts, *ends;
  Stats* stats;
  PairRange* ranges;
  void* scan;

  static size_t place(void* base, int64_t n, int tiles, size_t scan_bytes, FrameMemory* m) {
    Layout layout(base);
    m->points = layout.take<Point>(size_t(n));
    m->counts = layout.take<uint32_t>(size_t(n));
    m->ends = layout.take<uint32_t>(size_t(n));
    m->stats = layout.take<Stats>(1);
    m->ranges = layout.take<PairRange>(size_t(tiles));
    m->scan = layout.take<char>(scan_bytes);
    return layout.used();
  }
};

// Alive while a band is drawn. Two of each, because a radix sort goes to and fro.
struct PairMemory {
  uint64_t* keys[2];
  int32_t* values[2];
  void* sort;

  static size_t place(void* base, size_t pairs, size_t sort_bytes, PairMemory* m) {
    Layout layout(base);
    for (uint64_t*& keys : m->keys) keys = layout.take<uint64_t>(pairs);
    for (int32_t*& values : m->values) values = layout.take<int32_t>(pairs);
    m->sort = layout.take<char>(sort_bytes);
    return layout.used();
  }
};

inline int bits_of(uint32_t value) {
  int bits = 0;
  while (bits < 32 && value >> bits) ++bits;
  return bits;
}

inline Band make_band(const Grid& g, int first, int last) {
  return {first, last, first / g.columns, first % g.columns, last / g.columns, last % g.columns};
}

// Calls f(list) with the kind of list that serves k layers: RegisterList<1, 2, 4, 8 or 16>() for
// as many, else MemoryList().
template <class F>
auto with_list(int k, const F& f) {
  if (k <= 1) return f(RegisterList<1>());
  if (k <= 2) return f(RegisterList<2>());
  if (k <= 4) return f(RegisterList<4>());
  if (k <= 8) return f(RegisterList<8>());
  if (k <= 16) return f(RegisterList<16>());
  return f(MemoryList());
}

inline bool valid(const KbCudaInput& in) {
  return in.n >= 0 && in.n < INT32_MAX && in.width >= 1 && in.height >= 1 &&
         in.width <= 1 << 30 && in.height <= 1 << 30 && in.k >= 1 && in.k <= 255 &&
         int64_t(in.width) * in.height < INT32_MAX && in.z_near >= 0.0f && in.x_scale > 0.0f &&
         in.y_scale > 0.0f && in.max_pairs >= 1 && in.max_pairs <= INT32_MAX &&
         (in.footprint == DISC || in.footprint == PIXEL) &&
         (in.radius_stride == 0 || in.radius_stride == 1) && in.allocate;
}

inline Cloud cloud_of(const KbCudaInput& in) {
  Cloud c = {in.points, in.radius, in.n, in.radius_stride, {}, in.z_near, in.radius_focal,
             in.from_world};
  for (int i = 0; i < 12; ++i) c.world_to_screen[i] = in.world_to_screen[i];
  return c;
}

inline Picture picture_of(const KbCudaInput& in, const KbCudaOutput& out) {
  const uintptr_t ends = uintptr_t(out.index) | uintptr_t(out.depth) | uintptr_t(out.distance);
  // Only where a list of the kernels is filled to the last place: k of 4, 8 or 16.
  const bool vector = ends % 16 == 0 && (in.k == 4 || in.k == 8 || in.k == 16);
  return {out.index, out.depth, out.distance, in.k, vector};
}

#define KB_TRY(call) \
  do {               \
    if (const int error = (call)) return error; \
  } while (0)

template <class Machine>
int draw_frame(Machine& machine, const KbCudaInput& in, KbCudaOutput& out) {
  out.pairs = out.wanted = out.bands = 0;
  if (!valid(in)) return KB_CUDA_BAD_ARGUMENT;
  const Grid grid = make_grid({in.x_half, in.x_scale, in.width}, {in.y_half, in.y_scale, in.height});
  const int tiles = grid.columns * grid.rows;
  const Footprint shape = Footprint(in.footprint);
  const Cloud cloud = cloud_of(in);

  FrameMemory frame;
  size_t scan_bytes = 0;
  KB_TRY(machine.scan_bytes(in.n, &scan_bytes));
  Scratch<Machine> frame_scratch(machine, out), pair_scratch(machine, out);
  void* base = frame_scratch.get(FrameMemory::place(nullptr, in.n, tiles, scan_bytes, &frame));
  if (!base) return KB_CUDA_OUT_OF_MEMORY;
  FrameMemory::place(base, in.n, tiles, scan_bytes, &frame);
  Drawing drawing = {grid,         picture_of(in, out), frame.points, nullptr,
                     frame.ranges, in.x_centers,        in.y_centers, 0};

  for (int first = 0, size = tiles; first < tiles;) {
    const int last = size < tiles - first ? first + size : tiles;
    const Band band = make_band(grid, first, last);
    Stats stats = {0, 0, 0};
    if (in.n > 0) {
      KB_TRY(machine.count(cloud, grid, shape, band, frame.points, frame.counts, frame.stats));
      // Before the sum is known to fit 32 bits: if it does not, the band is drawn anew.
      KB_TRY(machine.scan(frame.counts, frame.ends, in.n, frame.scan, scan_bytes));
      KB_TRY(machine.read(frame.stats, &stats));
    }
    const bool divisible = last - first > 1;
    if (stats.pairs > uint64_t(in.max_pairs) && divisible) {
      size = (last - first + 1) / 2;
      continue;
    }
    const size_t pairs = size_t(stats.pairs);  // one tile has at most n < 2^31
    KB_TRY(machine.clear(frame.ranges, last - first));
    drawing.first = first;
    drawing.order = nullptr;
    if (pairs > 0) {
      const uint32_t nearest = ~stats.not_nearest;
      const KeyLayout layout = {nearest, bits_of(stats.farthest - nearest)};
      const int bits = layout.depth_bits + bits_of(uint32_t(last - first - 1));
      PairMemory memory;
      size_t sort_bytes = 0;
      KB_TRY(machine.sort_bytes(pairs, bits, &sort_bytes));
      base = pair_scratch.get(PairMemory::place(nullptr, pairs, sort_bytes, &memory));
      if (!base && divisible) {
        size = (last - first + 1) / 2;
        continue;
      }
      if (!base) return KB_CUDA_OUT_OF_MEMORY;
      PairMemory::place(base, pairs, sort_bytes, &memory);
      KB_TRY(machine.emit(in.n, grid, shape, band, layout, frame.points, frame.counts, frame.ends,
                          memory.keys[0], memory.values[0]));
      int sorted = 0;  // which of the two
      KB_TRY(machine.sort(memory.keys, memory.values, pairs, bits, memory.sort, sort_bytes,
                          &sorted));
      KB_TRY(machine.ranges(layout, memory.keys[sorted], uint32_t(pairs), frame.ranges));
      drawing.order = memory.values[sorted];
    }
    KB_TRY(machine.raster(drawing, shape, last - first));
    out.pairs += int64_t(pairs);
    ++out.bands;
    first = last;
  }
  return 0;
}

}  // namespace kb
