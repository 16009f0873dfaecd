// The CUDA kernels of the point rasteriser. No includes of the toolkit, so that NVRTC can compile
// them too; the steps themselves are in kb_device.h.
#pragma once
#include "kb_device.h"

namespace kb {

// Projects the points and counts the tiles of each; `stats` sums up. Any number of blocks.
__global__ void __launch_bounds__(BLOCK) kb_count(Cloud cloud, Grid grid, Footprint shape,
                                                  Band band, Point* points, uint32_t* counts,
                                                  Stats* stats) {
  uint64_t pairs = 0;
  uint32_t nearest = UINT32_MAX, farthest = 0;
  const int64_t step = int64_t(gridDim.x) * BLOCK;
  for (int64_t i = int64_t(blockIdx.x) * BLOCK + threadIdx.x; i < cloud.n; i += step) {
    const Point p = screen_point(cloud, shape, i);
    const uint32_t count = count_tiles(grid, shape, band, p);
    points[i] = p;
    counts[i] = count;
    if (count == 0) continue;
    pairs += count;
    nearest = min(nearest, float_bits(p.z));
    farthest = max(farthest, float_bits(p.z));
  }
  __shared__ uint64_t block_pairs[BLOCK / WARP];
  __shared__ uint32_t block_nearest[BLOCK / WARP], block_farthest[BLOCK / WARP];
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    pairs += __shfl_down_sync(~0u, pairs, distance);
    nearest = min(nearest, __shfl_down_sync(~0u, nearest, distance));
    farthest = max(farthest, __shfl_down_sync(~0u, farthest, distance));
  }
  if (threadIdx.x % WARP == 0) {
    block_pairs[threadIdx.x / WARP] = pairs;
    block_nearest[threadIdx.x / WARP] = nearest;
    block_farthest[threadIdx.x / WARP] = farthest;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < BLOCK / WARP; ++warp) {
    pairs += block_pairs[warp];
    nearest = min(nearest, block_nearest[warp]);
    farthest = max(farthest, block_farthest[warp]);
  }
  if (pairs == 0) return;
  atomicAdd(reinterpret_cast<unsigned long long*>(&stats->pairs), pairs);
  atomicMax(&stats->not_nearest, ~nearest);
  atomicMax(&stats->farthest, farthest);
}

// Writes the pairs in the order of the points; a stable sort then keeps ties by index.
// `ends`: running sum of `counts`.
__global__ void __launch_bounds__(BLOCK) kb_emit(int64_t n, Grid grid, Footprint shape, Band band,
                                                 KeyLayout layout, const Point* points,
                                                 const uint32_t* counts, const uint32_t* ends,
                                                 uint64_t* keys, int32_t* values) {
  const int64_t i = int64_t(blockIdx.x) * BLOCK + threadIdx.x;
  if (i >= n || counts[i] == 0) return;
  emit_pairs(grid, shape, band, layout, points[i], int32_t(i), ends[i] - counts[i], keys, values);
}

__global__ void __launch_bounds__(BLOCK) kb_ranges(KeyLayout layout, const uint64_t* keys,
                                                   uint32_t n, PairRange* ranges) {
  const uint32_t i = blockIdx.x * BLOCK + threadIdx.x;
  if (i < n) mark_range(layout, keys, n, i, ranges);
}

// One block for a tile, one thread for a pixel. The points pass through shared memory; every warp
// picks out those that may touch its own 8 x 4 pixels and stops when these are full, and the block
// stops when all are.
template <class List, Footprint SHAPE>
__global__ void __launch_bounds__(BLOCK) kb_raster(Drawing d) {
  __shared__ Point points[BLOCK];
  __shared__ int32_t ids[BLOCK];
  const int thread = threadIdx.x, tile = d.first + blockIdx.x;
  Pixel at;
  const bool inside = pixel_of(d, tile, thread, &at);
  const Window window = window_of(d, tile, thread);
  const PairRange range = d.ranges[blockIdx.x];
  List list;
  list.begin(d, at, inside);
  for (uint32_t begin = range.begin; begin < range.end; begin += BLOCK) {
    // also the barrier between reading the last batch and overwriting it
    if (__syncthreads_count(list.full()) == BLOCK) break;
    const int batch = int(min(uint32_t(BLOCK), range.end - begin));
    if (thread < batch) {
      ids[thread] = d.order[begin + thread];
      points[thread] = read_point(d.points + ids[thread]);
    }
    __syncthreads();
    for (int chunk = 0; chunk < batch; chunk += WARP) {
      if (__all_sync(~0u, list.full())) break;
      const int mine = chunk + thread % WARP;
      const bool near = mine < batch && may_cover<SHAPE>(d.grid, points[mine], window);
      for (uint32_t left = __ballot_sync(~0u, near); left; left &= left - 1) {
        const int i = chunk + __ffs(int(left)) - 1;
        if (!list.full() && covers<SHAPE>(d.grid, points[i], at)) list.push(ids[i]);
      }
    }
  }
  if (inside) list.template finish<SHAPE>(d, at);
}

}  // namespace kb
