#include <algorithm>
#include <type_traits>

#include "rubriscope/ops/stencil/columns.h"
#include "rubriscope/ops/vectors.h"

namespace rubriscope::ops::stencil::RUBRISCOPE_ISA {

using namespace rubriscope::ops::RUBRISCOPE_ISA;

namespace {

// Past the caches; `at` is aligned to the vector.
template <class V, class T>
inline __attribute__((always_inline)) void stream(T* at, V value) {
  if constexpr (sizeof(V) < vector_bytes) {
    store(at, value);
  } else {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(at), reinterpret_cast<__m512i>(value));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(at), reinterpret_cast<__m256i>(value));
#elif defined(__x86_64__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(at), reinterpret_cast<__m128i>(value));
#else
    store(at, value);
#endif
  }
}

// Points of a row, from column `at` on.
struct Span {
  std::int64_t at, count;
  bool streamed;
};

// A statement on spans of consecutive rows.
template <class T>
struct Stretch {
  const Columns<T>* columns;
  const Statement* statement;
  std::int64_t moved[3];  // to a slot's column 0 in the first row, by kind
  const Span* spans;      // in every row
  int span_count;
  std::int64_t rows;

  // Calls run(input's offset, output's offset, points, streamed) for every span of every row.
  template <class Run>
  inline __attribute__((always_inline)) void each(Run&& run) const {
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t in = row * columns->input_stride, out = row * columns->output_stride;
      for (const Span* span = spans; span != spans + span_count; ++span) {
        run(in + span->at, out + span->at, span->count, span->streamed);
      }
    }
  }

  const T* slot(int index) const {
    if (index < 0) return nullptr;
    return columns->slots[index].at + moved[columns->slots[index].kind];
  }
  T* target() const {
    const Slot<T>& to = columns->slots[statement->target];
    return to.at + moved[to.kind];
  }
  const Step<T>* steps() const { return columns->steps + statement->first; }
  const Taps* pieces() const { return columns->pieces + statement->first; }
};

// Memory is asked for this far ahead: about two rows of a thousand float32.
constexpr std::int64_t ahead_bytes = 8192;

// What a statement reads first of each field, a block of `bytes` from point `at` on. Worth asking for only
// where it comes from memory: fields that fit the caches are there before.
template <class T>
struct Ahead {
  const T* const* fields;
  int count;
  std::int64_t in;

  explicit Ahead(const Stretch<T>& of)
      : fields(of.columns->ahead + of.statement->ahead), count(of.statement->ahead_count), in(of.moved[0]) {}

  template <int bytes>
  inline __attribute__((always_inline)) void fetch(std::int64_t at) const {
    for (int n = 0; n < count; ++n) {
      const char* const from = reinterpret_cast<const char*>(fields[n] + in + at) + ahead_bytes;
      for (int byte = 0; byte < bytes; byte += 64) __builtin_prefetch(from + byte);
    }
  }
};

// A linear piece whose numbers of taps the compiler knows, times a field where `product`.
template <int d, int s, int n, bool product>
struct Part {
  static constexpr int differences = d, sums = s, singles = n, taps = d + s + n;
  static constexpr bool times = product;
  static constexpr int reads = 2 * (d + s) + n + product;
  // A statement's parts are told by this, 16 bits each.
  static constexpr std::uint64_t code = 1 + 2 * (product + 2 * (d + 8 * (s + 8 * n)));
};

template <class T>
std::uint64_t code_of(const Columns<T>& columns, const Statement& of) {
  std::uint64_t code = 0;
  if (of.count > 4 || of.c >= 0) return 0;
  for (int n = of.first + of.count - 1; n >= of.first; --n) {
    const Step<T>& step = columns.steps[n];
    const Taps& taps = columns.pieces[n];
    if (step.operation != linear || taps.differences > 7 || taps.sums > 7 || taps.singles > 7) return 0;
    const int counts = taps.differences + 8 * (taps.sums + 8 * taps.singles);
    code = code << 16 | static_cast<std::uint64_t>(1 + 2 * ((step.a >= 0) + 2 * counts));
  }
  return code;
}

