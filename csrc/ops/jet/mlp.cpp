#include "rubriscope/ops/jet/mlp.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "rubriscope/ops/jet/tile.h"

namespace rubriscope::ops {

namespace {

/// Memory aligned to a cache line, zeroed.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::int64_t count)
      : data_(static_cast<T*>(::operator new(static_cast<std::size_t>(count) * sizeof(T) + 64, kAlign))) {
    std::memset(static_cast<void*>(data_.get()), 0, static_cast<std::size_t>(count) * sizeof(T) + 64);
  }
  T* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kAlign); }
  };
  std::unique_ptr<T, Free> data_;
};

template <class T>
std::int64_t padded(std::int64_t width) {
  constexpr std::int64_t unit = 64 / sizeof(T);
  return (width + unit - 1) / unit * unit;
}

/// The packed weights and everything that follows from the network alone.
template <class T>
class Plan {
 public:
  Plan(const MlpJet<T>& jet, bool backward) : jet_(jet), first_(static_cast<std::size_t>(jet.directions)) {
    bool high = false;
    std::int64_t channel = 1;
    for (std::int64_t k = 0; k < jet.directions; ++k) {
      first_[static_cast<std::size_t>(k)] = channel;
      channel += jet.orders[k];
      high = high || jet.orders[k] > 2;
    }
    pack(backward);
    net_ = {jet.layers,
            layers_.data(),
            jet.activation,
            {jet_channels(jet), jet.directions, jet.orders, first_.data(), jet.collapse, high}};
    // Rows of a tile: enough to make the weights' loads cheap, few enough to stay in the cache; a multiple of
    // the product's blocks of six.
    const std::int64_t rows = widest_ <= 256 ? 96 : 48;
    tile_ = std::max<std::int64_t>(1, (rows + net_.jet.channels * 3) / (net_.jet.channels * 6)) * 6;
  }

  const PackedNetwork<T>& net() const { return net_; }
  std::int64_t tile() const { return tile_; }
  std::int64_t rows() const { return tile_ * net_.jet.channels; }
  std::int64_t widest() const { return widest_; }
  const PackedLayer<T>& first_layer() const { return layers_.front(); }
  const PackedLayer<T>& last_layer() const { return layers_.back(); }

  /// The input's jets of a tile: x, the directions, the drift; all higher derivatives are zero.
  void input(std::int64_t points, const T* x, T* rows) const {
    const std::int64_t in = jet_.widths[0], stride = first_layer().in_padded;
    for (std::int64_t p = 0; p < points; ++p, x += in, rows += stride * net_.jet.channels) {
      std::copy(x, x + in, rows);
    }
  }

  /// What is the same for every point, written once per buffer.
  void input_constants(T* rows) const {
    const std::int64_t in = jet_.widths[0], stride = first_layer().in_padded;
    for (std::int64_t p = 0; p < tile_; ++p, rows += stride * net_.jet.channels) {
      for (std::int64_t k = 0; k < jet_.directions; ++k) {
        std::copy(jet_.direction + k * in, jet_.direction + (k + 1) * in,
                  rows + first_[static_cast<std::size_t>(k)] * stride);
      }
      if (jet_.collapse != nullptr) {
        T* const last = rows + (net_.jet.channels - 1) * stride;
        for (std::int64_t i = 0; i < in; ++i) last[i] = static_cast<T>(jet_.drift[i]);
      }
    }
  }

 private:
  void pack(bool backward) {
    std::int64_t count = 0;
    for (std::int64_t l = 0; l < jet_.layers; ++l) {
      const std::int64_t in = jet_.widths[l], out = jet_.widths[l + 1];
      count += in * padded<T>(out) + (backward ? out * padded<T>(in) : 0) + padded<T>(out);
      widest_ = std::max({widest_, padded<T>(in), padded<T>(out)});
    }
    packed_ = std::make_unique<Buffer<T>>(count);
    T* to = packed_->get();
    const T* from = jet_.parameters;
    for (std::int64_t l = 0; l < jet_.layers; ++l) {
      const std::int64_t in = jet_.widths[l], out = jet_.widths[l + 1];
      PackedLayer<T> layer{in, out, padded<T>(in), padded<T>(out), from, to, nullptr, nullptr};
      RUBRISCOPE_CALL_ISA(jet_pack, from, out, in, false, to);
      to += in * layer.out_padded;
      if (backward) {
        layer.backward = to;
        RUBRISCOPE_CALL_ISA(jet_pack, from, out, in, true, to);
        to += out * layer.in_padded;
      }
      from += out * in;
      layer.bias = to;
      std::copy(from, from + out, to);
      from += out;
      to += layer.out_padded;
      layers_.push_back(layer);
    }
  }

