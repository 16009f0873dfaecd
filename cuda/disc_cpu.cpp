// Soft discs on the CPU: the K discs of every pixel composited front to back, and the gradients.
//
// A disc at (u, v) with the radius r pixels takes the share a = o (1 - d^2 / r^2) of the light T
// that the nearer discs of a pixel let through, d being its distance from the pixel's centre and o
// its share in the middle. What is composited are coefficients: a base colour and B harmonics of three channels each; their sum
// becomes a colour with the harmonics' values Y in the direction of the pixel's ray:
//   rgb = sum over k of w_k (base_k + sum over b of Y_b sh_k,b),   w_k = a_k T_k
// In torch every disc of every pixel becomes a row of memory, several times; here it is a register.
// Gradients are summed point by point in the order of the pixels, so results do not depend on the
// number of threads, and they are the same bits on every instruction set.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kb_host.h"
#include "simd.h"

using namespace kb;
using simd::Float16;

// Mirrored field by field in render/methods/point_radiance/native.py.
struct DiscPicture {
  const int32_t* index;  // [height * width, layers]; -1: empty, and so is what follows
  const float* discs;    // [count, 4] u, v in pixels, 1 / r^2, o
  const float* base;     // [count, 3]
  const float* sh;       // [count, 3 * harmonics]
  const float* ray;      // [3, 3] world direction of (column, row, 1), any length
  int64_t count;
  int32_t width, height, layers;
  int32_t harmonics;  // 0; 8: degrees 1 and 2; 9: a constant before them
  float corner;       // where in a pixel its ray goes through; 0.5 is the centre
  int32_t threads;
};

namespace {

constexpr int MOST_LAYERS = 64;
constexpr int ROW = 32;  // floats of all coefficients, the unused ones 0
constexpr int64_t FEW = 1 << 12;  // points that a thread sums up at a time

struct alignas(64) Row {
  float v[ROW];
};

// The harmonics' values, 1 first for the base colour.
void directions(const DiscPicture& in, int64_t pixel, float* y) {
  y[0] = 1.0f;
  if (in.harmonics == 0) return;
  const float column = float(pixel % in.width) + in.corner;
  const float row = float(pixel / in.width) + in.corner;
  float d[3];
  for (int i = 0; i < 3; ++i) {
    d[i] = in.ray[3 * i] * column + in.ray[3 * i + 1] * row + in.ray[3 * i + 2];
  }
  const float length = std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
  const float x = d[0] / length, yy = d[1] / length, z = d[2] / length;
  float* out = y + 1;
  if (in.harmonics == 9) *out++ = 0.28209479177387814f;
  out[0] = -0.48860251f * yy;
  out[1] = 0.48860251f * z;
  out[2] = -0.48860251f * x;
  out[3] = 1.09254843f * x * yy;
  out[4] = -1.09254843f * yy * z;
  out[5] = 0.31539157f * (3.0f * z * z - 1.0f);
  out[6] = -1.09254843f * x * z;
  out[7] = 0.54627422f * (x * x - yy * yy);
}

// The discs of one pixel.
struct Slots {
  int filled;
  float alpha[MOST_LAYERS], light[MOST_LAYERS + 1];
};

void look(const DiscPicture& in, int64_t pixel, Slots& out) {
  const int32_t* ids = in.index + pixel * in.layers;
  const float x = float(pixel % in.width) + 0.5f, y = float(pixel / in.width) + 0.5f;
  float light = 1.0f;
  int k = 0;
  for (; k < in.layers && ids[k] >= 0; ++k) {
    const float* disc = in.discs + 4 * int64_t(ids[k]);
    const float du = disc[0] - x, dv = disc[1] - y;
    const float alpha = disc[3] * std::max(1.0f - (du * du + dv * dv) * disc[2], 0.0f);
    out.alpha[k] = alpha;
    out.light[k] = light;
    light *= 1.0f - alpha;
  }
  out.light[k] = light;
  out.filled = k;
}

void fetch(const DiscPicture& in, int32_t id, Row& row) {
  memcpy(row.v, in.base + 3 * int64_t(id), 3 * sizeof(float));
  const int rest = 3 * in.harmonics;
  if (rest) memcpy(row.v + 3, in.sh + int64_t(id) * rest, size_t(rest) * sizeof(float));
}

void prefetch_next(const DiscPicture& in, int64_t pixel, int64_t end) {
  if (pixel + 1 >= end) return;
  const int32_t* ids = in.index + (pixel + 1) * in.layers;
  for (int k = 0; k < in.layers && ids[k] >= 0; ++k) {
    if (in.harmonics) {
      const char* row = reinterpret_cast<const char*>(in.sh + int64_t(ids[k]) * 3 * in.harmonics);
      prefetch(row);
      prefetch(row + 64);
    }
    prefetch(in.discs + 4 * int64_t(ids[k]));
  }
}

void shade(const DiscPicture& in, const Slots& slots, int64_t pixel, float* rgb) {
  const int32_t* ids = in.index + pixel * in.layers;
  Row row = {}, sum;
  Float16 low = Float16::all(0.0f), high = low;
  for (int k = 0; k < slots.filled; ++k) {
    fetch(in, ids[k], row);
    const Float16 w = Float16::all(slots.alpha[k] * slots.light[k]);
    low = low + w * Float16::load(row.v);
    high = high + w * Float16::load(row.v + 16);
  }
  low.store(sum.v);
  high.store(sum.v + 16);
  float y[ROW / 3];
  directions(in, pixel, y);
  for (int c = 0; c < 3; ++c) {
    float value = sum.v[c];
    for (int b = 1; b <= in.harmonics; ++b) value += y[b] * sum.v[3 * b + c];
    rgb[c] = value;
  }
}

// What the gradient of a slot needs from the pixel: [pixels] gradients of the coefficients per
// weight, [pixels * layers] weights and gradients of the shares.
struct Shares {
  std::unique_ptr<Row[]> towards;
  std::unique_ptr<float[]> weight, d_alpha;

