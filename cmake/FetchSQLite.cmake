# Builds the SQLite amalgamation where the system has no SQLite headers: into librubriscope and hidden there, or,
# where tests and benchmarks call SQLite too, as a library they share, since two copies in one process drop
# each other's locks.
message(NOTICE "rubriscope: no SQLite headers on this machine, so its amalgamation is downloaded; "
               "where that fails, install them (Debian: libsqlite3-dev)")
set(_sqlite_version 3.50.4)
FetchContent_Declare(sqlite_amalgamation
  URL https://sqlite.org/2025/sqlite-amalgamation-3500400.zip
  URL_HASH SHA256=1d3049dd0f830a025a53105fc79fd2ab9431aea99e137809d064d8ee8356b032)
FetchContent_MakeAvailable(sqlite_amalgamation)

if(RUBRISCOPE_BUILD_TESTS OR RUBRISCOPE_BUILD_BENCH)
  set(_sqlite_form SHARED)
else()
  set(_sqlite_form STATIC)
endif()
add_library(rubriscope_sqlite ${_sqlite_form} ${sqlite_amalgamation_SOURCE_DIR}/sqlite3.c)
target_include_directories(rubriscope_sqlite SYSTEM PUBLIC $<BUILD_INTERFACE:${sqlite_amalgamation_SOURCE_DIR}>)
target_compile_definitions(rubriscope_sqlite PRIVATE
  SQLITE_THREADSAFE=1 SQLITE_DQS=0 SQLITE_OMIT_LOAD_EXTENSION SQLITE_ENABLE_MATH_FUNCTIONS)
target_link_libraries(rubriscope_sqlite PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
add_library(SQLite::SQLite3 ALIAS rubriscope_sqlite)
set(RUBRISCOPE_SQLITE_ORIGIN "bundled ${_sqlite_version}")
