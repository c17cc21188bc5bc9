#include "rubriscope/core/errors.h"

#include <system_error>

namespace rubriscope {

namespace {

std::string describe(int error_number, const std::string& what_failed, const std::string& path) {
  std::string message = what_failed + ": ";
  if (!path.empty()) message += path + ": ";
  return message + std::generic_category().message(error_number);
}

}  // namespace

SystemError::SystemError(int error_number, std::string what_failed, std::string on_path)
    : Error(describe(error_number, what_failed, on_path)), code(error_number), path(std::move(on_path)) {}

}  // namespace rubriscope
