// The K heaviest contributions of every pixel of a tile, found on the way from front to back.
#pragma once
#include "gs_tiles.h"

namespace gs {

// Slots lie block by block, [K, 16 pixels] each, so that all pixels of a block are looked at at
// once. A slot holds a weight and the tag of a position in the tile's list; empty ones weigh 0.
// A block is `filling` while none of its pixels has K contributions: new ones simply take the next
// slot. From then on each pixel knows its lightest slot, which is the one to give up.
class Keeper {
 public:
  void begin(int layers) {
    k_ = layers;
    const size_t slots = size_t(kPixels) * layers;
    if (weights_.size() < slots) {
      weights_.resize(slots);
      tags_.resize(slots);
    }
    used_ = filling_ = 0;
  }

  bool used(int block) const { return used_ >> block & 1; }
  const float* weights(int block) const { return &weights_[size_t(block) * kLanes * k_]; }
  const float* tags(int block) const { return &tags_[size_t(block) * kLanes * k_]; }

  // Takes what is heavier than the pixel's lightest; of equal ones the farther one goes.
  void add(int block, const Float16& w, int32_t position) {
    float* threshold = threshold_ + block * kLanes;
    const uint32_t bit = 1u << block;
    if (!(used_ & bit)) open(block);
    const auto heavy = less(Float16::load(threshold), w);
    const uint32_t lanes = heavy.bits();
    if (!lanes) return;
    if (!(filling_ & bit)) {
      replace(block, heavy, w, tag_of(position));
      return;
    }
    float weight[kLanes];
    w.store(weight);
    float* weights = &weights_[size_t(block) * kLanes * k_];
    float* tags = &tags_[size_t(block) * kLanes * k_];
    bool full = false;
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
      const int lane = lowest_bit(rest);
      const int slot = filled_[block * kLanes + lane]++;
      weights[slot * kLanes + lane] = weight[lane];
      tags[slot * kLanes + lane] = tag_of(position);
      full |= slot + 1 == k_;
    }
    if (!full) return;
    filling_ &= ~bit;
    replace(block, less(w, w), w, 0.0f);
  }

  // Slots of a used block in order of their position, empty ones last.
  void sort(int block) {
    if (filling_ >> block & 1) return;  // they came in order
    float* weights = &weights_[size_t(block) * kLanes * k_];
    float* tags = &tags_[size_t(block) * kLanes * k_];
    // Batcher's merge exchange (Knuth, TAOCP 3, 5.2.2 M): the same for all pixels.
    int top = 1;
    while (2 * top < k_) top *= 2;
    for (int p = top; p > 0; p /= 2) {
      for (int q = top, r = 0, d = p;; d = q - p, q /= 2, r = p) {
        for (int i = 0; i + d < k_; ++i)
          if ((i & p) == r) exchange(weights + i * kLanes, tags + i * kLanes, d * kLanes);
        if (q == p) break;
      }
    }
  }

 private:
  int k_ = 0;
  uint32_t used_ = 0, filling_ = 0;  // a bit for each block
  alignas(64) float threshold_[kPixels];  // weight of the lightest slot
  alignas(64) float lightest_[kPixels];   // its number
  int32_t filled_[kPixels];               // slots taken, while filling
  std::vector<float> weights_, tags_;

  void open(int block) {
    used_ |= 1u << block;
    filling_ |= 1u << block;
    const size_t first = size_t(block) * kLanes, slots = size_t(kLanes) * k_;
    float empty;
    memcpy(&empty, &kNoTag, 4);
    std::fill(threshold_ + first, threshold_ + first + kLanes, 0.0f);
    std::fill(filled_ + first, filled_ + first + kLanes, 0);
    std::fill(&weights_[first * k_], &weights_[first * k_] + slots, 0.0f);
    std::fill(&tags_[first * k_], &tags_[first * k_] + slots, empty);
  }

  // Puts (w, tag) into the lightest slots of the pixels in `heavy`, then finds the lightest again.
  template <class Mask>
  void replace(int block, const Mask& heavy, const Float16& w, float tag) {
    if (k_ == kUsualLayers)
      replace_in<kUsualLayers>(block, heavy, w, tag);
    else
      replace_in<0>(block, heavy, w, tag);
  }
  template <int kLayers, class Mask>
  void replace_in(int block, const Mask& heavy, const Float16& w, float tag) {
    const int k = kLayers ? kLayers : k_;
    float* weights = &weights_[size_t(block) * kLanes * k_];
    float* tags = &tags_[size_t(block) * kLanes * k_];
    const Float16 goes = select(heavy, Float16::load(lightest_ + block * kLanes), -1.0f);
    Float16 least = 8.0f, farthest = 0.0f, slot = 0.0f;
    for (int i = 0; i < k; ++i, weights += kLanes, tags += kLanes) {
      const auto here = equal(goes, float(i));
      const Float16 v = select(here, w, Float16::load(weights));
      const Float16 t = select(here, tag, Float16::load(tags));
      v.store(weights);
      t.store(tags);
      const auto lighter = less(v, least) | (equal(v, least) & less(farthest, t));
      least = select(lighter, v, least);
      farthest = select(lighter, t, farthest);
      slot = select(lighter, float(i), slot);
    }
    least.store(threshold_ + block * kLanes);
    slot.store(lightest_ + block * kLanes);
  }

  static void exchange(float* weight, float* tag, int apart) {
    const Float16 a = Float16::load(tag), b = Float16::load(tag + apart);
    const auto swap = less(b, a);
    select(swap, b, a).store(tag);
    select(swap, a, b).store(tag + apart);
    const Float16 v = Float16::load(weight), w = Float16::load(weight + apart);
    select(swap, w, v).store(weight);
    select(swap, v, w).store(weight + apart);
  }
};

}  // namespace gs
