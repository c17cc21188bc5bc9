// Exceptions of the core. The binding maps each to the natural Python type (binding/exceptions.cpp).
#pragma once

#include <stdexcept>
#include <string>

namespace rubriscope {

/// Root of everything the core throws on purpose.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A bad argument: ValueError.
struct ValueError : Error {
  using Error::Error;
};

/// An argument of the wrong type: TypeError.
struct TypeError : Error {
  using Error::Error;
};

/// A missing name or path: KeyError.
struct KeyError : Error {
  using Error::Error;
};

/// An operating system failure: OSError with errno and the path.
struct SystemError : Error {
  SystemError(int error_number, std::string what_failed, std::string on_path = {});
  int code;
  std::string path;
};

/// A wait ran out: TimeoutError.
struct TimeoutError : Error {
  using Error::Error;
};

/// A file is not ours, of a newer format, or corrupted: rubriscope.FormatError.
struct FormatError : Error {
  using Error::Error;
};

/// What is encrypted cannot be opened: no key, another key, changed bytes, or shredded:
/// rubriscope.SealedError.
struct SealedError : Error {
  using Error::Error;
};

/// A sink could not take a batch: rubriscope.SinkError. `transient` says a retry may help.
struct SinkError : Error {
  SinkError(const std::string& message, bool may_retry) : Error(message), transient(may_retry) {}
  bool transient;
};

}  // namespace rubriscope
