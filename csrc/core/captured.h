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

/// Appends the text as valid UTF-8; one that was cut ends in "…". A float in its shortest form, however the
/// record writes it: what was read back from canonical bytes gives the same text.
void append_captured_text(std::string& out, std::string_view text, std::uint8_t form);

/// What the text lacks of the value that was captured: "repr", "cut" or "cut repr"; empty when it is the
/// value.
std::string_view capture_note(std::uint8_t form);

}  // namespace rubriscope
