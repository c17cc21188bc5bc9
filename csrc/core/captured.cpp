#include "rubriscope/core/captured.h"

#include <charconv>
#include <cmath>

#include "rubriscope/core/json.h"

namespace rubriscope {
namespace {

template <class Number>
std::optional<Number> parse(std::string_view text) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<std::int64_t> captured_integer(std::string_view text, std::uint8_t form) {
  if (form != static_cast<std::uint8_t>(CaptureForm::integer)) return std::nullopt;
  // A leading zero ("007", "-0") would not come back as it was.
  const std::string_view digits = text.substr(!text.empty() && text[0] == '-' ? 1 : 0);
  if (digits.size() > 1 && digits[0] == '0') return std::nullopt;
  if (text == "-0") return std::nullopt;
  return parse<std::int64_t>(text);
}

std::optional<double> captured_real(std::string_view text, std::uint8_t form) {
  if (form != static_cast<std::uint8_t>(CaptureForm::real)) return std::nullopt;
  return parse<double>(text);
}

std::string_view capture_note(std::uint8_t form) {
  const bool cut = (form & kCaptureCut) != 0;
  if ((form & ~kCaptureCut) == static_cast<int>(CaptureForm::repr)) return cut ? "cut repr" : "repr";
  return cut ? "cut" : "";
}

void append_captured_text(std::string& out, std::string_view text, std::uint8_t form) {
  if (const auto real = captured_real(text, form)) {
    char digits[32];
    const auto end = std::to_chars(digits, digits + sizeof digits, *real).ptr;
    out += std::isnan(*real) ? std::string_view("nan") : std::string_view(digits, end - digits);
    return;
  }
  append_valid_utf8(out, text);
  if (form & kCaptureCut) out += "\xE2\x80\xA6";
}

}  // namespace rubriscope
