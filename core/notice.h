// Notes for whoever runs the program: what was found and passed over, where that is no error
// (fields of a configuration without effect, tensors that are computed anew).
#pragma once

#include <functional>
#include <string>

namespace lectern {

using NoticeSink = std::function<void(const std::string&)>;

/// Says `text`, one line, through the sink; the same text once in a process. From any thread.
void notice(const std::string& text);

/// Replaces the sink and gives back the one before. The first writes "lectern: note: <text>" to
/// stderr. An empty sink keeps quiet. What was said already is said again to a new sink.
NoticeSink set_notice_sink(NoticeSink sink);

}  // namespace lectern
