# rubriscope_add_simd(target folder): compiles every *.simd.cpp below the folder once per instruction set and
# adds the objects to the target (csrc/ops/isa.h).
set(RUBRISCOPE_ISA_FLAGS_baseline "")
set(RUBRISCOPE_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2 -mlzcnt)
set(RUBRISCOPE_ISA_FLAGS_avx512 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx512vbmi -mfma -mf16c -mbmi -mbmi2
                                -mlzcnt -mprefer-vector-width=512)
# One set is enough for a sanitizer: it looks at the same code.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT RUBRISCOPE_SANITIZE)
  set(RUBRISCOPE_ISAS baseline avx2 avx512)
else()
  set(RUBRISCOPE_ISAS baseline)
endif()

function(rubriscope_add_simd target folder)
  file(GLOB _files CONFIGURE_DEPENDS ${folder}/*/*.simd.cpp)
  if(NOT _files)
    return()
  endif()
  foreach(_isa IN LISTS RUBRISCOPE_ISAS)
    set(_objects ${target}_${_isa})
    add_library(${_objects} OBJECT ${_files})
    target_include_directories(${_objects} PRIVATE ${RUBRISCOPE_INCLUDE_ROOT})
    target_compile_definitions(${_objects} PRIVATE RUBRISCOPE_ISA=isa_${_isa})
    target_compile_options(${_objects} PRIVATE ${RUBRISCOPE_ISA_FLAGS_${_isa}} -fno-math-errno -fno-trapping-math
                           -Wno-psabi)
    target_link_libraries(${_objects} PRIVATE rubriscope_warnings)
    list(LENGTH RUBRISCOPE_ISAS _sets)
    if(_sets EQUAL 1)
      target_compile_definitions(${target} PUBLIC RUBRISCOPE_ONE_ISA)
      target_compile_definitions(${_objects} PRIVATE RUBRISCOPE_ONE_ISA)
    endif()
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${_objects}>)
  endforeach()
endfunction()
