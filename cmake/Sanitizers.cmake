# RUBRISCOPE_SANITIZE=address builds everything with ASan and UBSan, =thread with TSan.
if(RUBRISCOPE_SANITIZE STREQUAL "address")
  set(_flags -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
elseif(RUBRISCOPE_SANITIZE STREQUAL "thread")
  set(_flags -fsanitize=thread -fno-omit-frame-pointer)
elseif(RUBRISCOPE_SANITIZE)
  message(FATAL_ERROR
    "RUBRISCOPE_SANITIZE is '${RUBRISCOPE_SANITIZE}'; expected 'address', 'thread' or nothing")
endif()
if(RUBRISCOPE_SANITIZE)
  if(NOT CMAKE_BUILD_TYPE MATCHES "^(Debug|RelWithDebInfo)$")
    # Optimised enough to be quick, with line numbers in the reports and asserts on.
    set(CMAKE_BUILD_TYPE RelWithDebInfo)
    set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")
    set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O1 -g1")
  endif()
  add_compile_options(${_flags})
  add_link_options(${_flags})
endif()
