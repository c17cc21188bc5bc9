// A record as a Python object.
#pragma once

#include <pybind11/pybind11.h>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"

namespace rubriscope::binding {

/// A rubriscope.NeuralSnapshot of a snapshot record. Holds the GIL; throws what Python raises.
pybind11::object snapshot_object(const RecordView& record, const SessionInfo& session,
                                 const WriterInfo& writer, bool recovered);

/// A rubriscope.snapshot.Scalars of a scalars record. Holds the GIL; throws what Python raises.
pybind11::object scalars_object(const RecordView& record, const SessionInfo& session,
                                const WriterInfo& writer, bool recovered);

/// A rubriscope.event.Event of an event's record. Holds the GIL; throws what Python raises.
pybind11::object event_object(const RecordView& record, const SessionInfo& session, const WriterInfo& writer,
                              bool recovered);

/// One of the three, as the record's kind says.
pybind11::object record_object(const RecordView& record, const SessionInfo& session, const WriterInfo& writer,
                               bool recovered);

}  // namespace rubriscope::binding