// sum + a·b in one rounding where the machine has an instruction for it. Of vectors the compiler makes one by
// itself; of several scalars in a row it may make a vector's product and add that up.
template <class V, class W>
inline __attribute__((always_inline)) V multiplied_to(V sum, W a, V b) {
#if defined(__FMA__)
  if constexpr (std::is_same_v<V, float>) return __builtin_fmaf(a, b, sum);
  if constexpr (std::is_same_v<V, double>) return __builtin_fma(a, b, sum);
#endif
  return sum + a * b;
}

// found += a part's value at `unroll` vectors.
template <class P, class V, int unroll, class T>
inline __attribute__((always_inline)) void add_part(const Tap<T>* taps, const V* weights, const T* times,
                                                    std::int64_t at, V (&found)[unroll]) {
  constexpr int width = sizeof(V) / sizeof(T);
  V inner[unroll];
  for (int u = 0; u < unroll; ++u) {
    inner[u] = P::times ? V{} : found[u];
  }
#pragma GCC unroll 16
  for (int n = 0; n < P::taps; ++n) {
    for (int u = 0; u < unroll; ++u) {
      V value = load<V>(taps[n].a + at + u * width);
      if (n < P::differences) value -= load<V>(taps[n].b + at + u * width);
      if (n >= P::differences && n < P::differences + P::sums) value += load<V>(taps[n].b + at + u * width);
      inner[u] = multiplied_to(inner[u], weights[n], value);
    }
  }
  for (int u = 0; u < unroll; ++u) {
    found[u] = P::times ? multiplied_to(found[u], load<V>(times + at + u * width), inner[u]) : inner[u];
  }
}

template <class V, int unroll, class T>
inline __attribute__((always_inline)) void begin_with(const T* c, std::int64_t at, V (&found)[unroll]) {
  constexpr int width = sizeof(V) / sizeof(T);
  for (int u = 0; u < unroll; ++u) found[u] = V{};
  if (c == nullptr) return;
  for (int u = 0; u < unroll; ++u) found[u] = load<V>(c + at + u * width);
}

template <class V, int unroll, class T>
inline __attribute__((always_inline)) void end_in(T* target, bool streamed, std::int64_t at,
                                                  const V (&found)[unroll]) {
  constexpr int width = sizeof(V) / sizeof(T);
  if (streamed) {
    for (int u = 0; u < unroll; ++u) stream(target + at + u * width, found[u]);
  } else {
    for (int u = 0; u < unroll; ++u) store(target + at + u * width, found[u]);
  }
}

// A statement of known parts, bound to a stretch: nothing is looked up at a point. V is a vector, or T
// itself.
template <class V, class T, class... Parts>
struct Bound {
  static constexpr int count = (Parts::taps + ...);
  Tap<T> taps[count];
  V weights[count];
  const T* times[sizeof...(Parts)];

  explicit inline __attribute__((always_inline)) Bound(const Stretch<T>& of) {
    int part = 0, tap = 0;
    const auto take = [&](int of_part) __attribute__((always_inline)) {
      const Tap<T>* const from = of.columns->taps + of.pieces()[part].first;
      for (int n = 0; n < of_part; ++n, ++tap) {
        taps[tap] = {from[n].a + of.moved[0], from[n].b + of.moved[0], from[n].weight};
        weights[tap] = from[n].weight - V{};
      }
      times[part] = of.slot(of.steps()[part].a);
      ++part;
    };
    (take(Parts::taps), ...);
  }

  // The statement's value at `unroll` vectors.
  template <int unroll>
  inline __attribute__((always_inline)) void evaluate(std::int64_t at, V (&found)[unroll]) const {
    for (int u = 0; u < unroll; ++u) found[u] = V{};
    int first = 0, index = 0;
    ((add_part<Parts, V, unroll>(taps + first, weights + first, times[index], at, found),
      first += Parts::taps, ++index),
     ...);
  }
};

