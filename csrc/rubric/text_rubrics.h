// Rubrics over texts in C++: a tree of these and containers runs without the GIL.
#pragma once

#include <cstddef>
#include <regex>
#include <string>
#include <string_view>

#include "rubriscope/rubric/rubric.h"

namespace rubriscope {

/// 1 where action and observation are the same text, else 0.
class ExactMatch final : public Rubric {
 public:
  /// `strip` ignores white space at both ends, `ignore_case` the case of ASCII letters.
  explicit ExactMatch(bool strip = true, bool ignore_case = false)
      : strip_(strip), ignore_case_(ignore_case) {}

 protected:
  Score forward(const Value& action, const Value& observation) override;

 private:
  bool strip_;
  bool ignore_case_;
};

/// Similarity of action and observation: 1 − d / max(n, m), with the Levenshtein distance d over code points
/// (V. I. Levenshtein, 1966; O(n·m) time, O(min(n, m)) memory). Two empty texts give 1.
class FuzzyMatch final : public Rubric {
 protected:
  Score forward(const Value& action, const Value& observation) override;
};

/// 1 where the pattern (ECMAScript syntax) is found in the action, or matches all of it; else 0.
class RegexMatch final : public Rubric {
 public:
  /// Throws ValueError for a pattern that is no regular expression.
  explicit RegexMatch(const std::string& pattern, bool full_match = false);

 protected:
  Score forward(const Value& action, const Value& observation) override;

 private:
  std::regex pattern_;
  bool full_match_;
};

/// 1 where the action has between `least` and `most` code points, else 0.
class LengthBetween final : public Rubric {
 public:
  /// Throws ValueError unless least <= most.
  LengthBetween(std::size_t least, std::size_t most);

 protected:
  Score forward(const Value& action, const Value& observation) override;

 private:
  std::size_t least_;
  std::size_t most_;
};

/// Levenshtein distance in code points; invalid UTF-8 counts byte by byte.
std::size_t levenshtein(std::string_view a, std::string_view b);

}  // namespace rubriscope
