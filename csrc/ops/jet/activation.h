// Activations of a multilayer perceptron: their derivatives, and how a jet (a value and its derivatives along
// directions) passes through them, forwards and backwards. T is float or double, or a vector of them.
//
// Formulas: Faà di Bruno's for derivatives along a line; the collapsed second order is that of the forward
// Laplacian (R. Li et al., Nature Machine Intelligence 6, 2024), with a drift.
#pragma once

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

enum class Activation { tanh, silu, sin, gelu };

/// The highest order of a derivative along a direction.
constexpr int kMaxOrder = 4;

/// d[0] … d[n]: the activation and its derivatives at one point, n = kMaxOrder + 1 for an adjoint.
template <class T>
struct ActivationJet {
  T d[kMaxOrder + 2];
};

/// From t = tanh(z).
template <class T>
RUBRISCOPE_HD ActivationJet<T> tanh_jet(T t) {
  const T q = t * t;
  const T s = T{} + 1 - q;
  ActivationJet<T> jet;
  jet.d[0] = t;
  jet.d[1] = s;
  jet.d[2] = t * s * -2;
  jet.d[3] = s * (q * 6 - 2);
  jet.d[4] = t * s * (q * -24 + 16);
  jet.d[5] = s * (q * (q * 120 - 120) + 16);
  return jet;
}

/// From z and the logistic function of z; silu⁽ⁿ⁾ = z σ⁽ⁿ⁾ + n σ⁽ⁿ⁻¹⁾.
template <class T>
RUBRISCOPE_HD ActivationJet<T> silu_jet(T z, T logistic) {
  const T q = logistic * (T{} + 1 - logistic);
  const T odd = T{} + 1 - logistic * 2;
  const T second = q * odd, third = q * (T{} + 1 - q * 6), fourth = q * odd * (T{} + 1 - q * 12);
  const T fifth = q * (q * (q * 120 - 30) + 1);
  ActivationJet<T> jet;
  jet.d[0] = z * logistic;
  jet.d[1] = z * q + logistic;
  jet.d[2] = z * second + q * 2;
  jet.d[3] = z * third + second * 3;
  jet.d[4] = z * fourth + third * 4;
  jet.d[5] = z * fifth + fourth * 5;
  return jet;
}

/// From sin z and cos z.
template <class T>
RUBRISCOPE_HD ActivationJet<T> sin_jet(T sine, T cosine) {
  ActivationJet<T> jet;
  jet.d[0] = sine;
  jet.d[1] = cosine;
  jet.d[2] = -sine;
  jet.d[3] = -cosine;
  jet.d[4] = sine;
  jet.d[5] = cosine;
  return jet;
}

/// From z, the normal distribution function and the normal density at z: gelu(z) = z Φ(z).
template <class T>
RUBRISCOPE_HD ActivationJet<T> gelu_jet(T z, T distribution, T density) {
  const T q = z * z;
  ActivationJet<T> jet;
  jet.d[0] = z * distribution;
  jet.d[1] = z * density + distribution;
  jet.d[2] = density * (T{} + 2 - q);
  jet.d[3] = density * z * (q - 4);
  jet.d[4] = density * (q * (T{} + 7 - q) - 4);
  jet.d[5] = density * z * (q * (q - 11) + 18);
  return jet;
}

/// The derivatives of order 1 … `order` of f(z(s)) from those of z, in place.
template <class T>
RUBRISCOPE_HD void line_forward(const ActivationJet<T>& f, int order, T* z) {
  const T* const d = f.d;
  const T z1 = z[0], square = z1 * z1;
  if (order >= 4) {
    z[3] = d[1] * z[3] + d[2] * (z1 * z[2] * 4 + z[1] * z[1] * 3) + d[3] * square * z[1] * 6 +
           d[4] * square * square;
  }
  if (order >= 3) z[2] = d[1] * z[2] + d[2] * z1 * z[1] * 3 + d[3] * square * z1;
  if (order >= 2) z[1] = d[1] * z[1] + d[2] * square;
  z[0] = d[1] * z1;
}

/// The adjoint: `bar` holds the cotangents of the results and gets those of z; returns what the value's
/// cotangent gains.
template <class T>
RUBRISCOPE_HD T line_adjoint(const ActivationJet<T>& f, int order, const T* z, T* bar) {
  const T* const d = f.d;
  const T z1 = z[0], square = z1 * z1;
  T gained = bar[0] * d[2] * z1;
  T first = bar[0] * d[1];
  if (order >= 2) {
    gained += bar[1] * (d[2] * z[1] + d[3] * square);
    first += bar[1] * d[2] * z1 * 2;
    T second = bar[1] * d[1];
    if (order >= 3) {
      gained += bar[2] * (d[2] * z[2] + d[3] * z1 * z[1] * 3 + d[4] * square * z1);
      first += bar[2] * (d[2] * z[1] + d[3] * square) * 3;
      second += bar[2] * d[2] * z1 * 3;
      T third = bar[2] * d[1];
      if (order >= 4) {
        gained += bar[3] * (d[2] * z[3] + d[3] * (z1 * z[2] * 4 + z[1] * z[1] * 3) +
                            d[4] * square * z[1] * 6 + d[5] * square * square);
        first += bar[3] * (d[2] * z[2] * 4 + d[3] * z1 * z[1] * 12 + d[4] * square * z1 * 4);
        second += bar[3] * (d[2] * z[1] + d[3] * square) * 6;
        third += bar[3] * d[2] * z1 * 4;
        bar[3] = bar[3] * d[1];
      }
      bar[2] = third;
    }
    bar[1] = second;
  }
  bar[0] = first;
  return gained;
}

}  // namespace rubriscope::ops
