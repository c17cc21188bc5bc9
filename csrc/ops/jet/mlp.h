// Value, directional derivatives and collapsed second order of a multilayer perceptron, and their backward:
// the CPU kernel of mlp_jet. Points go through all layers in tiles that stay in the cache; the backward
// recomputes a tile's activations. Every result is the same for any number of threads.
#pragma once

#include <cstdint>

#include "rubriscope/ops/jet/activation.h"
#include "rubriscope/ops/parallel.h"

namespace rubriscope::ops {

/// A network and the derivatives asked of it.
template <class T>
struct MlpJet {
  std::int64_t layers;         ///< at least 1
  const std::int64_t* widths;  ///< layers + 1: inputs, hidden layers, outputs
  const T* parameters;         ///< weight (out, in) and bias (out) of each layer, one after the other
  Activation activation;       ///< between the layers
  std::int64_t directions;
  const T* direction;          ///< directions × inputs
  const std::int64_t* orders;  ///< derivatives along each direction: 1 … kMaxOrder
  const double* collapse;      ///< null, or a weight per direction: one more channel, Σ weight D² + D_drift
  const double* drift;         ///< inputs; null where there is no collapsed channel
};

/// 1 + Σ orders + (1 where collapsed).
template <class T>
std::int64_t jet_channels(const MlpJet<T>& jet);

template <class T>
std::int64_t parameter_count(const MlpJet<T>& jet);

/// x: points × inputs; out: channels × points × outputs. Channels: the value, then each direction's
/// derivatives by rising order, then the collapsed one.
template <class T>
void mlp_jet(const MlpJet<T>& jet, std::int64_t points, const T* x, T* out, const Parallel& parallel);

/// out_bar: cotangents of `out`. x_bar (points × inputs) may be null; parameters_bar is laid out as the
/// parameters. Sums over points are taken in fixed pieces, and those added in order in float64.
template <class T>
void mlp_jet_backward(const MlpJet<T>& jet, std::int64_t points, const T* x, const T* out_bar, T* x_bar,
                      T* parameters_bar, const Parallel& parallel);

}  // namespace rubriscope::ops
