#include "rubriscope/rubric/text_rubrics.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "rubriscope/core/errors.h"

namespace rubriscope {

namespace {

constexpr std::string_view kSpace = " \t\n\r\f\v";

std::string_view stripped(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// UTF-8 as code points; a byte that starts no valid sequence stands for itself.
std::vector<std::uint32_t> code_points(std::string_view text) {
  std::vector<std::uint32_t> points;
  points.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    std::uint32_t point = length == 1 ? lead : lead & (0xFFu >> (length + 1));
    bool valid = i + length <= text.size();
    for (std::size_t k = 1; valid && k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      valid = (next & 0xC0) == 0x80;
      point = point << 6 | (next & 0x3F);
    }
    points.push_back(valid ? point : lead);
    i += valid ? length : 1;
  }
  return points;
}

std::size_t distance(const std::vector<std::uint32_t>& longer, const std::vector<std::uint32_t>& shorter) {
  std::vector<std::size_t> row(shorter.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= longer.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= shorter.size(); ++j) {
      const std::size_t substituted = diagonal + (longer[i - 1] != shorter[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace

std::size_t levenshtein(std::string_view a, std::string_view b) {
  const auto left = code_points(a);
  const auto right = code_points(b);
  return left.size() >= right.size() ? distance(left, right) : distance(right, left);
}

Score ExactMatch::forward(const Value& action, const Value& observation) {
  std::string_view left = action.text();
  std::string_view right = observation.text();
  if (strip_) {
    left = stripped(left);
    right = stripped(right);
  }
  if (!ignore_case_) return left == right ? 1.0 : 0.0;
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [](char a, char b) { return lower(a) == lower(b); })
             ? 1.0
             : 0.0;
}

Score FuzzyMatch::forward(const Value& action, const Value& observation) {
  const auto left = code_points(action.text());
  const auto right = code_points(observation.text());
  const std::size_t longest = std::max(left.size(), right.size());
  if (longest == 0) return 1.0;
  const std::size_t edits = left.size() >= right.size() ? distance(left, right) : distance(right, left);
  return 1.0 - static_cast<double>(edits) / static_cast<double>(longest);
}

RegexMatch::RegexMatch(const std::string& pattern, bool full_match) try
    : pattern_(pattern), full_match_(full_match) {
} catch (const std::regex_error& error) {
  throw ValueError("pattern '" + pattern + "' is no regular expression: " + error.what());
}

Score RegexMatch::forward(const Value& action, const Value&) {
  const std::string_view text = action.text();
  const bool found = full_match_ ? std::regex_match(text.begin(), text.end(), pattern_)
                                 : std::regex_search(text.begin(), text.end(), pattern_);
  return found ? 1.0 : 0.0;
}

LengthBetween::LengthBetween(std::size_t least, std::size_t most) : least_(least), most_(most) {
  if (least > most) {
    throw ValueError("least (" + std::to_string(least) + ") must not be above most (" + std::to_string(most) +
                     ")");
  }
}

Score LengthBetween::forward(const Value& action, const Value&) {
  const std::size_t length = code_points(action.text()).size();
  return length >= least_ && length <= most_ ? 1.0 : 0.0;
}

}  // namespace rubriscope
