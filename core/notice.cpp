#include "core/notice.h"

#include <cstdio>
#include <mutex>
#include <set>
#include <utility>

namespace lectern {
namespace {

struct Notices {
  std::mutex mutex;
  std::set<std::string> said;
  NoticeSink sink = [](const std::string& text) {
    std::fprintf(stderr, "lectern: note: %s\n", text.c_str());
  };
};

Notices& notices() {
  static Notices instance;
  return instance;
}

}  // namespace

void notice(const std::string& text) {
  Notices& all = notices();
  const std::lock_guard lock(all.mutex);
  if (all.said.insert(text).second && all.sink) all.sink(text);
}

NoticeSink set_notice_sink(NoticeSink sink) {
  Notices& all = notices();
  const std::lock_guard lock(all.mutex);
  all.said.clear();
  return std::exchange(all.sink, std::move(sink));
}

}  // namespace lectern
