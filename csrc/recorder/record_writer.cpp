#include "rubriscope/recorder/record_writer.h"

#include <span>

#include "rubriscope/core/cbor.h"
#include "rubriscope/core/errors.h"

namespace rubriscope {

RecordWriter::RecordWriter(std::shared_ptr<Sink> sink, SessionInfo session, WriterInfo writer)
    : sink_(std::move(sink)), session_(std::move(session)), writer_(std::move(writer)) {
  if (!sink_->stores_identity()) {
    throw ValueError(sink_->target() +
                     " does not store who wrote a record: what is delivered twice would be there twice");
  }
}

void RecordWriter::define(std::uint32_t id, std::string_view definition_json) {
  if (knows(id)) return;
  schemas_.emplace(id, std::make_shared<const Schema>(Schema::from_definition_json(definition_json, id)));
}

void RecordWriter::open() {
  sink_->open(session_, writer_);
  stored_ = sink_->stored_through(writer_);
  open_ = true;
}

RecordWriter::Written RecordWriter::write(const std::vector<std::string_view>& records) {
  if (!open_) open();
  Written written;
  std::vector<DecodedRecord> decoded;
  decoded.reserve(records.size());
  std::optional<std::uint64_t> last = stored_;
  for (std::size_t i = 0; i < records.size(); ++i) {
    DecodedRecord record;
    try {
      record = decode_cbor(std::as_bytes(std::span(records[i])));
    } catch (const FormatError& error) {
      written.refused.emplace_back(i, error.what());
      continue;
    }
    const RecordHeader& header = *record.view().header;
    if (record.writer_id != writer_.id || record.session_id != session_.id) {
      written.refused.emplace_back(
          i, "a record of writer " + record.writer_id + ", expected one of " + writer_.id);
      continue;
    }
    const auto schema = schemas_.find(header.schema);
    if (schema == schemas_.end()) {
      throw KeyError("schema " + std::to_string(header.schema) + " of writer " + writer_.id +
                     " is not defined");
    }
    if (!record.view().fits(*schema->second)) {
      written.refused.emplace_back(i, std::to_string(header.slots) + " scores, but its schema has " +
                                          std::to_string(schema->second->slots.size()) + " slots");
      continue;
    }
    if (last && header.sequence <= *last) {
      ++written.repeated;
      continue;
    }
    last = header.sequence;
    record.schema = schema->second;
    decoded.push_back(std::move(record));
  }
  if (decoded.empty()) return written;
  std::vector<RecordView> views;
  views.reserve(decoded.size());
  for (const DecodedRecord& record : decoded) views.push_back(record.view());
  open_ = false;  // a write that throws may have been stored: ask again then
  sink_->write({session_, writer_, views, false});
  open_ = true;
  stored_ = last;
  written.stored = decoded.size();
  return written;
}

void RecordWriter::close() {
  if (!open_) open();
  open_ = false;
  sink_->close();
}

}  // namespace rubriscope
