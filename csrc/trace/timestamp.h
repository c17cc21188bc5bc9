// Times as trace.jsonl shows them.
#pragma once

#include <cstdint>
#include <string>

namespace rubriscope {

/// "2026-01-13T14:00:00.123456+00:00" of nanoseconds since the Unix epoch; digits below 1 µs are cut.
void append_timestamp(std::string& out, std::int64_t wall_ns);

/// Nanoseconds as milliseconds, all digits and no more: "5", "0.0125".
void append_ms(std::string& out, std::uint64_t ns);

}  // namespace rubriscope
