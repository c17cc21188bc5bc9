#include "rubriscope/trace/timestamp.h"

#include <charconv>
#include <chrono>

namespace rubriscope {

namespace {

void append_digits(std::string& out, std::uint64_t value, std::size_t digits) {
  const std::size_t end = out.size() + digits;
  out.resize(end);
  for (std::size_t i = 1; i <= digits; ++i, value /= 10) out[end - i] = static_cast<char>('0' + value % 10);
}

}  // namespace

void append_timestamp(std::string& out, std::int64_t wall_ns) {
  using namespace std::chrono;
  const sys_time<nanoseconds> time{nanoseconds(wall_ns)};
  const sys_days day = floor<days>(time);
  const year_month_day date(day);
  const hh_mm_ss clock(floor<microseconds>(time - day));
  append_digits(out, static_cast<std::uint64_t>(static_cast<int>(date.year())), 4);
  out += '-';
  append_digits(out, static_cast<unsigned>(date.month()), 2);
  out += '-';
  append_digits(out, static_cast<unsigned>(date.day()), 2);
  out += 'T';
  append_digits(out, static_cast<std::uint64_t>(clock.hours().count()), 2);
  out += ':';
  append_digits(out, static_cast<std::uint64_t>(clock.minutes().count()), 2);
  out += ':';
  append_digits(out, static_cast<std::uint64_t>(clock.seconds().count()), 2);
  out += '.';
  append_digits(out, static_cast<std::uint64_t>(clock.subseconds().count()), 6);
  out += "+00:00";
}

void append_ms(std::string& out, std::uint64_t ns) {
  char whole[24];
  out.append(whole, std::to_chars(whole, whole + sizeof whole, ns / 1'000'000).ptr);
  if (ns % 1'000'000 == 0) return;
  out += '.';
  append_digits(out, ns % 1'000'000, 6);
  out.resize(out.find_last_not_of('0') + 1);
}

}  // namespace rubriscope
