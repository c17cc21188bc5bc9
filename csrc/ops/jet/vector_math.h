// Elementary functions on GCC vectors of floats or doubles, a few units in the last place, for *.simd.cpp
// files: included inside namespace RUBRISCOPE_ISA. No branches but one: a sine of a huge argument goes to
// libm.

// One vector register: a type, its lanes and its bits as integers.
#if defined(__AVX512F__)
#define RUBRISCOPE_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define RUBRISCOPE_VECTOR_BYTES 32
#else
#define RUBRISCOPE_VECTOR_BYTES 16
#endif

template <class T>
struct Register;

template <>
struct Register<float> {
  typedef float Vector __attribute__((vector_size(RUBRISCOPE_VECTOR_BYTES)));
  typedef float Memory __attribute__((vector_size(RUBRISCOPE_VECTOR_BYTES), aligned(4), may_alias));
  typedef std::int32_t Bits __attribute__((vector_size(RUBRISCOPE_VECTOR_BYTES)));
  static constexpr int lanes = RUBRISCOPE_VECTOR_BYTES / 4;
};

template <>
struct Register<double> {
  typedef double Vector __attribute__((vector_size(RUBRISCOPE_VECTOR_BYTES)));
  typedef double Memory __attribute__((vector_size(RUBRISCOPE_VECTOR_BYTES), aligned(8), may_alias));
  typedef std::int64_t Bits __attribute__((vector_size(RUBRISCOPE_VECTOR_BYTES)));
  static constexpr int lanes = RUBRISCOPE_VECTOR_BYTES / 8;
};

template <class T>
using Vector = typename Register<T>::Vector;

template <class T>
RUBRISCOPE_HD Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename Register<T>::Memory*>(from);
}

template <class T>
RUBRISCOPE_HD void store(T* to, Vector<T> value) {
  *reinterpret_cast<typename Register<T>::Memory*>(to) = value;
}

template <class T>
RUBRISCOPE_HD Vector<T> splat(T value) {
  return value - Vector<T>{};
}

template <class T, int N>
RUBRISCOPE_HD Vector<T> polynomial(const double (&c)[N], Vector<T> x) {
  Vector<T> sum = splat<T>(static_cast<T>(c[N - 1]));
#pragma GCC unroll 32
  for (int i = N - 2; i >= 0; --i) sum = sum * x + static_cast<T>(c[i]);
  return sum;
}

template <class T>
RUBRISCOPE_HD Vector<T> lower(Vector<T> a, Vector<T> b) {
  return a < b ? a : b;  // a NaN in `a` gives b: the clamps below keep NaN out of this
}

template <class T>
RUBRISCOPE_HD Vector<T> magnitude(Vector<T> x) {
  return x < 0 ? -x : x;
}

// What differs between the types. `shifter` rounds to the nearest integer when added and subtracted, and
// leaves that integer in the low bits; ln2 is split so that its multiples are exact.
template <class T>
struct Numbers;

template <>
struct Numbers<float> {
  static constexpr float shifter = 12582912.0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float exp_limit = 87.0f, tanh_limit = 10.0f, sin_limit = 1e4f;
  // (e^r - 1 - r) / r²
  static constexpr double expm1[6] = {1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040};
  // π/2 in parts whose multiples are exact
  static constexpr double half_pi[4] = {1.5703125, 0.0004835128784179688, 3.1385570764541626e-07,
                                        6.077100628276711e-11};
  // (sin r - r) / r³ and (cos r - 1 + r²/2) / r⁴, in r²
  static constexpr double sine[4] = {-1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880};
  static constexpr double cosine[4] = {1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800};
  // (1 + 2y) exp(y²) erfc(y) in (y - 3) / (y + 3), relative error 2.5e-9
  static constexpr double erfcx[13] = {
      1.253008058253423866,     -0.13562106940027360162,    -0.047562292695653783109,
      0.1296441143440813695,    -0.11927369132068096813,    0.068316567771141002065,
      -0.023770334675484001228, 0.0024991168696065921343,   0.0018881128646081286107,
      -0.000726453679033689489, -0.00010413071427876860629, 7.7310242240640117062e-05,
      3.8618491364990914738e-6};
};

template <>
struct Numbers<double> {
  static constexpr double shifter = 6755399441055744.0, ln2_high = 0x1.62e42fee00000p-1,
                          ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double exp_limit = 708.0, tanh_limit = 20.0, sin_limit = 1e7;
  static constexpr double expm1[13] = {1.0 / 2,          1.0 / 6,        1.0 / 24,        1.0 / 120,
                                       1.0 / 720,        1.0 / 5040,     1.0 / 40320,     1.0 / 362880,
                                       1.0 / 3628800,    1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800,
                                       1.0 / 87178291200};
  static constexpr double half_pi[4] = {1.5707963109016418457, 1.5893254712295857346e-08,
                                        6.1232339320535942510e-17, 6.3683171635109499e-25};
  static constexpr double sine[8] = {
      -1.0 / 6,        1.0 / 120,        -1.0 / 5040,          1.0 / 362880,
      -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000, 1.0 / 355687428096000};
  static constexpr double cosine[8] = {
      1.0 / 24,        -1.0 / 720,         1.0 / 40320,          -1.0 / 3628800,
      1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000, -1.0 / 6402373705728000};
  // relative error 1.1e-17
  static constexpr double erfcx[25] = {
      1.253008058269729647,       -0.13562110612458115696,     -0.047562294353449176007,
      0.12964515870275924696,     -0.11927366341538745189,     0.068308027344013885993,
      -0.023770514917149944894,   0.0025293918156441293097,    0.0018886903447797307272,
      -0.00077983226931109845788, -0.00010515971826739674001,  0.00012509934102732858371,
      4.9491916778665893109e-6,   -0.000020100538469101878162, -7.3081588103377867288e-7,
      3.4723643839298333921e-6,   3.5574081718819980356e-7,    -6.1659381077302502092e-7,
      -1.4045502910049479566e-7,  1.0183108864289323948e-7,    4.1049454139271779027e-8,
      -1.3310895645521182388e-8,  -8.2119622859828308823e-9,   9.8590690180055767597e-10,
      8.3842411028450519261e-10};
};