// Over spans of whole vectors.
template <class V, class T, class... Parts>
void run_parts(const Stretch<T>& of) {
  constexpr int width = sizeof(V) / sizeof(T);
  constexpr int block = 4, fetched = 8;  // vectors
  const Bound<V, T, Parts...> bound(of);
  T* const target = of.target();
  const Ahead<T> ahead(of);
  of.each([&](std::int64_t in, std::int64_t out, std::int64_t points, bool streamed)
              __attribute__((always_inline)) {
                const auto run = [&](auto of_block, std::int64_t at) __attribute__((always_inline)) {
                  constexpr int unroll = decltype(of_block)::value;
                  V found[unroll];
                  bound.template evaluate<unroll>(in + at, found);
                  end_in<V, unroll>(target + out, streamed, at, found);
                };
                std::int64_t at = 0;
                while (at + fetched * width <= points) {
                  if (streamed) ahead.template fetch<fetched * vector_bytes>(in + at);
                  for (const std::int64_t end = at + fetched * width; at < end; at += block * width) {
                    run(std::integral_constant<int, block>{}, at);
                  }
                }
                for (; at < points; at += width) run(std::integral_constant<int, 1>{}, at);
              });
}

// Over one column of all rows: what the grid's edges need.
template <class T, class... Parts>
void run_column(const Stretch<T>& of) {
  const Bound<T, T, Parts...> bound(of);
  T* const target = of.target();
  of.each([&](std::int64_t in, std::int64_t out, std::int64_t, bool) __attribute__((always_inline)) {
    T found[1];
    bound.template evaluate<1>(in, found);
    target[out] = found[0];
  });
}

// found += the taps' values, `unroll` vectors at a time, so that a tap is looked up once for all of them.
template <class V, int unroll, class T>
inline __attribute__((always_inline)) void add_taps(const Taps& of, const Tap<T>* tap, std::int64_t column,
                                                    V (&found)[unroll]) {
  constexpr int width = sizeof(V) / sizeof(T);
  for (const Tap<T>* const end = tap + of.differences; tap != end; ++tap) {
    for (int u = 0; u < unroll; ++u) {
      const V value = load<V>(tap->a + column + u * width) - load<V>(tap->b + column + u * width);
      found[u] = multiplied_to(found[u], tap->weight, value);
    }
  }
  for (const Tap<T>* const end = tap + of.sums; tap != end; ++tap) {
    for (int u = 0; u < unroll; ++u) {
      const V value = load<V>(tap->a + column + u * width) + load<V>(tap->b + column + u * width);
      found[u] = multiplied_to(found[u], tap->weight, value);
    }
  }
  for (const Tap<T>* const end = tap + of.singles; tap != end; ++tap) {
    for (int u = 0; u < unroll; ++u) {
      found[u] = multiplied_to(found[u], tap->weight, load<V>(tap->a + column + u * width));
    }
  }
}

// Any statement at `unroll` vectors, whose value stays in registers from step to step.
template <class V, int unroll, class T>
inline __attribute__((always_inline)) void run_steps(const Stretch<T>& of, std::int64_t at, bool streamed) {
  constexpr int width = sizeof(V) / sizeof(T);
  V found[unroll];
  begin_with<V, unroll>(of.slot(of.statement->c), at, found);
  const Step<T>* step = of.steps();
  const Taps* taps = of.pieces();
  for (const Step<T>* const end = step + of.statement->count; step != end; ++step, ++taps) {
    const T* const a = of.slot(step->a);
    const T* const b = of.slot(step->b);
    if (step->operation == linear) {
      const Tap<T>* const tap = of.columns->taps + taps->first;
      if (a == nullptr) {
        add_taps<V, unroll>(*taps, tap, of.moved[0] + at, found);
      } else {
        V inner[unroll];
        for (int u = 0; u < unroll; ++u) inner[u] = V{};
        add_taps<V, unroll>(*taps, tap, of.moved[0] + at, inner);
        for (int u = 0; u < unroll; ++u) {
          found[u] = multiplied_to(found[u], load<V>(a + at + u * width), inner[u]);
        }
      }
    } else if (step->operation == multiply_add) {
      for (int u = 0; u < unroll; ++u) {
        V product = step->scalar - V{};
        if (a != nullptr) product *= load<V>(a + at + u * width);
        if (b != nullptr) product *= load<V>(b + at + u * width);
        found[u] += product;
      }
    } else if (step->operation == divide) {
      for (int u = 0; u < unroll; ++u) {
        found[u] = load<V>(a + at + u * width) / load<V>(b + at + u * width);
      }
    } else {
      T values[unroll * width];
      for (int n = 0; n < unroll * width; ++n) values[n] = apply(step->operation, a[at + n], T(1));
      for (int u = 0; u < unroll; ++u) found[u] = load<V>(values + u * width);
    }
  }
  end_in<V, unroll>(of.target(), streamed, at, found);
}

