// A node of a rubric tree: what the Python type and the C++ class have in common. Owns no children; its host
// does (Python references, or shared_ptr in C++). Structure changes are the host's to serialise.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/core/schema.h"

namespace rubriscope {

class Node;
class RootObservation;

/// How a node computes its score.
enum class NodeKind : std::uint8_t {
  leaf,          ///< the host's forward()
  sequential,    ///< children in order, 0 at the first score of exactly 0
  gate,          ///< the child's score when it is finite and at least the threshold, else 0
  weighted_sum,  ///< sum of weight × child's score
};

/// The nodes of one tree at one moment, numbered in pre-order; a shared child has one slot and many paths.
class TreeShape {
 public:
  static constexpr std::uint32_t kNotInTree = 0xFFFFFFFF;

  /// Scans the structure of the tree below `root`: runs no code of the host's.
  explicit TreeShape(Node& root);

  /// Asks the nodes for their details. The host may run any code for it, which may change the tree.
  void describe();

  std::uint32_t id() const { return id_; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(nodes_.size()); }
  const std::vector<Node*>& nodes() const { return nodes_; }
  const Schema& schema() const { return schema_; }
  bool operator==(const TreeShape& other) const {
    return nodes_ == other.nodes_ && schema_.slots == other.schema_.slots;
  }

  /// The node's slot, or kNotInTree.
  std::uint32_t slot_of(const Node& node) const;

 private:
  std::uint32_t find(const Node& node) const;
  void scan(Node& node, const std::string& path);

  std::uint32_t id_;
  std::vector<Node*> nodes_;                                  // by slot
  std::vector<std::pair<const Node*, std::uint32_t>> index_;  // sorted by address
  Schema schema_;
};

class Node {
 public:
  struct Child {
    std::string name;
    Node* node;
    double weight{1.0};  ///< of a weighted sum's item
    bool item{false};    ///< whether a container evaluates it
  };

  Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  virtual ~Node();

  /// The class a person would know this node by.
  virtual std::string class_name() const = 0;

  /// What an auditor may ask of the node beyond its class, as JSON text, or "". Asked when a tree is scanned.
  virtual std::string details_json() const { return {}; }

  /// Keeps the node alive while the handle lives, where the host's code might else end it meanwhile.
  virtual std::shared_ptr<const void> hold() const { return nullptr; }

  const std::vector<Child>& children() const { return children_; }
  const Child* find_child(std::string_view name) const;

  /// The node at a dotted path. Throws KeyError that names the missing part and what exists there.
  Node& at_path(std::string_view path);

  /// Registers a child, or replaces the one of that name in place. Throws ValueError for an empty name, a
  /// name with a dot, or a child that would make a cycle. Returns the node that was replaced, or nullptr.
  Node* set_child(std::string_view name, Node& child, double weight = 1.0, bool item = false);

  /// Unregisters. Returns the node that was removed, or nullptr when there was none.
  Node* remove_child(std::string_view name);

  NodeKind kind{NodeKind::leaf};
  bool strict{false};     ///< a score that is not a finite number raises
  double threshold{1.0};  ///< of a gate

  /// Set while an observer is attached with this node as its root.
  RootObservation* observation() const { return observation_.get(); }
  std::shared_ptr<RootObservation> observation_;
  /// The observed trees this node is part of: told when its children change, and when it is called from
  /// outside.
  std::vector<std::weak_ptr<RootObservation>> member_of;
  std::atomic<bool> is_member{false};  ///< member_of is not empty

 private:
  friend class TreeShape;
  bool reaches(const Node& target) const;
  void structure_changed();

  std::vector<Child> children_;
  mutable std::atomic<std::uint64_t> slot_cache_{~std::uint64_t{0}};  // shape id << 32 | slot
};

inline std::uint32_t TreeShape::slot_of(const Node& node) const {
  const std::uint64_t cached = node.slot_cache_.load(std::memory_order_relaxed);
  return static_cast<std::uint32_t>(cached >> 32) == id_ ? static_cast<std::uint32_t>(cached) : find(node);
}

}  // namespace rubriscope
