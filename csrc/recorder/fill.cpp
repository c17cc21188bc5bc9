#include "rubriscope/recorder/fill.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace rubriscope {

namespace {
__attribute__((tls_model("initial-exec"))) thread_local std::uint32_t t_thread_id = 0;
}

std::uint32_t thread_id() {
  if (t_thread_id == 0) t_thread_id = static_cast<std::uint32_t>(::syscall(SYS_gettid));
  return t_thread_id;
}

void fill_header(RecordHeader& header, RecordKind kind, std::size_t slots, std::uint32_t schema,
                 const RecordPosition& position) {
  header.kind = kind;
  header.slots = static_cast<std::uint16_t>(slots);
  header.schema = schema;
  header.step = position.step;
  header.group = position.group;
  header.sample = position.sample;
  header.thread = thread_id();
}

}  // namespace rubriscope
