// Everything of rubriscope's C++ interface that needs no torch; rubriscope/torch.h adds tensors.
#pragma once

#include "rubriscope/core/clock.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"
#include "rubriscope/core/schema.h"
#include "rubriscope/core/version.h"
#include "rubriscope/film/film_reader.h"
#include "rubriscope/recorder/position.h"
#include "rubriscope/recorder/recorder.h"
#include "rubriscope/recorder/recovery.h"
#include "rubriscope/recorder/report.h"
#include "rubriscope/recorder/sink.h"
#include "rubriscope/rubric/observation.h"
#include "rubriscope/rubric/rubric.h"
#include "rubriscope/sinks/jsonl/jsonl_sink.h"
#include "rubriscope/sinks/sqlite/sqlite_sink.h"
