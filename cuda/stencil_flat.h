// Stages on grids without special nodes: the CUDA kernels' launcher.
#pragma once

#include "rubriscope/ops/stencil/flat.h"
#include "stencil.h"

namespace rubriscope::cuda {

/// As rubriscope_stencil_stage where the stage can be flattened (csrc/ops/stencil/flat.h); false, and nothing
/// is launched, where it cannot.
bool run_flat_stage(const ops::stencil::Program& program, const StencilArrays& arrays, bool gather,
                    double scale, bool is_double, cudaStream_t stream);

}  // namespace rubriscope::cuda