  Shares(int64_t pixels, int layers)
      : towards(new Row[size_t(pixels)]),
        weight(new float[size_t(pixels * layers)]),
        d_alpha(new float[size_t(pixels * layers)]) {}
};

void shares_of(const DiscPicture& in, int64_t pixel, const float* d_rgb, float d_light,
               Shares& out) {
  Slots slots;
  look(in, pixel, slots);
  if (slots.filled == 0) return;
  const int32_t* ids = in.index + pixel * in.layers;
  Row& towards = out.towards[size_t(pixel)];
  float y[ROW / 3];
  directions(in, pixel, y);
  std::fill_n(towards.v, ROW, 0.0f);
  for (int b = 0; b <= in.harmonics; ++b) {
    for (int c = 0; c < 3; ++c) towards.v[3 * b + c] = y[b] * d_rgb[c];
  }
  const Float16 low = Float16::load(towards.v), high = Float16::load(towards.v + 16);
  float d_weight[MOST_LAYERS];
  Row row = {};
  for (int k = 0; k < slots.filled; ++k) {
    fetch(in, ids[k], row);
    d_weight[k] = simd::sum(low * Float16::load(row.v) + high * Float16::load(row.v + 16));
  }
  // What the light that passes a disc is worth, from the back to the front.
  float behind = d_light;
  for (int k = slots.filled - 1; k >= 0; --k) {
    const int64_t slot = pixel * in.layers + k;
    const float alpha = slots.alpha[k];
    out.weight[size_t(slot)] = alpha * slots.light[k];
    out.d_alpha[size_t(slot)] = alpha > 0.0f ? slots.light[k] * (d_weight[k] - behind) : 0.0f;
    behind = alpha * d_weight[k] + (1.0f - alpha) * behind;
  }
}

// Gradients of the points [first, last): their slots in the order of the pixels, then sums.
void sum_points(const DiscPicture& in, int64_t first, int64_t last, const int64_t* begin,
                const int32_t* slots, const Shares& shares, float* d_discs, float* d_base,
                float* d_sh) {
  for (int64_t id = first; id < last; ++id) {
    const float* disc = in.discs + 4 * id;
    Float16 low = Float16::all(0.0f), high = low;
    float du = 0.0f, dv = 0.0f, dq = 0.0f, dome = 0.0f;
    for (int64_t i = begin[id - first]; i < begin[id - first + 1]; ++i) {
      const int32_t slot = slots[i];
      const int64_t pixel = slot / in.layers;
      const Row& towards = shares.towards[size_t(pixel)];
      const Float16 w = Float16::all(shares.weight[size_t(slot)]);
      low = low + w * Float16::load(towards.v);
      high = high + w * Float16::load(towards.v + 16);
      const float away_u = disc[0] - (float(pixel % in.width) + 0.5f);
      const float away_v = disc[1] - (float(pixel / in.width) + 0.5f);
      const float d = shares.d_alpha[size_t(slot)];
      du -= d * away_u;
      dv -= d * away_v;
      const float squared = away_u * away_u + away_v * away_v;
      dq -= d * squared;
      dome += d * (1.0f - squared * disc[2]);
    }
    d_discs[4 * id] = 2.0f * disc[2] * disc[3] * du;
    d_discs[4 * id + 1] = 2.0f * disc[2] * disc[3] * dv;
    d_discs[4 * id + 2] = disc[3] * dq;
    d_discs[4 * id + 3] = dome;
    Row sum;
    low.store(sum.v);
    high.store(sum.v + 16);
    memcpy(d_base + 3 * id, sum.v, 3 * sizeof(float));
    const int rest = 3 * in.harmonics;
    if (rest) memcpy(d_sh + id * rest, sum.v + 3, size_t(rest) * sizeof(float));
  }
}

// The points [first, last) that one thread has: their slots are found by reading all of them.
void own_points(const DiscPicture& in, Range mine, const Shares& shares, float* d_discs,
                float* d_base, float* d_sh) {
  const int64_t n = mine.end - mine.begin, total_slots = int64_t(in.width) * in.height * in.layers;
  std::vector<int64_t> begin(size_t(n) + 1, 0);
  auto each = [&](const auto& f) {
    for (int64_t slot = 0; slot < total_slots; slot += in.layers) {
      for (int k = 0; k < in.layers; ++k) {
        const int64_t id = in.index[slot + k];
        if (id < 0) break;
        if (id >= mine.begin && id < mine.end) f(id - mine.begin, int32_t(slot + k));
      }
    }
  };
  each([&](int64_t i, int32_t) { ++begin[size_t(i) + 1]; });
  for (int64_t i = 0; i < n; ++i) begin[size_t(i) + 1] += begin[size_t(i)];
  std::unique_ptr<int32_t[]> slots(new int32_t[size_t(begin[size_t(n)]) + 1]);
  std::vector<int64_t> next(begin.begin(), begin.end() - 1);
  each([&](int64_t i, int32_t slot) { slots[size_t(next[size_t(i)]++)] = slot; });
  for (int64_t first = 0; first < n; first += FEW) {
    const int64_t last = std::min(n, first + FEW);
    sum_points(in, mine.begin + first, mine.begin + last, begin.data() + first, slots.get(),
               shares, d_discs, d_base, d_sh);
  }
}

bool valid(const DiscPicture& in) {
  const int64_t slots = int64_t(in.width) * in.height * in.layers;
  return in.width >= 1 && in.height >= 1 && in.layers >= 1 && in.layers <= MOST_LAYERS &&
         slots < (int64_t(1) << 31) && in.count >= 1 && in.threads >= 1 &&
         (in.harmonics == 0 || in.harmonics == 8 || in.harmonics == 9);
}

}  // namespace