// Slots move with the statement's kinds, so rows are taken one by one.
template <class V, class T>
void run_any(const Stretch<T>& of) {
  constexpr int width = sizeof(V) / sizeof(T);
  constexpr int block = 4;  // vectors: with their parts, what 16 registers hold
  of.each([&](std::int64_t in, std::int64_t out, std::int64_t points,
              bool streamed) __attribute__((always_inline)) {
    const Stretch<T> here{
        of.columns, of.statement, {of.moved[0] + in, of.moved[1] + out, of.moved[2]}, nullptr, 0, 0};
    const Ahead<T> ahead(here);
    std::int64_t at = 0;
    for (; at + block * width <= points; at += block * width) {
      if (streamed) ahead.template fetch<block * vector_bytes>(at);
      run_steps<V, block>(here, at, streamed);
    }
    for (; at < points; at += width) run_steps<V, 1>(here, at, streamed);
  });
}

template <class T>
using Runner = void (*)(const Stretch<T>&);

template <class... Parts>
struct Sum {
  static constexpr int taps = (Parts::taps + ...), reads = (Parts::reads + ...);
  static constexpr std::uint64_t code() {
    std::uint64_t found = 0;
    int part = 0;
    ((found |= Parts::code << (16 * part++)), ...);
    return found;
  }
  template <class V, class T>
  static constexpr Runner<T> runner = &run_parts<V, T, Parts...>;
  template <class T>
  static constexpr Runner<T> column_runner = &run_column<T, Parts...>;
};
template <class... Sums>
struct List {};
template <int d, int s, int n>
using Alone = Sum<Part<d, s, n, false>>;
template <int d, int s, int n>
using Piece = Part<d, s, n, false>;
template <int d, int s, int n>
using Times = Part<d, s, n, true>;

// The statements with code of their own: those of the equations that cost most. First time
// derivative and Laplacian in 1 to 3 dimensions, and their adjoints; then those with advection.
using Known = List<
    Alone<1, 1, 1>, Alone<1, 2, 1>, Alone<1, 3, 1>, Alone<2, 2, 1>, Alone<2, 3, 1>, Alone<0, 1, 1>,
    Alone<0, 2, 1>, Alone<0, 3, 1>, Alone<0, 1, 2>, Alone<0, 2, 2>, Alone<0, 3, 2>, Alone<0, 0, 1>,
    Alone<1, 0, 0>, Alone<2, 0, 0>, Alone<3, 0, 0>, Alone<0, 2, 3>, Alone<1, 2, 3>, Alone<4, 3, 1>,
    Alone<4, 3, 2>, Alone<1, 4, 1>, Alone<1, 6, 1>, Alone<3, 4, 1>, Alone<3, 6, 1>, Alone<0, 4, 1>,
    Alone<0, 6, 1>, Alone<0, 4, 2>, Alone<0, 6, 2>, Alone<4, 0, 0>, Alone<6, 0, 0>,
    Sum<Piece<1, 1, 1>, Times<1, 0, 0>>, Sum<Piece<1, 2, 1>, Times<1, 0, 0>, Times<1, 0, 0>>,
    Sum<Piece<2, 2, 1>, Times<1, 0, 0>, Times<1, 0, 0>>,
    Sum<Piece<2, 3, 1>, Times<1, 0, 0>, Times<1, 0, 0>, Times<1, 0, 0>>,
    Sum<Piece<2, 0, 0>, Times<1, 0, 0>, Times<1, 0, 0>>, Sum<Piece<1, 4, 1>, Times<2, 0, 0>, Times<2, 0, 0>>,
    Sum<Piece<3, 4, 1>, Times<2, 0, 0>, Times<2, 0, 0>>, Sum<Piece<1, 6, 1>, Times<3, 0, 0>, Times<3, 0, 0>>,
    Sum<Piece<4, 6, 1>, Times<3, 0, 0>, Times<3, 0, 0>>>;

// What is read: of a field, so many rows and columns away.
struct Read {
  int field, row, column;
};

