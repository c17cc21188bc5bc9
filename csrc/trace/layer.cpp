#include "rubriscope/trace/layer.h"

#include <algorithm>
#include <deque>
#include <mutex>

#include "rubriscope/core/errors.h"
#include "rubriscope/trace/trace_id.h"

namespace rubriscope {

namespace {

struct Registry {
  std::mutex mutex;
  std::deque<Layer> layers{{"alt", "altitude"}, {"foc", "focus"},  {"rsn", "reasoning"},
                           {"lrn", "learning"}, {"mem", "memory"}, {"sys", "system"}};
};

Registry& registry() {
  static auto* const instance = new Registry;
  return *instance;
}

bool is_word(std::string_view text, std::size_t most, std::string_view others) {
  return text.size() >= 2 && text.size() <= most && text.front() >= 'a' && text.front() <= 'z' &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                  others.find(c) != std::string_view::npos;
         });
}

}  // namespace

const Layer& find_layer(std::string_view code_or_name) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  std::string known;
  for (const Layer& layer : all.layers) {
    if (layer.code == code_or_name || layer.name == code_or_name) return layer;
    known += (known.empty() ? "" : ", ") + layer.code + " (" + layer.name + ")";
  }
  throw ValueError("no layer \"" + std::string(code_or_name) + "\": expected one of " + known +
                   ", or one registered with register_layer()");
}

std::vector<Layer> layers() {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  return {all.layers.begin(), all.layers.end()};
}

void register_layer(std::string_view code, std::string_view name) {
  if (!is_word(code, kMostLayerCode, "")) {
    throw ValueError("a layer's code is 2 to 16 characters of a-z and 0-9, the first a letter, got \"" +
                     std::string(code) + "\"");
  }
  if (!is_word(name, 64, "_")) {
    throw ValueError("a layer's name is 2 to 64 characters of a-z, 0-9 and _, the first a letter, got \"" +
                     std::string(name) + "\"");
  }
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  for (const Layer& layer : all.layers) {
    if (layer.code == code && layer.name == name) return;
    if (layer.code == code || layer.name == name || layer.code == name || layer.name == code) {
      throw ValueError("the layer " + layer.code + " (" + layer.name + ") is there already: \"" +
                       std::string(code) + "\" (\"" + std::string(name) + "\") cannot be added");
    }
  }
  all.layers.push_back({std::string(code), std::string(name)});
}

}  // namespace rubriscope
