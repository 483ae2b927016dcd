// Errors of native code: one exception type, thrown by VT_CHECK with the file and line of the
// check. The addon turns it into the KernelError of common/errors.ts. Nothing native ends the
// process.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace vt {

class KernelError : public std::runtime_error {
 public:
  KernelError(const char* file, int line, const std::string& message)
      : std::runtime_error(message), file(file), line(line) {}

  const char* file;
  int line;
  /// Name of the op that failed; empty when it was not an op.
  std::string op;
  /// The rank that is to blame, where it is known; else -1.
  int rank = -1;
};

[[noreturn, gnu::format(printf, 3, 4)]] inline void fail_at(const char* file, int line,
                                                            const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw KernelError(file, line, text);
}

}  // namespace vt

#define VT_FAIL(...) ::vt::fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define VT_CHECK(condition, ...)            \
  do {                                      \
    if (!(condition)) VT_FAIL(__VA_ARGS__); \
  } while (0)
