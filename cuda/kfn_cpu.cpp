// The gate of the K-Buffers fusion network on the CPU, forward and backward.
//
// Of every pixel with layers x [K, F]:
//   hidden = relu(mix x + mix_bias)               [16]
//   gates  = 2 sigmoid(gate hidden + gate_bias)   [K]
//   fused  = sum over k of gates[k] x[k]          [F]
// In torch each of these lines walks through all layers of the picture in memory; here they are
// read once, four pixels at a time so that every weight that is loaded serves four times. Results
// are the same bits on every instruction set and for any number of threads.
#include <algorithm>
#include <cstring>

#include "gs_core.h"
#include "kb_host.h"
#include "simd.h"

using namespace kb;
using simd::Float16;

// Mirrored field by field in render/nets/gate_native.py.
struct KfnGate {
  const float* mix;        // [16, most_layers * features]
  const float* mix_bias;   // [16]
  const float* gate;       // [most_layers, 16]
  const float* gate_bias;  // [most_layers]
  int32_t most_layers;     // K that the network was made for
  int32_t features;        // F
};

// `rows` rows of `columns` pixels; a row begins `row_stride` pixels behind the one before.
struct KfnPixels {
  const float* layers;  // [.., layers_given, features]
  int64_t rows, columns, row_stride;
  int32_t layers_given;  // the rest of most_layers counts as empty
  int32_t threads;
};

namespace {

constexpr int WIDTH = 16;  // of the hidden layer: one Float16
constexpr int AT_ONCE = 4;
constexpr int MOST_LAYERS = 64;
constexpr int MOST_INPUTS = 1024;  // layers times features
constexpr int64_t BLOCK = 2048;    // pixels whose weight gradients are summed together

constexpr int whole16(int n) { return (n + 15) / 16 * 16; }

// 2 sigmoid(x), sixteen at a time; from the tail of -|x|, which keeps its digits.
inline Float16 twice_sigmoid(Float16 x) {
  const Float16 zero = Float16::all(0.0f), one = Float16::all(1.0f), two = Float16::all(2.0f);
  const Float16 e = gs::exp_of(simd::min(x, zero - x));
  const Float16 tail = two * e / (one + e);
  return simd::select(simd::less(x, zero), tail, two - tail);
}

// The network's weights as the loops below want them, for the layers that are given.
struct Weights {
  int layers, features, inputs;         // inputs = layers * features
  int padded_inputs, padded_layers;     // to whole Float16
  std::vector<float> mix, mix_rows;     // [inputs, 16] and [16, padded_inputs]
  std::vector<float> gate, gate_rows;   // [16, padded_layers] and [layers, 16]
  std::vector<float> mix_bias, gate_bias;  // [16], [padded_layers]
  std::vector<float> nothing;           // [inputs] zeros: a pixel to fill groups with

  Weights(const KfnGate& net, int given)
      : layers(given),
        features(net.features),
        inputs(given * features),
        padded_inputs(whole16(inputs)),
        padded_layers(whole16(given)),
        mix(size_t(inputs) * WIDTH),
        mix_rows(size_t(padded_inputs) * WIDTH),
        gate(size_t(padded_layers) * WIDTH),
        gate_rows(net.gate, net.gate + size_t(given) * WIDTH),
        mix_bias(net.mix_bias, net.mix_bias + WIDTH),
        gate_bias(size_t(padded_layers)),
        nothing(size_t(inputs)) {
    const size_t all = size_t(net.most_layers) * size_t(features);
    for (int j = 0; j < WIDTH; ++j) {
      const float* row = net.mix + j * all;
      std::copy(row, row + inputs, &mix_rows[size_t(j) * padded_inputs]);
      for (int i = 0; i < inputs; ++i) mix[size_t(i) * WIDTH + j] = row[i];
      for (int k = 0; k < given; ++k) {
        gate[size_t(j) * padded_layers + k] = net.gate[size_t(k) * WIDTH + j];
      }
    }
    std::copy(net.gate_bias, net.gate_bias + given, gate_bias.begin());
  }
};

// Up to four pixels that are not empty. Places that are not taken hold an empty pixel.
struct Group {
  const float* x[AT_ONCE];
  int64_t pixel[AT_ONCE];
  int count = 0;

