#include "rubriscope/rubric/node.h"

#include <algorithm>
#include <unordered_set>

#include "rubriscope/core/errors.h"
#include "rubriscope/rubric/observation.h"

namespace rubriscope {

namespace {
std::atomic<std::uint32_t> g_next_shape{1};
constexpr std::string_view kRootPath = "root";
}  // namespace

TreeShape::TreeShape(Node& root) : id_(g_next_shape.fetch_add(1, std::memory_order_relaxed)) {
  schema_.kind = Schema::Kind::tree;
  scan(root, {});
  std::sort(index_.begin(), index_.end());
}

void TreeShape::scan(Node& node, const std::string& path) {
  std::string shown = path;
  if (path.empty()) {
    shown = kRootPath;
  } else if (path == kRootPath) {
    shown = "." + path;  // a child that is called "root" must not stand for the root
  }
  const auto known = std::find(nodes_.begin(), nodes_.end(), &node);
  if (known == nodes_.end()) {
    index_.emplace_back(&node, size());
    nodes_.push_back(&node);
    schema_.slots.push_back({{shown}, node.class_name(), {}});
  } else {
    schema_.slots[static_cast<std::size_t>(known - nodes_.begin())].paths.push_back(shown);
  }
  for (const auto& child : node.children()) {
    scan(*child.node, path.empty() ? child.name : path + "." + child.name);
  }
}

void TreeShape::describe() {
  std::vector<std::shared_ptr<const void>> held;
  held.reserve(nodes_.size());
  for (const Node* node : nodes_) held.push_back(node->hold());
  for (std::size_t i = 0; i < nodes_.size(); ++i) schema_.slots[i].details = nodes_[i]->details_json();
}

std::uint32_t TreeShape::find(const Node& node) const {
  const auto at =
      std::lower_bound(index_.begin(), index_.end(), std::pair<const Node*, std::uint32_t>{&node, 0});
  const std::uint32_t slot = at != index_.end() && at->first == &node ? at->second : kNotInTree;
  node.slot_cache_.store(std::uint64_t{id_} << 32 | slot, std::memory_order_relaxed);
  return slot;
}

Node::~Node() = default;

const Node::Child* Node::find_child(std::string_view name) const {
  for (const auto& child : children_) {
    if (child.name == name) return &child;
  }
  return nullptr;
}

Node& Node::at_path(std::string_view path) {
  Node* node = this;
  std::size_t begin = 0;
  while (true) {
    const std::size_t dot = path.find('.', begin);
    const std::string_view part = path.substr(begin, dot == std::string_view::npos ? dot : dot - begin);
    const Child* child = node->find_child(part);
    if (child == nullptr) {
      std::string there;
      for (const auto& c : node->children_) there += (there.empty() ? "" : ", ") + c.name;
      const std::string where = begin == 0 ? "the root" : "'" + std::string(path.substr(0, begin - 1)) + "'";
      throw KeyError("no rubric '" + std::string(path) + "': " + where + " has no child '" +
                     std::string(part) + "'" +
                     (there.empty() ? ", it has no children" : "; its children are " + there));
    }
    node = child->node;
    if (dot == std::string_view::npos) return *node;
    begin = dot + 1;
  }
}

bool Node::reaches(const Node& target) const {
  std::unordered_set<const Node*> seen;
  std::vector<const Node*> open{this};
  while (!open.empty()) {
    const Node* node = open.back();
    open.pop_back();
    if (node == &target) return true;
    if (!seen.insert(node).second) continue;
    for (const auto& child : node->children_) open.push_back(child.node);
  }
  return false;
}

void Node::structure_changed() {
  std::erase_if(member_of, [](const auto& tree) {
    const auto observation = tree.lock();
    if (observation != nullptr) observation->mark_changed();
    return observation == nullptr;
  });
  is_member = !member_of.empty();
}

Node* Node::set_child(std::string_view name, Node& child, double weight, bool item) {
  if (name.empty() || name.find('.') != std::string_view::npos) {
    throw ValueError("a child's name must be a non-empty string without a dot, got '" + std::string(name) +
                     "'");
  }
  if (!child.children_.empty() || &child == this) {
    if (child.reaches(*this)) {
      throw ValueError("child '" + std::string(name) + "' (" + child.class_name() +
                       ") would make a cycle: this " + class_name() + " is already below it");
    }
  }
  structure_changed();
  for (auto& existing : children_) {
    if (existing.name == name) {
      Node* replaced = existing.node;
      existing.node = &child;
      if (item) {
        existing.item = true;
        existing.weight = weight;
      }
      return replaced;
    }
  }
  children_.push_back({std::string(name), &child, weight, item});
  return nullptr;
}

Node* Node::remove_child(std::string_view name) {
  const auto at = std::find_if(children_.begin(), children_.end(),
                               [&](const Child& child) { return child.name == name; });
  if (at == children_.end()) return nullptr;
  structure_changed();
  Node* removed = at->node;
  children_.erase(at);
  return removed;
}

}  // namespace rubriscope