/// x = n ln2 + r with |r| ≤ ln2/2: 2ⁿ, and e^r − 1 to full relative accuracy.
template <class T>
RUBRISCOPE_HD void split_exp(Vector<T> x, Vector<T>& power, Vector<T>& fraction) {
  using N = Numbers<T>;
  using Bits = typename Register<T>::Bits;
  const Vector<T> shifted = x * static_cast<T>(1.4426950408889634) + N::shifter;
  const Vector<T> n = shifted - N::shifter;
  Vector<T> r = x - n * N::ln2_high;
  r = r - n * N::ln2_low;
  fraction = r * r * polynomial<T>(N::expm1, r) + r;
  const Bits exponent =
      (reinterpret_cast<Bits>(shifted) << N::mantissa) +
      (static_cast<typename std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>>(N::bias)
       << N::mantissa);
  power = reinterpret_cast<Vector<T>>(exponent);
}

/// e^x for x ≤ 0; 0 below the smallest normal number, NaN for NaN.
template <class T>
RUBRISCOPE_HD Vector<T> exp_negative(Vector<T> x) {
  const Vector<T> least = splat<T>(-Numbers<T>::exp_limit);
  Vector<T> power, fraction;
  split_exp<T>(x < least ? least : x, power, fraction);
  return x < least ? Vector<T>{} : power * fraction + power;
}

template <class T>
RUBRISCOPE_HD Vector<T> tanh_of(Vector<T> x) {
  const Vector<T> limit = splat<T>(Numbers<T>::tanh_limit);
  const Vector<T> clamped = x > limit ? limit : x < -limit ? -limit : x;
  Vector<T> power, fraction;
  split_exp<T>(clamped + clamped, power, fraction);
  const Vector<T> e = power * fraction + (power - 1);  // e^{2x} − 1
  return e / (e + 2);
}

template <class T>
RUBRISCOPE_HD Vector<T> logistic_of(Vector<T> x) {
  const Vector<T> e = exp_negative<T>(x > 0 ? -x : x);
  return (x < 0 ? e : Vector<T>{} + 1) / (e + 1);
}

template <class T>
RUBRISCOPE_HD void sine_cosine(Vector<T> x, Vector<T>& sine, Vector<T>& cosine) {
  using N = Numbers<T>;
  using Bits = typename Register<T>::Bits;
  const Bits inside = magnitude<T>(x) <= N::sin_limit;
  bool all = true;
  for (int lane = 0; lane < Register<T>::lanes; ++lane) all = all && inside[lane] != 0;
  if (!all) {
    for (int lane = 0; lane < Register<T>::lanes; ++lane) {
      sine[lane] = static_cast<T>(__builtin_sin(x[lane]));
      cosine[lane] = static_cast<T>(__builtin_cos(x[lane]));
    }
    return;
  }
  const Vector<T> shifted = x * static_cast<T>(0.63661977236758134308) + N::shifter;
  const Vector<T> n = shifted - N::shifter;
  Vector<T> r = x;
#pragma GCC unroll 4
  for (int part = 0; part < 4; ++part) r = r - n * static_cast<T>(N::half_pi[part]);
  const Vector<T> q = r * r;
  const Vector<T> s = r * q * polynomial<T>(N::sine, q) + r;
  const Vector<T> c = q * q * polynomial<T>(N::cosine, q) - q / 2 + 1;
  const Bits quadrant = reinterpret_cast<Bits>(shifted);
  const Vector<T> first = (quadrant & 1) != 0 ? c : s, second = (quadrant & 1) != 0 ? s : c;
  sine = (quadrant & 2) != 0 ? -first : first;
  cosine = ((quadrant + 1) & 2) != 0 ? -second : second;
}

/// The normal distribution function Φ(x) = erfc(−x/√2)/2, relatively accurate in the lower tail, and its
/// density.
template <class T>
RUBRISCOPE_HD void normal(Vector<T> x, Vector<T>& distribution, Vector<T>& density) {
  const Vector<T> size = magnitude<T>(x);
  const Vector<T> bound = size > 60 ? Vector<T>{} + 60 : size;  // e^{−x²/2} is 0 beyond; keeps x² finite
  const Vector<T> half = bound * bound / 2;
#if defined(__FMA__)
  // The rounding error of x²/2 times the slope of exp.
  const Vector<T> lost = bound * (bound / 2) - half;
  Vector<T> e = exp_negative<T>(-half);
  e = e - e * lost;
#else
  const Vector<T> e = exp_negative<T>(-half);
#endif
  const Vector<T> y = bound * static_cast<T>(0.70710678118654752440);
  const Vector<T> tail = e / 2 * polynomial<T>(Numbers<T>::erfcx, (y - 3) / (y + 3)) / (y * 2 + 1);
  distribution = x < 0 ? tail : Vector<T>{} + 1 - tail;
  density = e * static_cast<T>(0.39894228040143267794);
}