  void add(int64_t p, const float* layers) {
    pixel[count] = p;
    x[count++] = layers;
  }
};

// What the network makes of a group.
struct Values {
  alignas(64) float hidden[AT_ONCE][WIDTH];
  alignas(64) float gates[AT_ONCE][MOST_LAYERS];
};

// Empty pixels have zeros only: they fuse to zero, and no weight sees a gradient of theirs.
inline bool empty(const float* x, int n) {
  uint32_t any = 0;
  for (int i = 0; i < n; ++i) {
    uint32_t bits;
    memcpy(&bits, x + i, 4);
    any |= bits << 1;  // -0 is 0
  }
  return any == 0;
}

void evaluate(const Weights& net, const Group& group, Values& out) {
  const float *x0 = group.x[0], *x1 = group.x[1], *x2 = group.x[2], *x3 = group.x[3];
  Float16 h0 = Float16::load(net.mix_bias.data()), h1 = h0, h2 = h0, h3 = h0;
  const float* weight = net.mix.data();
  for (int i = 0; i < net.inputs; ++i, weight += WIDTH) {
    const Float16 w = Float16::load(weight);
    h0 = h0 + w * Float16::all(x0[i]);
    h1 = h1 + w * Float16::all(x1[i]);
    h2 = h2 + w * Float16::all(x2[i]);
    h3 = h3 + w * Float16::all(x3[i]);
  }
  const Float16 zero = Float16::all(0.0f);
  simd::max(h0, zero).store(out.hidden[0]);
  simd::max(h1, zero).store(out.hidden[1]);
  simd::max(h2, zero).store(out.hidden[2]);
  simd::max(h3, zero).store(out.hidden[3]);
  for (int k = 0; k < net.padded_layers; k += 16) {
    Float16 g0 = Float16::load(&net.gate_bias[size_t(k)]), g1 = g0, g2 = g0, g3 = g0;
    const float* column = net.gate.data() + k;
    for (int j = 0; j < WIDTH; ++j, column += net.padded_layers) {
      const Float16 w = Float16::load(column);
      g0 = g0 + w * Float16::all(out.hidden[0][j]);
      g1 = g1 + w * Float16::all(out.hidden[1][j]);
      g2 = g2 + w * Float16::all(out.hidden[2][j]);
      g3 = g3 + w * Float16::all(out.hidden[3][j]);
    }
    twice_sigmoid(g0).store(out.gates[0] + k);
    twice_sigmoid(g1).store(out.gates[1] + k);
    twice_sigmoid(g2).store(out.gates[2] + k);
    twice_sigmoid(g3).store(out.gates[3] + k);
  }
}

// Calls on_empty(pixel) and on_group(group) so that each pixel of [begin, end) is in one of them.
template <class E, class G>
void each_group(const KfnPixels& in, const Weights& net, int64_t begin, int64_t end,
                const E& on_empty, const G& on_group) {
  Group group;
  auto flush = [&] {
    const int count = group.count;
    while (group.count < AT_ONCE) group.add(-1, net.nothing.data());
    group.count = count;
    if (count) on_group(group);
    group.count = 0;
  };
  int64_t column = begin % in.columns;
  const float* x = in.layers + (begin / in.columns * in.row_stride + column) * net.inputs;
  for (int64_t p = begin; p < end; ++p, x += net.inputs) {
    if (empty(x, net.inputs)) {
      on_empty(p);
    } else {
      group.add(p, x);
      if (group.count == AT_ONCE) flush();
    }
    if (++column == in.columns) {
      column = 0;
      x += (in.row_stride - in.columns) * net.inputs;
    }
  }
  flush();
}

// FEATURES = 0: known at run time only. The common number lets the compiler use whole registers.
template <int FEATURES>
void fuse(const Weights& net, const float* x, const float* gates, float* out) {
  const int F = FEATURES ? FEATURES : net.features;
  std::fill(out, out + F, 0.0f);
  for (int k = 0; k < net.layers; ++k, x += F) {
    for (int f = 0; f < F; ++f) out[f] += gates[k] * x[f];
  }
}

// Gradients of the weights, summed over a block of pixels.
struct WeightGradients {
  std::vector<float> mix;   // [inputs, 16]
  std::vector<float> gate;  // [layers, 16]
  float mix_bias[WIDTH] = {};
  float gate_bias[MOST_LAYERS] = {};

