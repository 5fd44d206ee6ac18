# CMake reads this behind llama.cpp's project() (CMAKE_PROJECT_llama.cpp_INCLUDE), and runs the function below when the
# rest of the tree is known. llama.cpp's own rules for tools/mtmd are not in the package that the registry carries.

function(shimmy_add_mtmd)
    set(dir "${CMAKE_SOURCE_DIR}/tools/mtmd")
    # What decodes files of images and sounds is left out: shimmy does that in Rust.
    file(GLOB sources CONFIGURE_DEPENDS "${dir}/models/*.cpp")
    add_library(mtmd STATIC ${sources}
        "${dir}/clip.cpp" "${dir}/mtmd.cpp" "${dir}/mtmd-audio.cpp" "${dir}/mtmd-image.cpp")
    target_include_directories(mtmd PRIVATE "${dir}" "${CMAKE_SOURCE_DIR}" "${CMAKE_SOURCE_DIR}/vendor")
    target_link_libraries(mtmd PRIVATE ggml llama)
    target_compile_features(mtmd PRIVATE cxx_std_17)
    set_target_properties(mtmd PROPERTIES POSITION_INDEPENDENT_CODE ON)
    set(guard "${SHIMMY_SHIM_DIR}/projector_guard.h")
    get_target_property(all mtmd SOURCES)
    set_source_files_properties(${all} PROPERTIES OBJECT_DEPENDS "${guard}")
    target_compile_options(mtmd PRIVATE "SHELL:-include \"${guard}\"")
    # An index that a file makes up ends the process, and reads nothing.
    target_compile_definitions(mtmd PRIVATE _GLIBCXX_ASSERTIONS)
    add_custom_target(shimmy_native DEPENDS llama-common mtmd)
endfunction()

cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL shimmy_add_mtmd)
