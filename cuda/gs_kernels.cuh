// The CUDA kernels of splatting. They call what gs_device.h has; only barriers are here.
#pragma once
#include "gs_device.h"

namespace gs {

__global__ void __launch_bounds__(kBlock) gs_project(ProjectTask t) {
  const int64_t i = int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (i < t.n) project_one(t, i);
}

__global__ void __launch_bounds__(kBlock) gs_project_backward(ProjectBackwardTask t) {
  const int64_t i = int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (i < t.n) project_backward_one(t, i);
}

// One block for a tile, one thread for a pixel. The splats pass through shared memory.
template <class Keeper>
__global__ void __launch_bounds__(kBlock) gs_heaviest(HeaviestTask t) {
  __shared__ Splat splats[kBlock];
  __shared__ int32_t ids[kBlock];
  const int thread = threadIdx.x, tile = blockIdx.x;
  Walk<Keeper> walk;
  walk.begin(t, tile, thread);
  const int32_t end = tile_end(t, tile);
  for (int32_t begin = t.offsets[tile]; begin < end; begin += kBlock) {
    // also the barrier between reading the last batch and overwriting it
    if (__syncthreads_count(walk.full()) == kBlock) break;
    const int batch = end - begin < kBlock ? end - begin : kBlock;
    if (thread < batch) {
      ids[thread] = t.order[begin + thread];
      splats[thread] = t.splats[ids[thread]];
    }
    __syncthreads();
    for (int i = 0; i < batch && !walk.full(); ++i) walk.push(t, splats[i], ids[i]);
  }
  walk.finish(t);
}

}  // namespace gs
