// What the program noted while an object of this class lives, instead of writing it to stderr.
#pragma once

#include "core/notice.h"

#include <string>
#include <utility>
#include <vector>

namespace lectern::testing {

class Notices {
 public:
  Notices() : before_(set_notice_sink([this](const std::string& text) { said.push_back(text); })) {}
  ~Notices() { set_notice_sink(std::move(before_)); }
  Notices(const Notices&) = delete;
  Notices& operator=(const Notices&) = delete;

  /// How many notes have all of `parts`.
  int count(const std::vector<std::string>& parts) const {
    int out = 0;
    for (const std::string& text : said) {
      bool has_all = true;
      for (const std::string& part : parts) has_all &= text.find(part) != std::string::npos;
      out += has_all ? 1 : 0;
    }
    return out;
  }

  std::vector<std::string> said;

 private:
  NoticeSink before_;
};

}  // namespace lectern::testing
