// What a network kernel does with one tile of points, per instruction set (tile.simd.cpp). A tile holds
// points × channels rows of one layer's units, units side by side; every layer is one product of all rows
// with the layer's weights, then one pass of the activation over each point's channels.
#pragma once

#include <cstdint>

#include "rubriscope/ops/isa.h"
#include "rubriscope/ops/jet/activation.h"

namespace rubriscope::ops {

/// The channels of a jet: the value; for each direction its derivatives of order 1 … orders[k]; and, where
/// collapsed, Σ weights[k] D²ₖ + D_drift as one.
struct JetChannels {
  std::int64_t channels;
  std::int64_t directions;
  const std::int64_t* orders;
  const std::int64_t* first;  ///< each direction's first channel
  const double* weights;      ///< null: not collapsed; the collapsed channel is the last one
  bool high;                  ///< some order is above 2
};

/// A layer's weights and bias as the tile kernels want them; widths are padded to 64 bytes with zeros.
template <class T>
struct PackedLayer {
  std::int64_t in, out, in_padded, out_padded;
  const T* weight;    ///< as given, (out, in)
  const T* forward;   ///< in × out_padded, in panels
  const T* backward;  ///< out × in_padded, in panels; null where no backward is made
  const T* bias;      ///< out_padded
};

template <class T>
struct PackedNetwork {
  std::int64_t layers;
  const PackedLayer<T>* layer;
  Activation activation;
  JetChannels jet;
};

/// Where a piece's gradient of one layer is summed. The shorter side is the outer one.
template <class T>
struct LayerGradient {
  T* weight;        ///< transposed ? in × out_padded : out × in_padded
  bool transposed;  ///< which of the two
  T* bias;          ///< out_padded
};

// clang-format off
RUBRISCOPE_DECLARE_ISA(
  // weights (out, in) into panels: columns are the outputs of a layer (forward) or its inputs (backward).
  void jet_pack(const float* weight, std::int64_t out, std::int64_t in, bool backward, float* packed);
  void jet_pack(const double* weight, std::int64_t out, std::int64_t in, bool backward, double* packed);

  // input: points × channels × in_padded of layer 0. Leaves the last layer's rows (bias added) in one of the
  // two buffers, each points × channels × the widest padded width, and returns it.
  const float* jet_tile_forward(const PackedNetwork<float>& net, std::int64_t points, const float* input,
                                float* even, float* odd);
  const double* jet_tile_forward(const PackedNetwork<double>& net, std::int64_t points, const double* input,
                                 double* even, double* odd);

  // bar: two buffers as above; the first holds the last layer's cotangents (padding zero). kept[2 l] and
  // kept[2 l + 1] take layer l's pre-activations and activations. Adds to gradient[l]; input_bar, if not null,
  // gets points × in_padded cotangents of the input's value.
  void jet_tile_backward(const PackedNetwork<float>& net, std::int64_t points, const float* input,
                         float* const* kept, float* bar, float* bar_other,
                         const LayerGradient<float>* gradient, float* input_bar);
  void jet_tile_backward(const PackedNetwork<double>& net, std::int64_t points, const double* input,
                         double* const* kept, double* bar, double* bar_other,
                         const LayerGradient<double>* gradient, double* input_bar);
)
// clang-format on

}  // namespace rubriscope::ops
