"""Where the C++ side of the installed package lies, for builds that use it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

#: For CMAKE_PREFIX_PATH, as torch.utils.cmake_prefix_path: find_package(rubriscope) finds the package here.
cmake_prefix_path: str = str(_PACKAGE / "share" / "cmake")

#: The folder to include from: #include "rubriscope/rubriscope.h".
include_path: str = str(_PACKAGE / "include")

#: The exported C++ library.
library_path: str = str(_PACKAGE / "lib" / "librubriscope.so")
