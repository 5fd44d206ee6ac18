// The one place where C++ exceptions stop: every exported function runs its body through `guarded`.
#pragma once

#include <cstdarg>
#include <exception>
#include <new>
#include <string>

#include "shim.h"

namespace shim {

// Message of the calling thread's latest failure. Kept as a fixed buffer so that reporting
// "out of memory" needs no memory.
void set_error(const char * message) noexcept;
void clear_error() noexcept;

// Records `message` and returns `status`.
inline int fail(int status, const char * message) noexcept {
    set_error(message);
    return status;
}

// Runs `body`, which returns a shim_status, and turns any exception into one.
template <typename Body> int guarded(Body && body) noexcept {
    clear_error();
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return fail(SHIM_NO_MEMORY, "out of memory");
    } catch (const std::exception & e) {
        return fail(SHIM_EXCEPTION, e.what());
    } catch (...) {
        return fail(SHIM_EXCEPTION, "an exception that carries no message");
    }
}

// A malloc'd copy for Rust to free with shim_string_free.
char * copy_string(const std::string & text);

} // namespace shim
