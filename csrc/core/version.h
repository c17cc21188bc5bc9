// What this build is.
#pragma once

namespace rubriscope {

/// The library's version, "0.1.0".
const char* version();

/// Where the SQLite this library uses came from when it was built: "system 3.40.1" or "bundled 3.50.4".
const char* sqlite_origin();

}  // namespace rubriscope