// Statements whose code reads the same points over and over: evaluated together, a point's fields are loaded
// once. `Reads` has what their parts read, in order: of each part the taps' a and b, of single ones a, then
// what it is multiplied with.
template <class Reads, class... Sums>
struct Together {
  static constexpr int statements = sizeof...(Sums);
  static constexpr int weights = (Sums::taps + ...);

  template <class T>
  struct Fields {
    const T* at[Reads::fields];
    std::int64_t row;
    T weight[weights];

    // Where the columns' statements are these and read just that.
    bool find(const Columns<T>& columns) {
      constexpr std::uint64_t codes[] = {Sums::code()...};
      if (columns.statement_count != statements) return false;
      for (int n = 0; n < statements; ++n) {
        if (code_of(columns, columns.statements[n]) != codes[n]) return false;
        if (columns.slots[columns.statements[n].target].kind != Slot<T>::output) return false;
      }
      row = columns.input_stride;
      for (const T*& field : at) field = nullptr;
      int next = 0, known = 0;
      const auto reads = [&](const T* from) {
        const Read& of = Reads::list[next++];
        const T* const begin = from - of.row * row - of.column;
        if (at[of.field] == nullptr) at[of.field] = begin;
        return at[of.field] == begin;
      };
      for (int n = 0; n < statements; ++n) {
        const Statement& of = columns.statements[n];
        for (int step = of.first; step < of.first + of.count; ++step) {
          const Taps& taps = columns.pieces[step];
          for (int t = 0; t < taps.differences + taps.sums + taps.singles; ++t) {
            const Tap<T>& tap = columns.taps[taps.first + t];
            if (!reads(tap.a)) return false;
            if (t < taps.differences + taps.sums && !reads(tap.b)) return false;
            weight[known++] = tap.weight;
          }
          const int times = columns.steps[step].a;
          if (times < 0) continue;
          if (columns.slots[times].kind != Slot<T>::operand || !reads(columns.slots[times].at)) return false;
        }
      }
      return true;
    }
  };

  template <int index, class V, class T>
  static inline __attribute__((always_inline)) V read(const Fields<T>& fields, std::int64_t point) {
    constexpr Read of = Reads::list[index];
    return load<V>(fields.at[of.field] + point + of.row * fields.row + of.column);
  }

  // found + a part's value, which is the first to have `first` and `weight`.
  template <class P, int first, int weight, class V, class T>
  static inline __attribute__((always_inline)) V add(const Fields<T>& fields, const V* known,
                                                     std::int64_t point, V found) {
    V inner = P::times ? V{} : found;
    const auto tap = [&]<int n>(std::integral_constant<int, n>) __attribute__((always_inline)) {
      constexpr int pairs = P::differences + P::sums;
      constexpr int a = first + (n < pairs ? 2 * n : pairs + n);
      V value = read<a, V>(fields, point);
      if constexpr (n < P::differences) value -= read<a + 1, V>(fields, point);
      if constexpr (n >= P::differences && n < pairs) value += read<a + 1, V>(fields, point);
      inner = multiplied_to(inner, known[weight + n], value);
    };
    [&]<int... n>(std::integer_sequence<int, n...>) __attribute__((always_inline)) {
      (tap(std::integral_constant<int, n>{}), ...);
    }(std::make_integer_sequence<int, P::taps>{});
    if constexpr (P::times) return multiplied_to(found, read<first + P::reads - 1, V>(fields, point), inner);
    return inner;
  }

  template <int first, int weight, class V, class T, class P, class... Rest>
  static inline __attribute__((always_inline)) V sum_of(const Fields<T>& fields, const V* known,
                                                        std::int64_t point, V found, Sum<P, Rest...>) {
    found = add<P, first, weight>(fields, known, point, found);
    if constexpr (sizeof...(Rest) == 0) {
      return found;
    } else {
      return sum_of<first + P::reads, weight + P::taps>(fields, known, point, found, Sum<Rest...>{});
    }
  }

  template <int statement, int first, int weight, class V, class T, class S, class... Rest>
  static inline __attribute__((always_inline)) void evaluate(const Fields<T>& fields, const V* known,
                                                             std::int64_t point, V* found) {
    found[statement] = sum_of<first, weight>(fields, known, point, V{}, S{});
    if constexpr (sizeof...(Rest) != 0) {
      evaluate<statement + 1, first + S::reads, weight + S::taps, V, T, Rest...>(fields, known, point, found);
    }
  }