  const MlpJet<T>& jet_;
  std::vector<std::int64_t> first_;
  std::vector<PackedLayer<T>> layers_;
  std::unique_ptr<Buffer<T>> packed_;
  PackedNetwork<T> net_{};
  std::int64_t widest_ = 0;
  std::int64_t tile_ = 0;
};

/// The shorter side of a weight's gradient is the outer one: fewer registers are mostly padding.
template <class T>
bool transposed(const PackedLayer<T>& layer) {
  return layer.in * layer.out_padded < layer.out * layer.in_padded;
}

template <class T>
std::int64_t weight_size(const PackedLayer<T>& layer) {
  return transposed(layer) ? layer.in * layer.out_padded : layer.out * layer.in_padded;
}

/// The size of a piece's gradient, padding included.
template <class T>
std::int64_t gradient_size(const PackedNetwork<T>& net) {
  std::int64_t count = 0;
  for (std::int64_t l = 0; l < net.layers; ++l) {
    count += weight_size(net.layer[l]) + net.layer[l].out_padded;
  }
  return count;
}

/// Where the layers' gradients lie in a piece's buffer.
template <class T>
std::vector<LayerGradient<T>> gradient_layout(const PackedNetwork<T>& net, T* at) {
  std::vector<LayerGradient<T>> layout;
  for (std::int64_t l = 0; l < net.layers; ++l) {
    const PackedLayer<T>& layer = net.layer[l];
    T* const bias = at + weight_size(layer);
    layout.push_back({at, transposed(layer), bias});
    at = bias + layer.out_padded;
  }
  return layout;
}

}  // namespace

template <class T>
std::int64_t jet_channels(const MlpJet<T>& jet) {
  std::int64_t channels = 1 + (jet.collapse != nullptr ? 1 : 0);
  for (std::int64_t k = 0; k < jet.directions; ++k) channels += jet.orders[k];
  return channels;
}

template <class T>
std::int64_t parameter_count(const MlpJet<T>& jet) {
  std::int64_t count = 0;
  for (std::int64_t l = 0; l < jet.layers; ++l) count += (jet.widths[l] + 1) * jet.widths[l + 1];
  return count;
}

template <class T>
void mlp_jet(const MlpJet<T>& jet, std::int64_t points, const T* x, T* out, const Parallel& parallel) {
  const Plan<T> plan(jet, false);
  const std::int64_t in = jet.widths[0], outputs = jet.widths[jet.layers], channels = plan.net().jet.channels;
  const std::int64_t stride = plan.last_layer().out_padded;
  const std::int64_t tiles = (points + plan.tile() - 1) / plan.tile();
  const std::int64_t piece = plan.tile() * std::clamp<std::int64_t>(tiles / 64, 1, 64);
  for_pieces(parallel, points, piece, [&](std::int64_t begin, std::int64_t end) {
    const Buffer<T> input(plan.rows() * plan.first_layer().in_padded);
    const Buffer<T> even(plan.rows() * plan.widest()), odd(plan.rows() * plan.widest());
    plan.input_constants(input.get());
    for (std::int64_t p = begin; p < end; p += plan.tile()) {
      const std::int64_t count = std::min(plan.tile(), end - p);
      plan.input(count, x + p * in, input.get());
      const T* row =
          RUBRISCOPE_CALL_ISA(jet_tile_forward, plan.net(), count, input.get(), even.get(), odd.get());
      for (std::int64_t q = 0; q < count; ++q) {
        for (std::int64_t c = 0; c < channels; ++c, row += stride) {
          std::copy(row, row + outputs, out + (c * points + p + q) * outputs);
        }
      }
    }
  });
}

