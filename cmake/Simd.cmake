# rubriscope_add_simd(objects folder): compiles every *.simd.cpp below the folder once per instruction set and
# appends the objects to the list of that name (csrc/ops/isa.h).
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

list(LENGTH RUBRISCOPE_ISAS _sets)
set(RUBRISCOPE_ONE_ISA OFF)
if(_sets EQUAL 1)
  set(RUBRISCOPE_ONE_ISA ON)
endif()

function(rubriscope_add_simd objects folder)
  file(GLOB _files CONFIGURE_DEPENDS ${folder}/*/*.simd.cpp)
  set(_found ${${objects}})
  foreach(_isa IN LISTS RUBRISCOPE_ISAS)
    set(_target rubriscope_${_isa})
    add_library(${_target} OBJECT ${_files})
    target_include_directories(${_target} PRIVATE ${RUBRISCOPE_INCLUDE_ROOT})
    target_compile_definitions(${_target} PRIVATE
      RUBRISCOPE_ISA=isa_${_isa} $<$<BOOL:${RUBRISCOPE_ONE_ISA}>:RUBRISCOPE_ONE_ISA>)
    target_compile_options(${_target} PRIVATE
      ${RUBRISCOPE_ISA_FLAGS_${_isa}} -fno-math-errno -fno-trapping-math -Wno-psabi)
    target_link_libraries(${_target} PRIVATE rubriscope_warnings)
    list(APPEND _found $<TARGET_OBJECTS:${_target}>)
  endforeach()
  set(${objects} ${_found} PARENT_SCOPE)
endfunction()
