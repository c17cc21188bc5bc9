// What a fork does to recorders: the child's copies forget the parent's journal and start their own when
// first used; the parent does not notice.
#pragma once

namespace rubriscope {

/// Registers the process's fork handlers, once. Throws SystemError.
void install_fork_handlers();

}  // namespace rubriscope