  // Over spans of whole vectors.
  template <class V, class T>
  [[gnu::noinline]] static void run(const Stretch<T>& all, const Fields<T> fields) {
    constexpr int width = sizeof(V) / sizeof(T);
    const Columns<T>& columns = *all.columns;
    V known[weights];
    for (int n = 0; n < weights; ++n) known[n] = fields.weight[n] - V{};
    T* targets[statements];
    for (int n = 0; n < statements; ++n) targets[n] = columns.slots[columns.statements[n].target].at;
    all.each([&](std::int64_t in, std::int64_t out, std::int64_t points, bool streamed)
                 __attribute__((always_inline)) {
                   for (std::int64_t at = 0; at < points; at += width) {
                     V found[statements];
                     evaluate<0, 0, 0, V, T, Sums...>(fields, known, in + at, found);
                     if (streamed) {
                       for (const T* const field : fields.at) {
                         __builtin_prefetch(reinterpret_cast<const char*>(field + in + at) + ahead_bytes);
                       }
                       for (int n = 0; n < statements; ++n) stream(targets[n] + out + at, found[n]);
                     } else {
                       for (int n = 0; n < statements; ++n) store(targets[n] + out + at, found[n]);
                     }
                   }
                 });
  }
};

// u·∇u + ∇p − ν∇²u and ∇·u in two dimensions, second order: fields u, v, p and the old u, v.
struct NavierStokesReads {
  static constexpr int fields = 5;
  static constexpr Read list[] = {{3, 0, 0},  {0, 0, 0},  {2, -1, 0}, {2, 1, 0},  {0, 0, -1}, {0, 0, 1},
                                  {0, -1, 0}, {0, 1, 0},  {0, 0, 0},  {0, -1, 0}, {0, 1, 0},  {0, 0, 0},
                                  {0, 0, -1}, {0, 0, 1},  {1, 0, 0},  {4, 0, 0},  {1, 0, 0},  {2, 0, -1},
                                  {2, 0, 1},  {1, 0, -1}, {1, 0, 1},  {1, -1, 0}, {1, 1, 0},  {1, 0, 0},
                                  {1, -1, 0}, {1, 1, 0},  {0, 0, 0},  {1, 0, -1}, {1, 0, 1},  {1, 0, 0},
                                  {0, -1, 0}, {0, 1, 0},  {1, 0, -1}, {1, 0, 1}};
};
using Momentum = Sum<Piece<2, 2, 1>, Times<1, 0, 0>, Times<1, 0, 0>>;
using NavierStokes = Together<NavierStokesReads, Momentum, Momentum, Alone<2, 0, 0>>;

// How a statement is run.
template <class V, class T, class... Sums>
Runner<T> runner_for(std::uint64_t code, List<Sums...>) {
  Runner<T> found = &run_any<V, T>;
  ((Sums::code() == code ? static_cast<void>(found = Sums::template runner<V, T>) : static_cast<void>(0)),
   ...);
  return found;
}

// Whether a statement can be run over many rows at once: what it is multiplied with moves from row to row as
// its taps do, and it has an output.
template <class T>
bool in_rows(const Columns<T>& columns, const Statement& of) {
  const Step<T>* const steps = columns.steps + of.first;
  return columns.slots[of.target].kind == Slot<T>::output &&
         std::all_of(steps, steps + of.count, [&](const Step<T>& step) {
           return step.a < 0 || columns.slots[step.a].kind == Slot<T>::operand;
         });
}

// How it is run over a column of many rows; null where it has no code of its own for that.
template <class T, class... Sums>
Runner<T> column_runner_for(const Columns<T>& columns, const Statement& of, List<Sums...>) {
  if (!in_rows(columns, of)) return nullptr;
  const std::uint64_t code = code_of(columns, of);
  Runner<T> found = nullptr;
  ((Sums::code() == code ? static_cast<void>(found = Sums::template column_runner<T>) : static_cast<void>(0)),
   ...);
  return found;
}

