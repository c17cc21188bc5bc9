// Reads a program from the lists that rubriscope.ops.physics._program writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "rubriscope/ops/stencil/program.h"

namespace rubriscope::ops::stencil {

/// The layout of `code` is that of _program.py; throws ValueError unless every index in it is in range, so
/// that a program that was read cannot make a kernel read or write elsewhere.
std::unique_ptr<Program> parse(const std::int64_t* code, std::size_t code_size, const double* numbers,
                               std::size_t numbers_size);

}  // namespace rubriscope::ops::stencil