template <class T>
void mlp_jet_backward(const MlpJet<T>& jet, std::int64_t points, const T* x, const T* out_bar, T* x_bar,
                      T* parameters_bar, const Parallel& parallel) {
  const Plan<T> plan(jet, true);
  const PackedNetwork<T>& net = plan.net();
  const std::int64_t in = jet.widths[0], outputs = jet.widths[jet.layers], channels = net.jet.channels;
  const std::int64_t stride = plan.last_layer().out_padded, in_stride = plan.first_layer().in_padded;
  const std::int64_t size = gradient_size(net);

  // Pieces depend on the shapes only, or the sums would depend on the threads. Wide networks get fewer, so
  // that the partial sums stay within 2²⁵ numbers.
  const std::int64_t most = std::clamp<std::int64_t>((std::int64_t{1} << 25) / size, 4, 64);
  const std::int64_t tiles = (points + plan.tile() - 1) / plan.tile();
  const std::int64_t piece = plan.tile() * std::max<std::int64_t>(1, (tiles + most - 1) / most);
  const std::int64_t pieces = (points + piece - 1) / piece;
  const Buffer<T> sums(size * pieces);

  for_pieces(parallel, points, piece, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t width = plan.widest(), rows = plan.rows();
    const Buffer<T> input(rows * in_stride), bar(rows * width), bar_other(rows * width);
    const Buffer<T> input_bar(x_bar != nullptr ? plan.tile() * in_stride : 0);
    std::int64_t kept_count = 0;
    for (std::int64_t l = 0; l + 1 < net.layers; ++l) kept_count += 2 * rows * net.layer[l].out_padded;
    const Buffer<T> kept_memory(kept_count);
    std::vector<T*> kept;
    T* at = kept_memory.get();
    for (std::int64_t l = 0; l + 1 < net.layers; ++l) {
      for (int which = 0; which < 2; ++which, at += rows * net.layer[l].out_padded) kept.push_back(at);
    }
    const std::vector<LayerGradient<T>> gradient = gradient_layout(net, sums.get() + begin / piece * size);
    plan.input_constants(input.get());
    for (std::int64_t p = begin; p < end; p += plan.tile()) {
      const std::int64_t count = std::min(plan.tile(), end - p);
      plan.input(count, x + p * in, input.get());
      T* row = bar.get();
      for (std::int64_t q = 0; q < count; ++q) {
        for (std::int64_t c = 0; c < channels; ++c, row += stride) {
          const T* const from = out_bar + (c * points + p + q) * outputs;
          std::copy(from, from + outputs, row);
          std::fill(row + outputs, row + stride, T{0});
        }
      }
      RUBRISCOPE_CALL_ISA(jet_tile_backward, net, count, input.get(), kept.data(), bar.get(), bar_other.get(),
                          gradient.data(), x_bar != nullptr ? input_bar.get() : nullptr);
      if (x_bar != nullptr) {
        for (std::int64_t q = 0; q < count; ++q) {
          const T* const from = input_bar.get() + q * in_stride;
          std::copy(from, from + in, x_bar + (p + q) * in);
        }
      }
    }
  });

  const auto sum = [&](const T* first) {
    double total = 0;
    for (std::int64_t i = 0; i < pieces; ++i) total += static_cast<double>(first[i * size]);
    return static_cast<T>(total);
  };
  const std::vector<LayerGradient<T>> gradient = gradient_layout(net, sums.get());
  for (std::int64_t l = 0; l < net.layers; ++l) {
    const PackedLayer<T>& layer = net.layer[l];
    const LayerGradient<T>& from = gradient[static_cast<std::size_t>(l)];
    T* const to = parameters_bar;
    for_pieces(parallel, layer.out, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t o = begin; o < end; ++o) {
        for (std::int64_t i = 0; i < layer.in; ++i) {
          to[o * layer.in + i] =
              sum(from.weight + (from.transposed ? i * layer.out_padded + o : o * layer.in_padded + i));
        }
        to[layer.out * layer.in + o] = sum(from.bias + o);
      }
    });
    parameters_bar += layer.out * (layer.in + 1);
  }
}

template std::int64_t jet_channels(const MlpJet<float>&);
template std::int64_t jet_channels(const MlpJet<double>&);
template std::int64_t parameter_count(const MlpJet<float>&);
template std::int64_t parameter_count(const MlpJet<double>&);
template void mlp_jet(const MlpJet<float>&, std::int64_t, const float*, float*, const Parallel&);
template void mlp_jet(const MlpJet<double>&, std::int64_t, const double*, double*, const Parallel&);
template void mlp_jet_backward(const MlpJet<float>&, std::int64_t, const float*, const float*, float*, float*,
                               const Parallel&);
template void mlp_jet_backward(const MlpJet<double>&, std::int64_t, const double*, const double*, double*,
                               double*, const Parallel&);

}  // namespace rubriscope::ops
