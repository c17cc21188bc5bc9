// A captured action or observation read back: extras hold every capture as text, `form` says what it was.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "rubriscope/core/record.h"

namespace rubriscope {

/// The number, if the capture was an integer of 64 bits and not cut.
std::optional<std::int64_t> captured_integer(std::string_view text, std::uint8_t form);

/// The number, if the capture was a float; it may be infinite or NaN.
std::optional<double> captured_real(std::string_view text, std::uint8_t form);

/// Appends the text as valid UTF-8; one that was cut ends in "…".
void append_captured_text(std::string& out, std::string_view text, std::uint8_t form);

}  // namespace rubriscope
