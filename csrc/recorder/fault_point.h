// Named points of the journal's protocol at which a test kills the process.
//
// Compiled in only with RUBRISCOPE_FAULT_POINTS; otherwise a point is nothing at all.
#pragma once

namespace rubriscope {

#ifdef RUBRISCOPE_FAULT_POINTS

/// Arms one point: the process raises SIGKILL at the nth pass (from 1) through it. nth 0 disarms. The
/// environment variable RUBRISCOPE_FAULT=point:nth does the same at start-up.
void arm_fault_point(const char* point, unsigned long nth);

/// A pass through a point.
void fault_point(const char* point);

#define RUBRISCOPE_FAULT_POINT(name) ::rubriscope::fault_point(name)

#else

#define RUBRISCOPE_FAULT_POINT(name) static_cast<void>(0)

#endif

}  // namespace rubriscope
