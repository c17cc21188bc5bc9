#include <type_traits>

#include "rubriscope/ops/jet/tile.h"

namespace rubriscope::ops::RUBRISCOPE_ISA {

namespace {

#include "rubriscope/ops/jet/vector_math.h"

// The accumulators of a block of the product: rows × vectors, most of the register file.
constexpr int kRows = 6;
#if defined(__AVX512F__)
constexpr int kVectors = 4;
#else
constexpr int kVectors = 2;
#endif

template <class T>
constexpr std::int64_t panel_width() {
  return kVectors * Register<T>::lanes;
}

/// c (R rows, N vectors) = or += Σ_k a[r, k] b[k]: `a` and `b` by strides, so that it serves a layer, its
/// transpose and a weight's gradient.
template <class T, int R, int N, bool add>
RUBRISCOPE_HD void block(std::int64_t depth, const T* a, std::int64_t a_row, std::int64_t a_step, const T* b,
                         std::int64_t b_step, T* c, std::int64_t c_row) {
  constexpr int L = Register<T>::lanes;
  Vector<T> sum[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sum[r][n] = add ? load(c + r * c_row + n * L) : Vector<T>{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    Vector<T> right[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) right[n] = load(b + n * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vector<T> left = splat(a[r * a_row]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[r][n] += left * right[n];
    }
    a += a_step;
    b += b_step;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(c + r * c_row + n * L, sum[r][n]);
  }
}

template <class T, int N, bool add>
void strip(std::int64_t rows, std::int64_t depth, const T* a, std::int64_t a_row, std::int64_t a_step,
           const T* b, std::int64_t b_step, T* c, std::int64_t c_row) {
  std::int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    block<T, kRows, N, add>(depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row);
  }
  if (r + 4 <= rows) {
    block<T, 4, N, add>(depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row);
    r += 4;
  }
  if (r + 2 <= rows) {
    block<T, 2, N, add>(depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row);
    r += 2;
  }
  if (r < rows) block<T, 1, N, add>(depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row);
}

/// c (rows × columns) = or += a b. Columns are a multiple of a register; b lies in panels where b_row is 0,
/// in rows b_row apart elsewhere.
template <class T, bool add>
void multiply(std::int64_t rows, std::int64_t depth, std::int64_t columns, const T* a, std::int64_t a_row,
              std::int64_t a_step, const T* b, std::int64_t b_row, T* c, std::int64_t c_row) {
  constexpr int L = Register<T>::lanes;
  for (std::int64_t column = 0; column < columns; column += panel_width<T>()) {
    const std::int64_t left = (columns - column) / L;
    const int vectors = static_cast<int>(left < kVectors ? left : kVectors);
    const T* const panel = b_row == 0 ? b + depth * column : b + column;
    const std::int64_t step = b_row == 0 ? vectors * L : b_row;
    T* const to = c + column;
    switch (vectors) {
      case 1:
        strip<T, 1, add>(rows, depth, a, a_row, a_step, panel, step, to, c_row);
        break;
      case 2:
        strip<T, 2, add>(rows, depth, a, a_row, a_step, panel, step, to, c_row);
        break;
#if defined(__AVX512F__)
      case 3:
        strip<T, 3, add>(rows, depth, a, a_row, a_step, panel, step, to, c_row);
        break;
      default:
        strip<T, 4, add>(rows, depth, a, a_row, a_step, panel, step, to, c_row);
        break;
#endif
    }
  }
}

template <class T>
void pack(const T* weight, std::int64_t out, std::int64_t in, bool backward, T* packed) {
  constexpr int L = Register<T>::lanes;
  constexpr std::int64_t padding = 64 / sizeof(T);
  const std::int64_t depth = backward ? out : in, real = backward ? in : out;
  const std::int64_t columns = (real + padding - 1) / padding * padding;
  for (std::int64_t column = 0; column < columns; column += panel_width<T>()) {
    const std::int64_t rest = columns - column;
    const std::int64_t width = rest < panel_width<T>() ? rest / L * L : panel_width<T>();
    T* to = packed + depth * column;
    for (std::int64_t k = 0; k < depth; ++k) {
      for (std::int64_t n = 0; n < width; ++n, ++to) {
        const std::int64_t unit = column + n;
        *to = unit >= real ? T{0} : backward ? weight[k * in + unit] : weight[unit * in + k];
      }
    }
  }
}

/// The last layer where it has few outputs: a register's worth of columns would be mostly padding.
template <class T>
void dot_rows(std::int64_t rows, const PackedLayer<T>& layer, const T* a, T* c) {
  constexpr int L = Register<T>::lanes;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t o = 0; o < layer.out; ++o) {
      Vector<T> sum{};
      for (std::int64_t i = 0; i < layer.in; i += L) {
        sum += load(a + r * layer.in_padded + i) * load(layer.weight + o * layer.in + i);
      }
      T lanes[L];
      store(lanes, sum);
#pragma GCC unroll 4
      for (int half = L / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
      }
      c[r * layer.out_padded + o] = lanes[0];
    }
  }
}

template <class T>
void layer_product(std::int64_t rows, const PackedLayer<T>& layer, bool last, const T* a, T* c) {
  if (last && layer.out <= 4 && layer.in % Register<T>::lanes == 0) {
    dot_rows(rows, layer, a, c);
  } else {
    multiply<T, false>(rows, layer.in, layer.out_padded, a, layer.in_padded, 1, layer.forward, 0, c,
                       layer.out_padded);
  }
}

template <class T, Activation activation>
RUBRISCOPE_HD ActivationJet<Vector<T>> evaluate(Vector<T> z) {
  if constexpr (activation == Activation::tanh) {
    return tanh_jet(tanh_of<T>(z));
  } else if constexpr (activation == Activation::silu) {
    return silu_jet(z, logistic_of<T>(z));
  } else if constexpr (activation == Activation::sin) {
    Vector<T> sine, cosine;
    sine_cosine<T>(z, sine, cosine);
    return sin_jet(sine, cosine);
  } else {
    Vector<T> distribution, density;
    normal<T>(z, distribution, density);
    return gelu_jet(z, distribution, density);
  }
}

/// Pre-activations (without bias) to activations; where `keep`, the former get the bias and stay.
template <class T, Activation activation, bool high>
void activate(const JetChannels& jet, std::int64_t points, std::int64_t width, const T* bias, T* z, T* a,
              bool keep) {
  constexpr int L = Register<T>::lanes, most = high ? kMaxOrder : 2;
  for (std::int64_t p = 0; p < points; ++p, z += jet.channels * width, a += jet.channels * width) {
    for (std::int64_t u = 0; u < width; u += L) {
      const Vector<T> value = load(z + u) + load(bias + u);
      const ActivationJet<Vector<T>> f = evaluate<T, activation>(value);
      if (keep) store(z + u, value);
      store(a + u, f.d[0]);
      Vector<T> squares{};
      for (std::int64_t k = 0; k < jet.directions; ++k) {
        const int order = high ? static_cast<int>(jet.orders[k]) : jet.orders[k] > 1 ? 2 : 1;
        const std::int64_t at = jet.first[k] * width + u;
        Vector<T> line[kMaxOrder] = {};
#pragma GCC unroll 4
        for (int r = 0; r < most; ++r) {
          if (r < order) line[r] = load(z + at + r * width);
        }
        if (jet.weights != nullptr) squares += line[0] * line[0] * splat(static_cast<T>(jet.weights[k]));
        line_forward(f, order, line);
#pragma GCC unroll 4
        for (int r = 0; r < most; ++r) {
          if (r < order) store(a + at + r * width, line[r]);
        }
      }
      if (jet.weights != nullptr) {
        const std::int64_t at = (jet.channels - 1) * width + u;
        store(a + at, f.d[1] * load(z + at) + f.d[2] * squares);
      }
    }
  }
}

/// Cotangents of activations to those of pre-activations, in place.
template <class T, Activation activation, bool high>
void activate_adjoint(const JetChannels& jet, std::int64_t points, std::int64_t width, const T* z, const T* a,
                      T* bar) {
  constexpr int L = Register<T>::lanes, most = high ? kMaxOrder : 2;
  const std::int64_t stride = jet.channels * width;
  for (std::int64_t p = 0; p < points; ++p, z += stride, a += stride, bar += stride) {
    for (std::int64_t u = 0; u < width; u += L) {
      ActivationJet<Vector<T>> f;
      if constexpr (activation == Activation::tanh) {
        f = tanh_jet<Vector<T>>(load(a + u));
      } else {
        f = evaluate<T, activation>(load(z + u));
      }
      Vector<T> value_bar = load(bar + u) * f.d[1];
      Vector<T> pull{}, squares{};  // pull: what a direction's first derivative gets, but for its weight
      const std::int64_t last = (jet.channels - 1) * width + u;
      if (jet.weights != nullptr) pull = load(bar + last) * f.d[2] * 2;
      for (std::int64_t k = 0; k < jet.directions; ++k) {
        const int order = high ? static_cast<int>(jet.orders[k]) : jet.orders[k] > 1 ? 2 : 1;
        const std::int64_t at = jet.first[k] * width + u;
        Vector<T> line[kMaxOrder] = {}, line_bar[kMaxOrder] = {};
#pragma GCC unroll 4
        for (int r = 0; r < most; ++r) {
          if (r < order) {
            line[r] = load(z + at + r * width);
            line_bar[r] = load(bar + at + r * width);
          }
        }
        value_bar += line_adjoint(f, order, line, line_bar);
        if (jet.weights != nullptr) {
          const Vector<T> weighted = line[0] * splat(static_cast<T>(jet.weights[k]));
          squares += line[0] * weighted;
          line_bar[0] += pull * weighted;
        }
#pragma GCC unroll 4
        for (int r = 0; r < most; ++r) {
          if (r < order) store(bar + at + r * width, line_bar[r]);
        }
      }
      if (jet.weights != nullptr) {
        const Vector<T> collapsed_bar = load(bar + last);
        value_bar += collapsed_bar * (f.d[2] * load(z + last) + f.d[3] * squares);
        store(bar + last, collapsed_bar * f.d[1]);
      }
      store(bar + u, value_bar);
    }
  }
}

template <class T, bool high>
void activate_as(Activation activation, const JetChannels& jet, std::int64_t points, std::int64_t width,
                 const T* bias, T* z, T* a, bool keep) {
  switch (activation) {
    case Activation::tanh:
      return activate<T, Activation::tanh, high>(jet, points, width, bias, z, a, keep);
    case Activation::silu:
      return activate<T, Activation::silu, high>(jet, points, width, bias, z, a, keep);
    case Activation::sin:
      return activate<T, Activation::sin, high>(jet, points, width, bias, z, a, keep);
    case Activation::gelu:
      return activate<T, Activation::gelu, high>(jet, points, width, bias, z, a, keep);
  }
}

template <class T, bool high>
void adjoint_as(Activation activation, const JetChannels& jet, std::int64_t points, std::int64_t width,
                const T* z, const T* a, T* bar) {
  switch (activation) {
    case Activation::tanh:
      return activate_adjoint<T, Activation::tanh, high>(jet, points, width, z, a, bar);
    case Activation::silu:
      return activate_adjoint<T, Activation::silu, high>(jet, points, width, z, a, bar);
    case Activation::sin:
      return activate_adjoint<T, Activation::sin, high>(jet, points, width, z, a, bar);
    case Activation::gelu:
      return activate_adjoint<T, Activation::gelu, high>(jet, points, width, z, a, bar);
  }
}

template <class T>
void hidden(const PackedNetwork<T>& net, std::int64_t points, std::int64_t l, T* z, T* a, bool keep) {
  const PackedLayer<T>& layer = net.layer[l];
  if (net.jet.high) {
    activate_as<T, true>(net.activation, net.jet, points, layer.out_padded, layer.bias, z, a, keep);
  } else {
    activate_as<T, false>(net.activation, net.jet, points, layer.out_padded, layer.bias, z, a, keep);
  }
}

template <class T>
const T* tile_forward(const PackedNetwork<T>& net, std::int64_t points, const T* input, T* even, T* odd) {
  const std::int64_t rows = points * net.jet.channels;
  const T* from = input;
  T* to = even;
  for (std::int64_t l = 0; l < net.layers; ++l) {
    const PackedLayer<T>& layer = net.layer[l];
    const bool last = l + 1 == net.layers;
    layer_product(rows, layer, last, from, to);
    if (last) {
      for (std::int64_t p = 0; p < points; ++p) {
        T* const row = to + p * net.jet.channels * layer.out_padded;
        for (std::int64_t o = 0; o < layer.out; ++o) row[o] += layer.bias[o];
      }
      return to;
    }
    hidden(net, points, l, to, to, false);
    from = to;
    to = to == even ? odd : even;
  }
  return input;
}

/// gradient += barᵀ a over all rows; the bias's over the value rows.
template <class T>
void add_gradient(const JetChannels& jet, std::int64_t points, const PackedLayer<T>& layer, const T* a,
                  const T* bar, const LayerGradient<T>& gradient) {
  constexpr int L = Register<T>::lanes;
  const std::int64_t rows = points * jet.channels;
  if (gradient.transposed) {
    multiply<T, true>(layer.in, rows, layer.out_padded, a, 1, layer.in_padded, bar, layer.out_padded,
                      gradient.weight, layer.out_padded);
  } else {
    multiply<T, true>(layer.out, rows, layer.in_padded, bar, 1, layer.out_padded, a, layer.in_padded,
                      gradient.weight, layer.in_padded);
  }
  for (std::int64_t u = 0; u < layer.out_padded; u += L) {
    Vector<T> sum = load(gradient.bias + u);
    for (std::int64_t p = 0; p < points; ++p) sum += load(bar + p * jet.channels * layer.out_padded + u);
    store(gradient.bias + u, sum);
  }
}

template <class T>
void tile_backward(const PackedNetwork<T>& net, std::int64_t points, const T* input, T* const* kept, T* bar,
                   T* bar_other, const LayerGradient<T>* gradient, T* input_bar) {
  const JetChannels& jet = net.jet;
  const std::int64_t rows = points * jet.channels;
  const T* from = input;
  for (std::int64_t l = 0; l + 1 < net.layers; ++l) {
    layer_product(rows, net.layer[l], false, from, kept[2 * l]);
    hidden(net, points, l, kept[2 * l], kept[2 * l + 1], true);
    from = kept[2 * l + 1];
  }
  for (std::int64_t l = net.layers - 1; l >= 0; --l) {
    const PackedLayer<T>& layer = net.layer[l];
    add_gradient(jet, points, layer, l == 0 ? input : kept[2 * l - 1], bar, gradient[l]);
    if (l == 0) {
      if (input_bar != nullptr) {
        multiply<T, false>(points, layer.out, layer.in_padded, bar, jet.channels * layer.out_padded, 1,
                           layer.backward, 0, input_bar, layer.in_padded);
      }
      return;
    }
    multiply<T, false>(rows, layer.out, layer.in_padded, bar, layer.out_padded, 1, layer.backward, 0,
                       bar_other, layer.in_padded);
    const T* const z = kept[2 * l - 2];
    const T* const a = kept[2 * l - 1];
    if (jet.high) {
      adjoint_as<T, true>(net.activation, jet, points, layer.in_padded, z, a, bar_other);
    } else {
      adjoint_as<T, false>(net.activation, jet, points, layer.in_padded, z, a, bar_other);
    }
    T* const swapped = bar;
    bar = bar_other;
    bar_other = swapped;
  }
}

}  // namespace

