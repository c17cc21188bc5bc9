// The layers of a trace: a short code, which ids start with, and a full name, which events hold.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace rubriscope {

struct Layer {
  std::string code;  ///< "alt"
  std::string name;  ///< "altitude"
};

/// The layer of a code or a name. Lives as long as the process. Throws ValueError that lists the known ones.
const Layer& find_layer(std::string_view code_or_name);

/// All of them: alt foc rsn lrn mem sys, then the registered.
std::vector<Layer> layers();

/// Adds a layer; the same again changes nothing. Throws ValueError where the code is not 2 to 16 characters
/// of a-z and 0-9 that start with a letter, the name not 2 to 64 of a-z, 0-9 and _, or one of them is taken.
void register_layer(std::string_view code, std::string_view name);

}  // namespace rubriscope
