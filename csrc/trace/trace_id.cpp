#include "rubriscope/trace/trace_id.h"

#include <errno.h>
#include <pthread.h>
#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>

#include "rubriscope/core/errors.h"
#include "rubriscope/trace/layer.h"

namespace rubriscope {

namespace {

// Counts the forks this process comes from: a generator of another generation was the parent's.
std::atomic<std::uint32_t> g_generation{1};

const int g_watching_forks =
    pthread_atfork(nullptr, nullptr, [] { g_generation.fetch_add(1, std::memory_order_relaxed); });

std::uint64_t seed() {
  std::uint64_t bits = 0;
  while (getrandom(&bits, sizeof bits, 0) != static_cast<ssize_t>(sizeof bits)) {
    if (errno != EINTR) throw SystemError(errno, "cannot get random bytes for trace ids");
  }
  return bits;
}

struct Generator {
  std::uint64_t state;
  std::uint32_t generation;
};
thread_local Generator t_generator{0, 0};

// FNV-1a, finished by a multiply-shift.
std::uint64_t hash_of(std::string_view text, std::uint64_t start) {
  std::uint64_t hash = start;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  hash ^= hash >> 32;
  hash *= 0xD6E8FEB86659FD93U;
  return hash ^ hash >> 32;
}

}  // namespace

std::uint64_t random_span_id() {
  Generator& own = t_generator;
  if (own.generation != g_generation.load(std::memory_order_relaxed)) [[unlikely]] {
    if (g_watching_forks != 0) throw SystemError(g_watching_forks, "cannot register the fork handler of ids");
    own.state = seed();
    own.generation = g_generation.load(std::memory_order_relaxed);
  }
  std::uint64_t value = 0;
  do {
    own.state += 0xA0761D6478BD642FU;
    const auto wide = static_cast<unsigned __int128>(own.state) * (own.state ^ 0xE7037ED1A0B428DBU);
    value = static_cast<std::uint64_t>(wide >> 64) ^ static_cast<std::uint64_t>(wide);
  } while (value == 0);
  return value;
}

char* write_hex(char* at, std::uint64_t value, std::size_t digits) {
  static constexpr char kDigits[] = "0123456789abcdef";
  for (std::size_t i = digits; i-- > 0; value >>= 4) at[i] = kDigits[value & 15];
  return at + digits;
}

bool read_hex(std::string_view text, std::uint64_t& value) {
  if (text.empty() || text.size() > 16) return false;
  value = 0;
  for (const char c : text) {
    std::uint64_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<std::uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<std::uint64_t>(c - 'a' + 10);
    } else {
      return false;
    }
    value = value << 4 | digit;
  }
  return true;
}

char* write_trace_id(char* at, std::string_view layer_code, std::int64_t unix_seconds, std::uint64_t random) {
  std::memcpy(at, layer_code.data(), layer_code.size());
  at += layer_code.size();
  *at++ = '_';
  at = std::to_chars(at, at + 20, unix_seconds).ptr;
  *at++ = '_';
  return write_hex(at, random, kRandomDigits);
}

std::uint64_t random_part(std::string_view id) {
  const std::size_t bar = id.rfind('_');
  const std::string_view random = bar == std::string_view::npos ? id : id.substr(bar + 1);
  std::uint64_t value = 0;
  return random.size() == kRandomDigits && read_hex(random, value) ? value : 0;
}

std::string TraceNumber::hex() const {
  std::string text(32, '0');
  write_hex(write_hex(text.data(), high, 16), low, 16);
  return text;
}

TraceNumber trace_number_of_root(std::string_view id) {
  const std::size_t first = id.find('_');
  const std::size_t last = id.rfind('_');
  const std::uint64_t random = random_part(id);
  std::uint32_t seconds = 0;
  if (random != 0 && first != std::string_view::npos && last > first + 1) {
    const std::string_view digits = id.substr(first + 1, last - first - 1);
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), seconds);
    if (read.ec == std::errc{} && read.ptr == digits.data() + digits.size()) {
      return trace_number(id.substr(0, first), seconds, random);
    }
  }
  return {hash_of(id, 0xCBF29CE484222325U), hash_of(id, 0x9E3779B97F4A7C15U) | 1};
}

std::string root_of_trace(TraceNumber trace) {
  char code[5]{};
  for (int i = 0; i < 4; ++i) code[i] = static_cast<char>(trace.high >> (24 - 8 * i) & 0xFF);
  bool known = false;
  for (const Layer& layer : layers()) {
    known |= layer.code == code;
    if (layer.code.size() > 4 && layer.code.starts_with(code)) return trace.hex();
  }
  if (!known || trace.low == 0) return trace.hex();
  char id[kMostTraceId];
  return {id, write_trace_id(id, code, static_cast<std::int64_t>(trace.high >> 32), trace.low)};
}

}  // namespace rubriscope
