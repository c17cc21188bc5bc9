#include "rubriscope/trace/trace_line.h"

#include <charconv>
#include <chrono>
#include <cstring>

#include "rubriscope/core/json.h"

namespace rubriscope {

namespace {

class Walk {
 public:
  explicit Walk(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  bool accept(char c) {
    space();
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }

  /// What stands between quotes; the first one has been taken.
  bool rest_of_string(std::string_view& text) {
    const char* const start = at_;
    for (;;) {
      const auto* const quote =
          static_cast<const char*>(std::memchr(at_, '"', static_cast<std::size_t>(end_ - at_)));
      if (quote == nullptr) return false;
      const char* slash = quote;
      while (slash > start && slash[-1] == '\\') --slash;
      at_ = quote + 1;
      if ((quote - slash) % 2 == 0) {
        text = {start, static_cast<std::size_t>(quote - start)};
        return true;
      }
    }
  }

  /// A value of any kind. Of a string `text` is what stands between its quotes, else the whole value.
  bool value(std::string_view& text, bool& is_string) {
    space();
    if (at_ == end_) return false;
    is_string = *at_ == '"';
    if (is_string) {
      ++at_;
      return rest_of_string(text);
    }
    const char* const start = at_;
    const bool done = *at_ == '{' || *at_ == '[' ? nested() : scalar();
    text = {start, static_cast<std::size_t>(at_ - start)};
    return done;
  }

  bool at_end() {
    space();
    return at_ == end_;
  }

 private:
  void space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\r' || *at_ == '\n')) ++at_;
  }

  bool nested() {
    char closing[64];
    std::size_t depth = 0;
    std::string_view skipped;
    while (at_ != end_) {
      const char c = *at_++;
      if (c == '{' || c == '[') {
        if (depth == sizeof closing) return false;
        closing[depth++] = c == '{' ? '}' : ']';
      } else if (c == '}' || c == ']') {
        if (closing[--depth] != c) return false;
        if (depth == 0) return true;
      } else if (c == '"') {
        if (!rest_of_string(skipped)) return false;
      }
    }
    return false;
  }

  bool scalar() {
    const char* const start = at_;
    while (at_ != end_ && ((*at_ >= '0' && *at_ <= '9') || (*at_ >= 'a' && *at_ <= 'z') || *at_ == '-' ||
                           *at_ == '+' || *at_ == '.' || *at_ == 'E')) {
      ++at_;
    }
    return at_ != start;
  }

  const char* at_;
  const char* end_;
};

/// Reads `digits` digits at `at`; false where there are others.
bool number(std::string_view text, std::size_t at, std::size_t digits, int& value) {
  if (at + digits > text.size()) return false;
  const auto read = std::from_chars(text.data() + at, text.data() + at + digits, value);
  return read.ec == std::errc{} && read.ptr == text.data() + at + digits && text[at] != '-';
}

}  // namespace

bool read_trace_line(std::string_view line, TraceLine& into) {
  into = {};
  Walk walk(line);
  if (!walk.accept('{')) return false;
  bool first = true;
  std::string_view key;
  std::string_view value;
  while (!walk.accept('}')) {
    if (!first && !walk.accept(',')) return false;
    first = false;
    bool is_string = false;
    if (!walk.accept('"') || !walk.rest_of_string(key) || !walk.accept(':') ||
        !walk.value(value, is_string)) {
      return false;
    }
    if (is_string) {
      if (key == "trace_id") {
        into.trace_id = value;
      } else if (key == "parent_id") {
        into.parent_id = value;
      } else if (key == "timestamp") {
        into.timestamp = value;
      } else if (key == "hrm_layer") {
        into.layer = value;
      } else if (key == "operation") {
        into.operation = value;
      } else if (key == "status") {
        into.status = value;
      }
    } else if (key == "duration_ms") {
      const char* const end = value.data() + value.size();
      const auto read = std::from_chars(value.data(), end, into.duration_ms);
      if (read.ec != std::errc{} || read.ptr != end) return false;
    }
  }
  return walk.at_end() && !into.trace_id.empty() && !into.layer.empty() && !into.status.empty() &&
         is_valid_json(line);
}

std::optional<std::int64_t> read_timestamp(std::string_view text) {
  using namespace std::chrono;
  int part[6];
  static constexpr std::size_t kAt[] = {0, 5, 8, 11, 14, 17};
  for (int i = 0; i < 6; ++i) {
    if (!number(text, kAt[i], i == 0 ? 4 : 2, part[i])) return std::nullopt;
  }
  const year_month_day date{year(part[0]), month(static_cast<unsigned>(part[1])),
                            day(static_cast<unsigned>(part[2]))};
  if (!date.ok() || text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != ' ') ||
      text[13] != ':' || text[16] != ':' || part[3] > 23 || part[4] > 59 || part[5] > 60) {
    return std::nullopt;
  }
  std::int64_t ns = sys_days(date).time_since_epoch().count() * std::int64_t{86'400} + part[3] * 3600 +
                    part[4] * 60 + part[5];
  ns *= 1'000'000'000;
  std::size_t at = 19;
  if (at < text.size() && text[at] == '.') {
    std::int64_t unit = 100'000'000;
    for (++at; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, unit /= 10) {
      ns += (text[at] - '0') * unit;
    }
  }
  if (at == text.size() || text.substr(at) == "Z") return ns;
  int hours = 0;
  int minutes = 0;
  if (text.size() != at + 6 || (text[at] != '+' && text[at] != '-') || text[at + 3] != ':' ||
      !number(text, at + 1, 2, hours) || !number(text, at + 4, 2, minutes)) {
    return std::nullopt;
  }
  const std::int64_t offset = (hours * 3600 + minutes * 60) * std::int64_t{1'000'000'000};
  return text[at] == '+' ? ns - offset : ns + offset;
}

}  // namespace rubriscope
