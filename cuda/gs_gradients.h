// Gradients of Gaussians, gathered tile by tile and summed in tile order: the same bits for any
// number of threads, and work that does not grow with it.
#pragma once
#include "gs_tiles.h"

namespace gs {

// With v = -alpha dL/dalpha = dL/dsigma, the gradient of a splat is linear in the sums over pixels
// of v dx, v dy, v dx^2, v dx dy, v dy^2 and v; its conic comes in once, at the end.
constexpr int kMoments = 6;

inline void splat_gradient(const float* m, float a, float b, float c, float opacity, float* g) {
  g[0] = a * m[0] + b * m[1];
  g[1] = b * m[0] + c * m[1];
  g[2] = 0.5f * m[2];
  g[3] = m[3];
  g[4] = 0.5f * m[4];
  g[5] = -m[5] / opacity;
}

// Rows of one thread: a Gaussian, its moments and the gradient of its values.
class RowStore {
 public:
  size_t size() const { return size_; }
  int32_t id(size_t i) const { return ids_[i]; }
  float* row(size_t i) { return rows_.get() + i * stride_; }
  const float* row(size_t i) const { return rows_.get() + i * stride_; }

  void clear(int stride) {
    size_ = 0;
    capacity_ = capacity_ * stride_ / stride;
    stride_ = size_t(stride);
    if (ids_.size() < capacity_) ids_.resize(capacity_);
  }
  // A row of zeros; valid until the next one.
  float* add(int32_t id) {
    if (size_ == capacity_) grow();
    ids_[size_] = id;
    float* row = rows_.get() + size_++ * stride_;
    for (size_t i = 0; i < stride_; ++i) row[i] = 0.0f;
    return row;
  }

 private:
  std::unique_ptr<float[]> rows_;
  std::vector<int32_t> ids_;
  size_t size_ = 0, capacity_ = 0, stride_ = 1;

  void grow() {
    const size_t capacity = std::max<size_t>(1024, 2 * capacity_);
    std::unique_ptr<float[]> rows(new float[capacity * stride_]);
    if (size_) memcpy(rows.get(), rows_.get(), size_ * stride_ * sizeof(float));
    ids_.resize(capacity);
    rows_ = std::move(rows);
    capacity_ = capacity;
  }
};

// Which rows of a store belong to a tile; `order` sorts them by bucket of Gaussians.
struct TileRows {
  int thread;
  size_t begin, end;
};

class Gradients {
 public:
  // Kept by the calling thread between calls.
  struct Scratch {
    std::vector<RowStore> stores;
    std::vector<TileRows> tiles;
    std::vector<int32_t> bucket_ends;            // [tiles, buckets]
    std::vector<std::vector<int32_t>> orders;    // [threads]: rows of its tiles by bucket
  };

  Gradients(Scratch& scratch, int64_t n, int tiles, int channels, int threads)
      : s_(scratch), n_(n), channels_(channels), stride_(kMoments + channels) {
    // Buckets of Gaussians are the work that threads share at the end: a few for each.
    const int64_t wanted = threads == 1 ? 1 : 4 * int64_t(threads);
    while (((n - 1) >> shift_) + 1 > wanted) ++shift_;
    buckets_ = n > 0 ? int(((n - 1) >> shift_) + 1) : 0;
    if (s_.stores.size() < size_t(threads)) {
      s_.stores.resize(size_t(threads));
      s_.orders.resize(size_t(threads));
    }
    for (RowStore& store : s_.stores) store.clear(stride_);
    s_.tiles.resize(size_t(tiles));
    s_.bucket_ends.resize(size_t(tiles) * buckets_);
  }

  // A tile begins; its rows follow each other in the store.
  RowStore& begin(int thread, int tile) {
    RowStore& store = s_.stores[thread];
    s_.tiles[tile] = {thread, store.size(), store.size()};
    return store;
  }
  // The tile is done: sort its rows by bucket.
  void end(int tile) {
    TileRows& t = s_.tiles[tile];
    const RowStore& store = s_.stores[t.thread];
    std::vector<int32_t>& order = s_.orders[t.thread];
    t.end = store.size();
    if (order.size() < t.end) order.resize(t.end + t.end / 2);
    int32_t* ends = &s_.bucket_ends[size_t(tile) * buckets_];
    std::fill(ends, ends + buckets_, 0);
    for (size_t i = t.begin; i < t.end; ++i) ++ends[store.id(i) >> shift_];
    for (int b = 0, at = 0; b < buckets_; ++b) {
      const int count = ends[b];
      ends[b] = at;
      at += count;
    }
    for (size_t i = t.begin; i < t.end; ++i)
      order[t.begin + size_t(ends[store.id(i) >> shift_]++)] = int32_t(i - t.begin);
  }

  // Sums the rows of each Gaussian. splat(i, &a, &b, &c, &opacity) tells its conic.
  template <class F>
  Status reduce(int threads, const F& splat, float* d_splats, float* d_values) const {
    return parallel_each(threads, buckets_, [&](int, int bucket) {
      const int64_t first = int64_t(bucket) << shift_;
      const int64_t last = std::min(n_, first + (int64_t(1) << shift_));
      std::fill(d_splats + first * kMoments, d_splats + last * kMoments, 0.0f);
      std::fill(d_values + first * channels_, d_values + last * channels_, 0.0f);
      for (size_t tile = 0; tile < s_.tiles.size(); ++tile)
        add_tile(tile, bucket, d_splats, d_values);
      for (int64_t i = first; i < last; ++i) {
        float m[kMoments], a, b, c, opacity;
        memcpy(m, d_splats + i * kMoments, sizeof m);
        // Nothing touched it: what `splat` tells of it may be anything.
        if (std::all_of(m, m + kMoments, [](float v) { return v == 0.0f; })) continue;
        splat(i, &a, &b, &c, &opacity);
        splat_gradient(m, a, b, c, opacity, d_splats + i * kMoments);
      }
    });
  }

 private:
  Scratch& s_;
  int64_t n_;
  int channels_, stride_, shift_ = 0, buckets_ = 0;

  void add_tile(size_t tile, int bucket, float* d_splats, float* d_values) const {
    const TileRows& t = s_.tiles[tile];
    const RowStore& store = s_.stores[t.thread];
    const int32_t* order = s_.orders[t.thread].data() + t.begin;
    const int32_t* ends = &s_.bucket_ends[tile * buckets_];
    for (int32_t i = bucket ? ends[bucket - 1] : 0; i < ends[bucket]; ++i) {
      const size_t row = t.begin + size_t(order[i]), id = size_t(store.id(row));
      const float* v = store.row(row);
      for (int c = 0; c < kMoments; ++c) d_splats[id * kMoments + c] += v[c];
      for (int c = 0; c < channels_; ++c) d_values[id * channels_ + c] += v[kMoments + c];
    }
  }
};

}  // namespace gs