  explicit WeightGradients(const Weights& net)
      : mix(size_t(net.inputs) * WIDTH), gate(size_t(net.layers) * WIDTH) {}
};

// The gate's part of the backward pass of one pixel: sets d_hidden and the direct share of
// d_layers [padded_inputs].
template <int FEATURES>
void gate_backward(const Weights& net, const float* x, const float* hidden, const float* gates,
                   const float* d_fused, float* d_layers, float* d_hidden, WeightGradients& sum) {
  const int F = FEATURES ? FEATURES : net.features;
  Float16 towards_hidden = Float16::all(0.0f);
  for (int k = 0; k < net.layers; ++k) {
    float d_gate = 0.0f;
    for (int f = 0; f < F; ++f) {
      d_gate += d_fused[f] * x[k * F + f];
      d_layers[k * F + f] = d_fused[f] * gates[k];
    }
    const float d_logit = d_gate * gates[k] * (1.0f - 0.5f * gates[k]);  // gate = 2 sigmoid
    const Float16 d = Float16::all(d_logit);
    float* d_weight = &sum.gate[size_t(k) * WIDTH];
    (Float16::load(d_weight) + d * Float16::load(hidden)).store(d_weight);
    towards_hidden = towards_hidden + d * Float16::load(&net.gate_rows[size_t(k) * WIDTH]);
    sum.gate_bias[k] += d_logit;
  }
  const Float16 h = Float16::load(hidden);
  simd::where(simd::less(Float16::all(0.0f), h), towards_hidden).store(d_hidden);
}

// Backward of a group. `d_x` is scratch [4, padded_inputs]; places that are not taken add zero.
template <int FEATURES>
void backward_group(const Weights& net, const Group& group, const float* d_fused, float* d_layers,
                    float* d_x, WeightGradients& sum) {
  Values values;
  evaluate(net, group, values);
  alignas(64) float d_hidden[AT_ONCE][WIDTH] = {};
  for (int n = 0; n < group.count; ++n) {
    gate_backward<FEATURES>(net, group.x[n], values.hidden[n], values.gates[n],
                            d_fused + group.pixel[n] * net.features, d_x + n * net.padded_inputs,
                            d_hidden[n], sum);
  }
  const Float16 d0 = Float16::load(d_hidden[0]), d1 = Float16::load(d_hidden[1]);
  const Float16 d2 = Float16::load(d_hidden[2]), d3 = Float16::load(d_hidden[3]);
  (Float16::load(sum.mix_bias) + (d0 + d1) + (d2 + d3)).store(sum.mix_bias);
  const float *x0 = group.x[0], *x1 = group.x[1], *x2 = group.x[2], *x3 = group.x[3];
  float* d_mix = sum.mix.data();
  for (int i = 0; i < net.inputs; ++i, d_mix += WIDTH) {
    const Float16 first = d0 * Float16::all(x0[i]) + d1 * Float16::all(x1[i]);
    const Float16 second = d2 * Float16::all(x2[i]) + d3 * Float16::all(x3[i]);
    (Float16::load(d_mix) + (first + second)).store(d_mix);
  }
  for (int n = 0; n < group.count; ++n) {
    float* d = d_x + n * net.padded_inputs;
    for (int i = 0; i < net.padded_inputs; i += 16) {
      Float16 total = Float16::load(d + i);
      const float* row = net.mix_rows.data() + i;
      for (int j = 0; j < WIDTH; ++j, row += net.padded_inputs) {
        total = total + Float16::load(row) * Float16::all(d_hidden[n][j]);
      }
      total.store(d + i);
    }
    std::copy(d, d + net.inputs, d_layers + group.pixel[n] * net.inputs);
  }
}

bool valid(const KfnGate& net, const KfnPixels& pixels) {
  return net.features >= 1 && net.most_layers >= 1 && net.most_layers <= MOST_LAYERS &&
         net.most_layers * net.features <= MOST_INPUTS && pixels.layers_given >= 1 &&
         pixels.layers_given <= net.most_layers && pixels.rows >= 1 && pixels.columns >= 1 &&
         pixels.row_stride >= pixels.columns && pixels.threads >= 1;
}

template <int FEATURES>
Status forward(const Weights& net, const KfnPixels& in, float* fused) {
  return parallel(in.threads, [&](int t) {
    const Range mine = share(in.rows * in.columns, in.threads, t);
    Values values;
    each_group(
        in, net, mine.begin, mine.end,
        [&](int64_t p) { std::fill_n(fused + p * net.features, net.features, 0.0f); },
        [&](const Group& group) {
          evaluate(net, group, values);
          for (int n = 0; n < group.count; ++n) {
            float* out = fused + group.pixel[n] * net.features;
            fuse<FEATURES>(net, group.x[n], values.gates[n], out);
          }
        });
  });
}

template <int FEATURES>
Status backward(const Weights& net, const KfnPixels& in, const float* d_fused, float* d_layers,
                std::vector<WeightGradients>& blocks) {
  // The gates of every empty pixel; only they play a part there.
  Values of_empty;
  Group nothing;
  while (nothing.count < AT_ONCE) nothing.add(-1, net.nothing.data());
  evaluate(net, nothing, of_empty);
  const float* gates = of_empty.gates[0];
  return parallel(in.threads, [&](int t) {
    const Range mine = share(int64_t(blocks.size()), in.threads, t);
    std::vector<float> scratch(size_t(AT_ONCE) * net.padded_inputs);
    for (int64_t b = mine.begin; b < mine.end; ++b) {
      each_group(
          in, net, b * BLOCK, std::min(in.rows * in.columns, (b + 1) * BLOCK),
          [&](int64_t p) {
            float* d = d_layers + p * net.inputs;
            const float* d_out = d_fused + p * net.features;
            for (int k = 0; k < net.layers; ++k) {
              for (int f = 0; f < net.features; ++f) *d++ = d_out[f] * gates[k];
            }
          },
          [&](const Group& group) {
            WeightGradients& sum = blocks[size_t(b)];
            backward_group<FEATURES>(net, group, d_fused, d_layers, scratch.data(), sum);
          });
    }
  });
}

}  // namespace

