# What librubriscope needs: the system's library first, a download when there is none, and a clear list of
# what is missing when neither can be had. RUBRISCOPE_OFFLINE=ON forbids downloads.
include(FetchContent)
option(RUBRISCOPE_OFFLINE "Never download a dependency" OFF)
set(_missing "")

find_package(Threads REQUIRED)

# Two SQLite libraries in one process drop each other's POSIX locks, and Python's sqlite3 module normally
# maps the system's: link that one where it is there.
find_package(SQLite3 3.31 QUIET)
if(SQLite3_FOUND)
  set(RUBRISCOPE_SQLITE_ORIGIN "system ${SQLite3_VERSION}")
elseif(RUBRISCOPE_OFFLINE)
  list(APPEND _missing "SQLite 3.31 or newer with headers (Debian: libsqlite3-dev)")
else()
  include(FetchSQLite)
endif()

# SHA-256, Ed25519 and AES-GCM are OpenSSL's.
find_package(OpenSSL 3.0 QUIET COMPONENTS Crypto)
if(NOT OPENSSL_FOUND)
  list(APPEND _missing "OpenSSL 3.0 or newer with headers (Debian: libssl-dev)")
endif()

if(RUBRISCOPE_BUILD_TESTS)
  find_package(GTest 1.12 QUIET)
  if(NOT GTest_FOUND)
    if(RUBRISCOPE_OFFLINE)
      list(APPEND _missing "GoogleTest 1.12 or newer (Debian: libgtest-dev)")
    else()
      message(NOTICE "rubriscope: no GoogleTest on this machine, so it is downloaded; where that fails, "
                     "install it (Debian: libgtest-dev)")
      set(INSTALL_GTEST OFF CACHE BOOL "" FORCE)
      FetchContent_Declare(googletest
        URL https://github.com/google/googletest/archive/refs/tags/v1.15.2.tar.gz
        URL_HASH SHA256=7b42b4d6ed48810c5362c265a17faebe90dc2373c885e5216439d37927f02926)
      FetchContent_MakeAvailable(googletest)
    endif()
  endif()
endif()

if(RUBRISCOPE_BUILD_PYTHON)
  find_package(Python 3.11 COMPONENTS Interpreter Development.Module)
  if(NOT Python_FOUND)
    list(APPEND _missing "Python 3.11 or newer with headers (Debian: python3-dev)")
  else()
    if(NOT pybind11_DIR)
      execute_process(COMMAND ${Python_EXECUTABLE} -m pybind11 --cmakedir
                      OUTPUT_VARIABLE pybind11_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
    set(PYBIND11_FINDPYTHON ON)
    find_package(pybind11 3.1 CONFIG QUIET)
    if(NOT pybind11_FOUND)
      list(APPEND _missing "pybind11 3.1 or newer (pip install 'pybind11>=3.1')")
    endif()
  endif()
endif()

if(_missing)
  list(JOIN _missing "\n  - " _list)
  message(FATAL_ERROR "rubriscope cannot be built; missing:\n  - ${_list}")
endif()
