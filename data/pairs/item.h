// One record of an input as it stands there, before its picture is read. Private to this room.
#pragma once

#include "data/shards/pair.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lectern::detail {

/// Where a record stands that cannot be used, and why.
struct UnusableItem {
  std::string kind, reason;  // "": the record can be used
  explicit operator bool() const { return !kind.empty(); }
};

struct PairItem {
  std::int64_t line = 0;            // of the file, from 1; 0: a file of a folder
  std::string form;                 // "messages with a picture"
  std::string name;                 // of the picture as the record has it; "": text alone
  std::filesystem::path picture;    // the file
  std::filesystem::path text_file;  // that has the answer; "": `answer` is it
  std::string prompt, answer, kind;
  std::string group;               // what --group-by asks for; "": none was asked for
  std::vector<std::string> notes;  // what was made of it that somebody should know
  UnusableItem unusable;
};

/// What a record may say, beside what is asked on the command line.
struct FormOptions {
  std::string group_key;     // of --group-by; "": none
  std::string break_before;  // stands between <image> and a prompt that has no <image>
};

}  // namespace lectern::detail
