# rubriscope_use_torch(target): torch's stable ABI (target 2.10) from the environment's torch, by path.
# No find_package(Torch): it would bring flags, definitions and libraries that the stable ABI does not need.
function(rubriscope_use_torch target)
  target_include_directories(${target} SYSTEM PRIVATE ${RUBRISCOPE_TORCH}/include)
  target_compile_definitions(${target} PRIVATE "TORCH_TARGET_VERSION=((2ULL<<56)|(10ULL<<48))")
  target_link_libraries(${target} PRIVATE ${RUBRISCOPE_TORCH}/lib/libtorch_cpu.so)
  set_target_properties(${target} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endfunction()
