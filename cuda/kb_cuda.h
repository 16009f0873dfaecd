// C ABI of the CUDA rasteriser (kb_cuda.cu) and of its emulation on the CPU (kb_emu.cpp).
// Mirrored field by field in render/kbuffer/cuda_impl.py.
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(_MSC_VER)
#define KB_CUDA_API extern "C" __declspec(dllexport)
#else
#define KB_CUDA_API extern "C" __attribute__((visibility("default")))
#endif

// All pointers are device memory, except `context`, `stream` and the function.
struct KbCudaInput {
  const float* points;     // [n, 3]: (u, v, depth), or world (x, y, z) if from_world
  const float* radius;     // [n] if radius_stride is 1, [1] if it is 0
  const float* x_centers;  // [width] pixel centres, ascending
  const float* y_centers;  // [height]
  // Scratch memory of at least so many bytes, aligned to 256, that lives until work already in the
  // stream is done after this call; null: there is none.
  void* (*allocate)(size_t bytes, void* context);
  void* context;
  void* stream;  // cudaStream_t
  int64_t n;
  int64_t radius_stride;
  int64_t max_pairs;  // bound of the (point, tile) pairs at once: more are done in bands of tiles
  float world_to_screen[12];
  float x_half, x_scale, y_half, y_scale;  // see kb::Axis
  float z_near;
  float radius_focal;  // > 0: the radius on screen is radius * radius_focal / depth
  int32_t width, height, k, footprint, from_world, device;
};

struct KbCudaOutput {
  int32_t* index;   // [height, width, k], -1 = empty
  float* depth;     // same shape, -1 = empty
  float* distance;  // same shape: squared distance over squared radius, -1 = empty
  // filled in by the call
  int64_t pairs;   // (point, tile) pairs of the whole image
  int64_t wanted;  // bytes of the last scratch memory asked for
  int32_t bands;
};

// Results below zero; above it, a cudaError_t.
enum KbCudaStatus { KB_CUDA_BAD_ARGUMENT = -1, KB_CUDA_OUT_OF_MEMORY = -2 };