// Sets fused [rows * columns, F]; 0 or a Status.
KB_EXPORT int kfn_gate_forward(const KfnGate* net, const KfnPixels* pixels, float* fused) {
  if (!valid(*net, *pixels)) return BAD_ARGUMENT;
  return guarded([&] {
    const Weights weights(*net, pixels->layers_given);
    const auto run = net->features == 4 ? forward<4> : forward<0>;
    return run(weights, *pixels, fused);
  });
}

// Sets d_layers [rows * columns, layers_given, F] and the gradients of the four weights; those of
// layers that were not given are zero.
KB_EXPORT int kfn_gate_backward(const KfnGate* net, const KfnPixels* pixels, const float* d_fused,
                                float* d_layers, float* d_mix, float* d_mix_bias, float* d_gate,
                                float* d_gate_bias) {
  if (!valid(*net, *pixels)) return BAD_ARGUMENT;
  return guarded([&] {
    const Weights weights(*net, pixels->layers_given);
    const size_t count = size_t((pixels->rows * pixels->columns + BLOCK - 1) / BLOCK);
    std::vector<WeightGradients> blocks(count, WeightGradients{weights});
    const auto run = net->features == 4 ? backward<4> : backward<0>;
    const Status status = run(weights, *pixels, d_fused, d_layers, blocks);
    if (status != OK) return status;
    const size_t all = size_t(net->most_layers) * size_t(net->features);
    std::fill_n(d_mix, all * WIDTH, 0.0f);
    std::fill_n(d_mix_bias, WIDTH, 0.0f);
    std::fill_n(d_gate, size_t(net->most_layers) * WIDTH, 0.0f);
    std::fill_n(d_gate_bias, net->most_layers, 0.0f);
    for (const WeightGradients& sum : blocks) {  // in this order, whoever summed them
      for (int j = 0; j < WIDTH; ++j) d_mix_bias[j] += sum.mix_bias[j];
      for (int k = 0; k < weights.layers; ++k) d_gate_bias[k] += sum.gate_bias[k];
      for (size_t i = 0; i < sum.gate.size(); ++i) d_gate[i] += sum.gate[i];
      for (int j = 0; j < WIDTH; ++j) {
        for (int i = 0; i < weights.inputs; ++i) {
          d_mix[j * all + size_t(i)] += sum.mix[size_t(i) * WIDTH + j];
        }
      }
    }
    return OK;
  });
}
