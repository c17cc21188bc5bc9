// A record as a Python object.
#pragma once

#include <pybind11/pybind11.h>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"

namespace rubriscope::binding {

/// A rubriscope.NeuralSnapshot of a snapshot record. Holds the GIL; throws what Python raises.
pybind11::object snapshot_object(const RecordView& record, const SessionInfo& session,
                                 const WriterInfo& writer, bool recovered);

}  // namespace rubriscope::binding
