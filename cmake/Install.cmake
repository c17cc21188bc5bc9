# One layout for a C++ prefix and for the Python package folder (the wheel): lib/, include/, share/cmake/.
# Components keep a fetched dependency's own install rules out of the wheel.
include(CMakePackageConfigHelpers)

install(TARGETS rubriscope EXPORT rubriscopeTargets LIBRARY DESTINATION lib COMPONENT rubriscope)
if(TARGET rubriscope_sqlite AND _sqlite_form STREQUAL "SHARED")
  install(TARGETS rubriscope_sqlite EXPORT rubriscopeTargets LIBRARY DESTINATION lib COMPONENT rubriscope)
endif()
install(DIRECTORY csrc/ DESTINATION include/rubriscope COMPONENT rubriscope
        FILES_MATCHING PATTERN "*.h" PATTERN binding EXCLUDE PATTERN torch EXCLUDE)
install(EXPORT rubriscopeTargets NAMESPACE rubriscope:: DESTINATION share/cmake/rubriscope
        COMPONENT rubriscope)
configure_package_config_file(cmake/rubriscopeConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/rubriscopeConfig.cmake INSTALL_DESTINATION share/cmake/rubriscope
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/rubriscopeConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/rubriscopeConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/rubriscopeConfigVersion.cmake
        DESTINATION share/cmake/rubriscope COMPONENT rubriscope)

foreach(_ops rubriscope_ops rubriscope_cuda)
  if(TARGET ${_ops})
    install(TARGETS ${_ops} LIBRARY DESTINATION lib COMPONENT rubriscope)
  endif()
endforeach()
if(TARGET _C)
  install(TARGETS _C LIBRARY DESTINATION . COMPONENT python)
endif()