void jet_pack(const float* weight, std::int64_t out, std::int64_t in, bool backward, float* packed) {
  pack(weight, out, in, backward, packed);
}

void jet_pack(const double* weight, std::int64_t out, std::int64_t in, bool backward, double* packed) {
  pack(weight, out, in, backward, packed);
}

const float* jet_tile_forward(const PackedNetwork<float>& net, std::int64_t points, const float* input,
                              float* even, float* odd) {
  return tile_forward(net, points, input, even, odd);
}

const double* jet_tile_forward(const PackedNetwork<double>& net, std::int64_t points, const double* input,
                               double* even, double* odd) {
  return tile_forward(net, points, input, even, odd);
}

void jet_tile_backward(const PackedNetwork<float>& net, std::int64_t points, const float* input,
                       float* const* kept, float* bar, float* bar_other, const LayerGradient<float>* gradient,
                       float* input_bar) {
  tile_backward(net, points, input, kept, bar, bar_other, gradient, input_bar);
}

void jet_tile_backward(const PackedNetwork<double>& net, std::int64_t points, const double* input,
                       double* const* kept, double* bar, double* bar_other,
                       const LayerGradient<double>* gradient, double* input_bar) {
  tile_backward(net, points, input, kept, bar, bar_other, gradient, input_bar);
}

}  // namespace rubriscope::ops::RUBRISCOPE_ISA
