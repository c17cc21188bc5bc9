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

// A statement on a stretch of a row.
template <class T>
struct Stretch {
  const Columns<T>* columns;
  const Statement* statement;
  std::int64_t moved[3];  // to a slot's first point, by kind
  std::int64_t count;     // points
  bool streamed;

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

// What a statement reads first of each field and what it writes, a block of `bytes` from point `at` on.
template <class T>
struct Ahead {
  const T* const* fields;
  int count;
  std::int64_t in;
  T* target;

  explicit Ahead(const Stretch<T>& of)
      : fields(of.columns->ahead + of.statement->ahead),
        count(of.statement->ahead_count),
        in(of.moved[0]),
        target(of.streamed ? nullptr : of.target()) {}

  template <int bytes>
  inline __attribute__((always_inline)) void fetch(std::int64_t at) const {
    for (int n = 0; n < count; ++n) {
      const char* const from = reinterpret_cast<const char*>(fields[n] + in + at) + ahead_bytes;
      for (int byte = 0; byte < bytes; byte += 64) __builtin_prefetch(from + byte);
    }
    if (target == nullptr) return;
    const char* const to = reinterpret_cast<const char*>(target + at) + ahead_bytes;
    for (int byte = 0; byte < bytes; byte += 64) __builtin_prefetch(to + byte, 1);
  }
};

// A linear piece whose numbers of taps the compiler knows, times a field where `product`.
template <int d, int s, int n, bool product>
struct Part {
  static constexpr int differences = d, sums = s, singles = n, taps = d + s + n;
  static constexpr bool times = product;
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

// Over a stretch of whole vectors.
template <class V, class T, class... Parts>
void run_parts(const Stretch<T>& of) {
  constexpr int width = sizeof(V) / sizeof(T);
  constexpr int block = 2, fetched = 8;  // vectors
  const Bound<V, T, Parts...> bound(of);
  T* const target = of.target();
  const bool streamed = of.streamed;
  const std::int64_t points = of.count;
  const Ahead<T> ahead(of);
  const auto run = [&](auto of_block, std::int64_t at) __attribute__((always_inline)) {
    constexpr int unroll = decltype(of_block)::value;
    V found[unroll];
    bound.template evaluate<unroll>(at, found);
    end_in<V, unroll>(target, streamed, at, found);
  };
  std::int64_t at = 0;
  while (at + fetched * width <= points) {
    ahead.template fetch<fetched * vector_bytes>(at);
    for (const std::int64_t end = at + fetched * width; at < end; at += block * width) {
      run(std::integral_constant<int, block>{}, at);
    }
  }
  for (; at < points; at += width) run(std::integral_constant<int, 1>{}, at);
}

// Over one column of all rows: what the grid's edges need.
template <class T, class... Parts>
void run_column(const Stretch<T>& of) {
  const Bound<T, T, Parts...> bound(of);
  T* const target = of.target();
  for (std::int64_t row = 0; row < of.columns->rows; ++row) {
    T found[1];
    bound.template evaluate<1>(row * of.columns->input_stride, found);
    target[row * of.columns->output_stride] = found[0];
  }
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
inline __attribute__((always_inline)) void run_steps(const Stretch<T>& of, std::int64_t at) {
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
  end_in<V, unroll>(of.target(), of.streamed, at, found);
}

template <class V, class T>
void run_any(const Stretch<T>& of) {
  constexpr int width = sizeof(V) / sizeof(T);
  constexpr int block = 4;  // vectors: with their parts, what 16 registers hold
  const Ahead<T> ahead(of);
  std::int64_t at = 0;
  for (; at + block * width <= of.count; at += block * width) {
    ahead.template fetch<block * vector_bytes>(at);
    run_steps<V, block>(of, at);
  }
  for (; at < of.count; at += width) run_steps<V, 1>(of, at);
}

template <class T>
using Runner = void (*)(const Stretch<T>&);

template <class... Parts>
struct Sum {
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

// How a statement is run.
template <class V, class T, class... Sums>
Runner<T> runner_for(std::uint64_t code, List<Sums...>) {
  Runner<T> found = &run_any<V, T>;
  ((Sums::code() == code ? static_cast<void>(found = Sums::template runner<V, T>) : static_cast<void>(0)),
   ...);
  return found;
}

// How it is run over a column of many rows; null where it has no code of its own for that.
template <class T, class... Sums>
Runner<T> column_runner_for(const Columns<T>& columns, const Statement& of, List<Sums...>) {
  const auto in_rows = [&](int slot) {  // what moves from row to row as the taps do, or is not there
    return slot < 0 || columns.slots[slot].kind == Slot<T>::operand;
  };
  if (columns.slots[of.target].kind == Slot<T>::temporary) return nullptr;
  for (int n = of.first; n < of.first + of.count; ++n) {
    if (!in_rows(columns.steps[n].a)) return nullptr;
  }
  const std::uint64_t code = code_of(columns, of);
  Runner<T> found = nullptr;
  ((Sums::code() == code ? static_cast<void>(found = Sums::template column_runner<T>) : static_cast<void>(0)),
   ...);
  return found;
}

// One column of every row, statement by statement where all have code for that.
template <class T>
void run_one_column(const Columns<T>& columns, std::int64_t at) {
  Runner<T> runners[most_statements];
  bool all = true;
  for (int n = 0; n < columns.statement_count && all; ++n) {
    runners[n] = column_runner_for(columns, columns.statements[n], Known{});
    all = runners[n] != nullptr;
  }
  if (all) {
    for (int n = 0; n < columns.statement_count; ++n) {
      runners[n]({&columns, columns.statements + n, {at, at, 0}, 1, false});
    }
    return;
  }
  for (std::int64_t row = 0; row < columns.rows; ++row) {
    const std::int64_t in = row * columns.input_stride, out = row * columns.output_stride;
    for (int n = 0; n < columns.statement_count; ++n) {
      run_steps<T, 1>(Stretch<T>{&columns, columns.statements + n, {in + at, out + at, 0}, 1, false}, 0);
    }
  }
}

// All statements on one stretch of a row.
template <class T>
void run_chunk(const Columns<T>& columns, const Runner<T>* runners, std::int64_t in, std::int64_t out,
               std::int64_t count, bool streamed) {
  for (int n = 0; n < columns.statement_count; ++n) {
    runners[n]({&columns, columns.statements + n, {in, out, 0}, count, streamed});
  }
}

template <class T>
void run(const Columns<T>& columns, std::int64_t begin, std::int64_t end) {
  using V = typename VectorOf<T>::type;
  constexpr int width = sizeof(V) / sizeof(T);
  constexpr int line = 64 / sizeof(T);
  if (end - begin < width) {
    for (std::int64_t at = begin; at < end; ++at) run_one_column(columns, at);
    return;
  }
  Runner<T> runners[most_statements];
  for (int n = 0; n < columns.statement_count; ++n) {
    runners[n] = runner_for<V, T>(code_of(columns, columns.statements[n]), Known{});
  }
  for (std::int64_t row = 0; row < columns.rows; ++row) {
    const std::int64_t in = row * columns.input_stride, out = row * columns.output_stride;
    const auto chunk = [&](std::int64_t at, std::int64_t count, bool streamed) {
      run_chunk(columns, runners, in + at, out + at, count, streamed);
    };
    std::int64_t at = begin, last = end;
    if (columns.streamed && end - begin >= 4 * line) {
      // The lines at the ends are written again.
      chunk(begin, line, false);
      chunk(end - line, line, false);
      at += line;
      last -= line;
    }
    const bool streamed = last < end;
    while (last - at >= width) {
      const std::int64_t count = last - at < columns.chunk ? (last - at) / width * width : columns.chunk;
      chunk(at, count, streamed);
      at += count;
    }
    // The rest as one more vector: some points a second time, which gives the same values.
    if (at < last) chunk(last - width, width, false);
  }
#if defined(__x86_64__)
  if (columns.streamed) _mm_sfence();
#endif
}

}  // namespace

void run_columns(const Columns<float>& rows, std::int64_t begin, std::int64_t end) { run(rows, begin, end); }
void run_columns(const Columns<double>& rows, std::int64_t begin, std::int64_t end) { run(rows, begin, end); }

}  // namespace rubriscope::ops::stencil::RUBRISCOPE_ISA
