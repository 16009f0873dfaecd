// Exact K-buffer rasteriser on CUDA: the picture of kb_cpu.cpp, bit for bit.
//
//   1. count   project the points, count the tiles that each touches; one look back by the host
//   2. emit    write a key (tile, depth) and the point of each pair, in the order of the points
//   3. sort    a stable radix sort: by tile, front to back in each tile, ties by index
//   4. raster  a block for each tile walks its points until its pixels are full
//
// Plain C ABI without torch: memory comes through a callback, everything runs in the given stream.
#include <cuda_runtime.h>

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "kb_frame.h"
#include "kb_kernels.cuh"

namespace kb {
namespace {

constexpr unsigned COUNT_BLOCKS = 2048;  // enough to fill any GPU, few enough for their atomics

unsigned blocks(int64_t n) { return unsigned((n + BLOCK - 1) / BLOCK); }

class Cuda {
 public:
  explicit Cuda(const KbCudaInput& in)
      : allocate_(in.allocate), context_(in.context), stream_(cudaStream_t(in.stream)) {}

  void* allocate(size_t bytes) { return allocate_(bytes, context_); }

  int scan_bytes(int64_t n, size_t* bytes) {
    const uint32_t* from = nullptr;
    uint32_t* to = nullptr;
    return cub::DeviceScan::InclusiveSum(nullptr, *bytes, from, to, int(n), stream_);
  }

  int sort_bytes(size_t pairs, int bits, size_t* bytes) {
    cub::DoubleBuffer<uint64_t> keys;
    cub::DoubleBuffer<int32_t> values;
    return cub::DeviceRadixSort::SortPairs(nullptr, *bytes, keys, values, int(pairs), 0,
                                           bits > 0 ? bits : 1, stream_);
  }

  int count(const Cloud& cloud, const Grid& grid, Footprint shape, const Band& band, Point* points,
            uint32_t* counts, Stats* stats) {
    KB_TRY(cudaMemsetAsync(stats, 0, sizeof(Stats), stream_));
    const unsigned n = blocks(cloud.n);
    kb_count<<<n < COUNT_BLOCKS ? n : COUNT_BLOCKS, BLOCK, 0, stream_>>>(cloud, grid, shape, band,
                                                                         points, counts, stats);
    return cudaGetLastError();
  }

  int scan(const uint32_t* counts, uint32_t* ends, int64_t n, void* scratch, size_t bytes) {
    return cub::DeviceScan::InclusiveSum(scratch, bytes, counts, ends, int(n), stream_);
  }

  // The only place where the host waits.
  int read(const Stats* from, Stats* to) {
    KB_TRY(cudaMemcpyAsync(to, from, sizeof(Stats), cudaMemcpyDeviceToHost, stream_));
    return cudaStreamSynchronize(stream_);
  }

  int clear(PairRange* ranges, int tiles) {
    return cudaMemsetAsync(ranges, 0, size_t(tiles) * sizeof(PairRange), stream_);
  }

  int emit(int64_t n, const Grid& grid, Footprint shape, const Band& band, const KeyLayout& layout,
           const Point* points, const uint32_t* counts, const uint32_t* ends, uint64_t* keys,
           int32_t* values) {
    kb_emit<<<blocks(n), BLOCK, 0, stream_>>>(n, grid, shape, band, layout, points, counts, ends,
                                              keys, values);
    return cudaGetLastError();
  }

  int sort(uint64_t* keys[2], int32_t* values[2], size_t pairs, int bits, void* scratch,
           size_t bytes, int* sorted) {
    cub::DoubleBuffer<uint64_t> both_keys(keys[0], keys[1]);
    cub::DoubleBuffer<int32_t> both_values(values[0], values[1]);
    KB_TRY(cub::DeviceRadixSort::SortPairs(scratch, bytes, both_keys, both_values, int(pairs), 0,
                                           bits > 0 ? bits : 1, stream_));
    *sorted = both_keys.selector;
    return both_values.selector == both_keys.selector ? 0 : int(cudaErrorUnknown);
  }

  int ranges(const KeyLayout& layout, const uint64_t* keys, uint32_t pairs, PairRange* ranges) {
    kb_ranges<<<blocks(pairs), BLOCK, 0, stream_>>>(layout, keys, pairs, ranges);
    return cudaGetLastError();
  }

  int raster(const Drawing& d, Footprint shape, int tiles) {
    with_list(d.out.k, [&](auto list) {
      using List = decltype(list);
      const auto kernel = shape == PIXEL ? kb_raster<List, PIXEL> : kb_raster<List, DISC>;
      kernel<<<unsigned(tiles), BLOCK, 0, stream_>>>(d);
    });
    return cudaGetLastError();
  }

 private:
  void* (*allocate_)(size_t, void*);
  void* context_;
  cudaStream_t stream_;
};

}  // namespace
}  // namespace kb

// This library has a CUDA runtime of its own, with its own idea of the current device. The caller has
// made the device current in its runtime too, so nothing has to be put back.

// Draws the frame in in->stream and fills `out`; 0, a KbCudaStatus or a cudaError_t.
KB_CUDA_API int kb_cuda_rasterize(const KbCudaInput* in, KbCudaOutput* out) {
  if (!kb::valid(*in)) return KB_CUDA_BAD_ARGUMENT;
  KB_TRY(cudaSetDevice(in->device));
  kb::Cuda machine(*in);
  return kb::draw_frame(machine, *in, *out);
}

// 0 if this library can run on the device: there is a driver new enough and code for that GPU.
KB_CUDA_API int kb_cuda_probe(int device) {
  KB_TRY(cudaSetDevice(device));
  cudaFuncAttributes attributes;
  KB_TRY(cudaFuncGetAttributes(&attributes, kb::kb_ranges));
  return 0;
}

// What a positive result means.
KB_CUDA_API const char* kb_cuda_error(int error) { return cudaGetErrorString(cudaError_t(error)); }

// Changes with the two structs: a library of another version must not be called.
KB_CUDA_API int kb_cuda_abi() { return int(sizeof(KbCudaInput) * 1000 + sizeof(KbCudaOutput)); }