// Sets rgb [pixels, 3] over black, and light [pixels] that no disc takes; 0 or a Status.
KB_EXPORT int disc_forward(const DiscPicture* picture, float* rgb, float* light) {
  const DiscPicture& in = *picture;
  if (!valid(in)) return BAD_ARGUMENT;
  return parallel(in.threads, [&](int t) {
    const Range mine = share(in.height, in.threads, t);
    const int64_t end = mine.end * in.width;
    Slots slots;
    for (int64_t p = mine.begin * in.width; p < end; ++p) {
      prefetch_next(in, p, end);
      look(in, p, slots);
      light[p] = slots.light[slots.filled];
      if (slots.filled) {
        shade(in, slots, p, rgb + 3 * p);
      } else {
        std::fill_n(rgb + 3 * p, 3, 0.0f);
      }
    }
  });
}

// Sets d_discs [count, 4], d_base [count, 3] and d_sh [count, 3 * harmonics]; 0 or a Status.
KB_EXPORT int disc_backward(const DiscPicture* picture, const float* d_rgb, const float* d_light,
                            float* d_discs, float* d_base, float* d_sh) {
  const DiscPicture& in = *picture;
  if (!valid(in)) return BAD_ARGUMENT;
  return guarded([&] {
    Shares shares(int64_t(in.width) * in.height, in.layers);
    const Status status = parallel(in.threads, [&](int t) {
      const Range mine = share(in.height, in.threads, t);
      const int64_t end = mine.end * in.width;
      for (int64_t p = mine.begin * in.width; p < end; ++p) {
        prefetch_next(in, p, end);
        shares_of(in, p, d_rgb + 3 * p, d_light[p], shares);
      }
    });
    if (status != OK) return status;
    return parallel(in.threads, [&](int t) {
      own_points(in, share(in.count, in.threads, t), shares, d_discs, d_base, d_sh);
    });
  });
}
