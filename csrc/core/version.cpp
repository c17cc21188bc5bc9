#include "rubriscope/core/version.h"

namespace rubriscope {

const char* version() { return RUBRISCOPE_VERSION; }

const char* sqlite_origin() { return RUBRISCOPE_SQLITE_ORIGIN; }

}  // namespace rubriscope
