// Columns and summaries as Python objects.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "rubriscope/film/film_reader.h"

namespace rubriscope::binding {

/// A dictionary of NumPy arrays, which take over the memory.
pybind11::dict as_dict(ScoreColumns&& columns, bool with_durations);
/// A list of dictionaries with the fields of rubriscope.series.Summary but `kind`.
pybind11::list as_list(const std::vector<PathSummary>& summaries);

}  // namespace rubriscope::binding
