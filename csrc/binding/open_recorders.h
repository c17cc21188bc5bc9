// Which recorders are open in this process: where spans and observations go. All of it holds the GIL.
#pragma once

#include <cstdint>
#include <memory>

#include "rubriscope/binding/py_recorder.h"

namespace rubriscope::binding {

/// The recorder that was opened last and is still open, or null.
const std::shared_ptr<PyRecorder>& current_recorder();

/// Where observations of sight points go: the recorder attached for them, else current_recorder().
const std::shared_ptr<PyRecorder>& sight_recorder();

/// Changes whenever one of the two does.
std::uint64_t open_recorders_version();

void recorder_opened(std::shared_ptr<PyRecorder> recorder);

/// Lets go of it: it was closed, or nobody holds its Python object any more. Idempotent.
void recorder_closed(const std::shared_ptr<PyRecorder>& recorder);

/// Null: observations go to current_recorder() again.
void attach_sight_recorder(std::shared_ptr<PyRecorder> recorder);

}  // namespace rubriscope::binding