// One column of every row, statement by statement where all have code for that.
template <class T>
void run_one_column(const Columns<T>& columns, std::int64_t at) {
  const Span span{at, 1, false};
  Runner<T> runners[most_statements];
  bool all = true;
  for (int n = 0; n < columns.statement_count && all; ++n) {
    runners[n] = column_runner_for(columns, columns.statements[n], Known{});
    all = runners[n] != nullptr;
  }
  if (all) {
    for (int n = 0; n < columns.statement_count; ++n) {
      runners[n]({&columns, columns.statements + n, {0, 0, 0}, &span, 1, columns.rows});
    }
    return;
  }
  for (std::int64_t row = 0; row < columns.rows; ++row) {
    const std::int64_t in = row * columns.input_stride, out = row * columns.output_stride;
    for (int n = 0; n < columns.statement_count; ++n) {
      const Stretch<T> here{&columns, columns.statements + n, {in + at, out + at, 0}, nullptr, 0, 0};
      run_steps<T, 1>(here, 0, false);
    }
  }
}

// Cuts columns [begin, end) into spans of whole vectors and returns how many: the lines at the ends where the
// middle is streamed, the middle, the rest. Some points are in two spans, which gives the same values.
constexpr int most_spans = 4;
template <class T, int width>
int spans_of(std::int64_t begin, std::int64_t end, bool streamed, Span (&spans)[most_spans]) {
  constexpr int line = 64 / sizeof(T);
  int count = 0;
  streamed = streamed && end - begin >= 4 * line;
  if (streamed) {
    // The lines at the ends are written again by what is computed for the edges.
    spans[count++] = {begin, line, false};
    spans[count++] = {end - line, line, false};
    begin += line;
    end -= line;
  }
  const std::int64_t whole = (end - begin) / width * width;
  if (whole != 0) spans[count++] = {begin, whole, streamed};
  if (begin + whole < end) spans[count++] = {end - width, width, false};
  return count;
}

template <class T>
void run(const Columns<T>& columns, std::int64_t begin, std::int64_t end) {
  using V = typename VectorOf<T>::type;
  constexpr int width = sizeof(V) / sizeof(T);
  if (end - begin < width) {
    for (std::int64_t at = begin; at < end; ++at) run_one_column(columns, at);
    return;
  }
  Span spans[most_spans];
  const int span_count = spans_of<T, width>(begin, end, columns.streamed, spans);
  const auto all_rows = [&](const Statement* statement) {
    return Stretch<T>{&columns, statement, {0, 0, 0}, spans, span_count, columns.rows};
  };
  NavierStokes::Fields<T> fields;
  if (fields.find(columns)) {
    NavierStokes::run<V>(all_rows(columns.statements), fields);
  } else if (columns.statement_count == 1 && in_rows(columns, columns.statements[0])) {
    runner_for<V, T>(code_of(columns, columns.statements[0]), Known{})(all_rows(columns.statements));
  } else {
    Runner<T> runners[most_statements];
    for (int n = 0; n < columns.statement_count; ++n) {
      runners[n] = runner_for<V, T>(code_of(columns, columns.statements[n]), Known{});
    }
    for (std::int64_t row = 0; row < columns.rows; ++row) {
      const std::int64_t in = row * columns.input_stride, out = row * columns.output_stride;
      for (int n = 0; n < span_count; ++n) {
        for (std::int64_t done = 0; done < spans[n].count; done += columns.chunk) {
          const std::int64_t at = spans[n].at + done;
          const Span chunk{0, std::min<std::int64_t>(columns.chunk, spans[n].count - done),
                           spans[n].streamed};
          for (int k = 0; k < columns.statement_count; ++k) {
            runners[k]({&columns, columns.statements + k, {in + at, out + at, 0}, &chunk, 1, 1});
          }
        }
      }
    }
  }
#if defined(__x86_64__)
  if (columns.streamed) _mm_sfence();
#endif
}

}  // namespace

void run_columns(const Columns<float>& rows, std::int64_t begin, std::int64_t end) { run(rows, begin, end); }
void run_columns(const Columns<double>& rows, std::int64_t begin, std::int64_t end) { run(rows, begin, end); }

}  // namespace rubriscope::ops::stencil::RUBRISCOPE_ISA
