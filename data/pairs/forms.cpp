#include "data/pairs/forms.h"

#include "data/text/edit_distance.h"
#include "data/text/utf8.h"
#include "data/tokenizer/prompt.h"

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <string_view>

namespace lectern::detail {
namespace {

using nlohmann::json;

constexpr std::size_t kShownBytes = 60;

constexpr std::array<std::string_view, 8> kKnownKeys = {
    "image", "images", "text", "prompt", "messages", "conversations", "kind", "id"};
/// Keys of other trainers that change what a record teaches.
constexpr std::array<std::string_view, 8> kRefusedKeys = {
    "videos", "video", "audios", "audio", "tools", "rejected_response", "objects", "rejected"};

[[noreturn]] void refuse(const std::string& kind, const std::string& reason) {
  throw PairError("", kind, reason);
}

std::string shown(const json& value) {
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  return std::string(utf8_prefix(text, kShownBytes)) + (text.size() > kShownBytes ? "..." : "");
}

bool is_nothing(const json& value) {
  return value.is_null() || ((value.is_array() || value.is_object()) && value.empty()) ||
         (value.is_string() && value.get_ref<const std::string&>().empty());
}

const std::string& text_of(const json& value, const std::string& field) {
  if (!value.is_string())
    refuse("form", fmt::format("{} must be a text, got {}", field, shown(value)));
  return value.get_ref<const std::string&>();
}

std::string text_or_nothing(const json& record, const char* key) {
  const auto found = record.find(key);
  return found == record.end() || found->is_null() ? "" : text_of(*found, key);
}

/// Whether one is the other with letters that are swapped, missing, added or wrong, few for their
/// number.
bool is_nearly(std::string key, std::string known) {
  constexpr std::size_t kShortest = 3, kLong = 6;
  if (key.size() < kShortest) return false;
  if (edit_distance(std::string_view(key), known) <= (key.size() >= kLong ? 2 : 1)) return true;
  std::sort(key.begin(), key.end());
  std::sort(known.begin(), known.end());
  return key == known;
}

/// The key that `key` is most likely meant to be, of those that the record could have and has not;
/// "" when it is like none.
std::string_view meant(const std::string& key, const json& record) {
  constexpr std::array<std::string_view, 5> kPictures = {"img", "picture", "image_path", "img_path",
                                                         "picture_path"};
  const bool has_picture = record.contains("image") || record.contains("images");
  std::vector<std::string_view> missing;
  if (!has_picture) missing = {"image", "images"};
  if (!has_picture && std::find(kPictures.begin(), kPictures.end(), key) != kPictures.end())
    return missing.front();
  if (!record.contains("messages") && !record.contains("conversations"))
    for (const char* known : {"text", "prompt", "messages", "conversations"})
      if (!record.contains(known)) missing.emplace_back(known);
  for (const std::string_view known : missing)
    if (is_nearly(key, std::string(known))) return known;
  return "";
}

void check_keys(const json& record, const FormOptions& options, PairItem& item) {
  for (const auto& [key, value] : record.items()) {
    if (key == options.group_key || is_nothing(value) ||
        std::find(kKnownKeys.begin(), kKnownKeys.end(), key) != kKnownKeys.end())
      continue;
    if (std::find(kRefusedKeys.begin(), kRefusedKeys.end(), key) != kRefusedKeys.end())
      refuse("key that cannot be learnt from",
             fmt::format("key \"{}\" cannot be learnt from, got {}", key, shown(value)));
    if (const std::string_view known = meant(key, record); !known.empty())
      refuse("unknown key", fmt::format("unknown key \"{}\"; did you mean \"{}\"?", key, known));
    item.notes.push_back(
        fmt::format("unknown key \"{}\" is passed over", utf8_prefix(key, kShownBytes)));
  }
}

/// A path, or an object with one.
std::string path_of(const json& value, const std::string& field) {
  std::string out;
  if (value.is_object()) {
    for (const char* key : {"path", "image", "url"})
      if (value.contains(key) && value[key].is_string()) out = value[key];
    if (out.empty())
      refuse("no picture", fmt::format("{} must have a path, got {}", field, shown(value)));
  } else {
    out = text_of(value, field);
  }
  if (out.empty()) refuse("no picture", fmt::format("{} must be a path, got \"\"", field));
  for (const char* begin : {"http://", "https://", "data:"})
    if (out.starts_with(begin))
      refuse("no picture",
             fmt::format("{} must be the path of a file, got {}", field, shown(json(out))));
  if (out.starts_with("file://")) out.erase(0, 7);
  return out;
}

void add_paths(const json& value, const std::string& field, std::vector<std::string>& out) {
  if (value.is_null()) return;
  if (!value.is_array()) return out.push_back(path_of(value, field));
  for (const json& each : value) out.push_back(path_of(each, field));
}

/// A turn of a conversation.
struct Turn {
  std::string role;  // "system", "user" or "assistant"
  std::string text;
};

/// The text of a message; pictures among its parts go to `pictures`.
std::string content_of(const json& content, const std::string& field,
                       std::vector<std::string>& pictures) {
  if (!content.is_array()) return text_of(content, field);
  std::string out;
  for (const json& part : content) {
    const std::string type = part.is_object() ? part.value("type", json("")).dump() : "";
    if (type == "\"text\"" && part.contains("text")) {
      out += text_of(part["text"], field);
    } else if (type == "\"image\"" &&
               (part.contains("image") || part.contains("path") || part.contains("url"))) {
      pictures.push_back(path_of(part, field));
      out += kImageTag;
    } else if (type == "\"image\"") {  // stands for one of "images"
      out += kImageTag;
    } else if (type == "\"image_url\"" && part.contains("image_url")) {
      pictures.push_back(path_of(part["image_url"], field));
      out += kImageTag;
    } else {
      refuse("form",
             fmt::format("{} must have parts of text and images, got {}", field, shown(part)));
    }
  }
  return out;
}

std::string role_of(const std::string& name, const std::string& field) {
  if (name == "user" || name == "human") return "user";
  if (name == "assistant" || name == "gpt") return "assistant";
  if (name == "system") return "system";
  refuse("form", fmt::format("{} must be user (human), assistant (gpt) or system, got \"{}\"",
                             field, utf8_prefix(name, kShownBytes)));
}

std::vector<Turn> turns_of(const json& list, const std::string& key, const char* role,
                           const char* content, std::vector<std::string>& pictures) {
  if (!list.is_array()) refuse("form", fmt::format("{} must be a list, got {}", key, shown(list)));
  std::vector<Turn> out;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string field = fmt::format("{}[{}]", key, i);
    const json& each = list[i];
    if (!each.is_object() || !each.contains(role) || !each.contains(content))
      refuse("form",
             fmt::format("{} must have {} and {}, got {}", field, role, content, shown(each)));
    out.push_back({role_of(text_of(each[role], field + "." + role), field + "." + role),
                   content_of(each[content], field + "." + content, pictures)});
  }
  return out;
}

std::size_t count_tags(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(kImageTag, at)) != std::string_view::npos;
       at += kImageTag.size())
    ++count;
  return count;
}

/// The prompt as the model's sequence has it: <image> first, once. "": the reader's own.
std::string prompt_of(std::string text, std::size_t pictures, const FormOptions& options,
                      PairItem& item) {
  const std::size_t tags = count_tags(text);
  if (tags != pictures && !(tags == 0 && pictures == 1))
    refuse("<image> and pictures differ",
           fmt::format("must have an <image> for each picture, got {} <image> and {} pictures",
                       tags, pictures));
  if (pictures > 1)
    refuse("several pictures",
           fmt::format("must have one picture, as a sample of this model takes, got {}", pictures));
  if (pictures == 0 || text.empty()) return text;
  if (tags == 0) {
    item.notes.emplace_back("<image> was put in front of a prompt that has none");
    return fmt::format("{}{}{}", kImageTag, options.break_before, text);
  }
  const std::size_t at = text.find(kImageTag);
  if (at == 0) return text;
  item.notes.emplace_back("<image> was put in front of its prompt, where the model has it");
  text.erase(at, kImageTag.size());
  while (text.ends_with('\n') || text.ends_with(' ')) text.pop_back();
  return fmt::format("{}{}{}", kImageTag, options.break_before, text);
}

void read_turns(const std::vector<Turn>& turns, const std::string& key,
                const std::vector<std::string>& pictures, const FormOptions& options,
                PairItem& item) {
  std::string system, question;
  std::size_t at = 0;
  if (at < turns.size() && turns[at].role == "system") system = turns[at++].text;
  const std::size_t first = at;
  if (at < turns.size() && turns[at].role == "user") question = turns[at++].text;
  if (at + 1 < turns.size())
    refuse("several turns",
           fmt::format("{} must have one question and one answer, as a sample of this model has, "
                       "got {} turns",
                       key, turns.size() - first));
  if (at >= turns.size() || turns[at].role != "assistant")
    refuse("no answer", fmt::format("{} must end with an answer of the assistant", key));
  item.answer = turns[at].text;
  item.prompt = prompt_of(std::move(question), pictures.size(), options, item);
  if (system.empty()) return;
  item.notes.emplace_back("the system's text was put in front of the question");
  const bool has_tag = item.prompt.starts_with(kImageTag);
  if (!pictures.empty() && item.prompt.empty()) item.prompt = kImageTag;
  const std::string rest = has_tag ? item.prompt.substr(kImageTag.size()) : item.prompt;
  item.prompt = fmt::format("{}{}{}{}", pictures.empty() ? "" : kImageTag,
                            pictures.empty() ? "" : options.break_before, system,
                            rest.empty() || rest.starts_with('\n') ? rest : "\n" + rest);
}

void read_group(const json& record, const FormOptions& options, PairItem& item) {
  if (options.group_key.empty()) return;
  const auto found = record.find(options.group_key);
  if (found != record.end() && found->is_string()) item.group = found->get<std::string>();
  if (found != record.end() && found->is_number()) item.group = found->dump();
  if (item.group.empty())
    refuse("no group",
           fmt::format("must have a text or number \"{}\" to be grouped by, got {}",
                       options.group_key, found == record.end() ? "none" : shown(*found)));
}

void read_record(const json& record, const FormOptions& options, PairItem& item) {
  if (!record.is_object()) refuse("form", fmt::format("must be an object, got {}", shown(record)));
  const char* const list = record.contains("messages")        ? "messages"
                           : record.contains("conversations") ? "conversations"
                                                              : nullptr;
  item.form = list != nullptr ? list : "text";
  check_keys(record, options, item);
  std::vector<std::string> pictures;
  for (const char* key : {"image", "images"})
    if (const auto found = record.find(key); found != record.end())
      add_paths(*found, key, pictures);
  if (list != nullptr) {
    if (record.contains("text") || record.contains("prompt"))
      refuse("form", fmt::format("must have {} or a text with a prompt, got both", list));
    const bool is_messages = item.form == "messages";
    const auto turns = turns_of(record[list], list, is_messages ? "role" : "from",
                                is_messages ? "content" : "value", pictures);
    read_turns(turns, list, pictures, options, item);
  } else if (!record.contains("text")) {
    std::vector<std::string> keys;
    for (const auto& each : record.items())
      if (keys.size() < 8) keys.emplace_back(utf8_prefix(each.key(), kShownBytes));
    refuse("form",
           fmt::format("must have \"text\", \"messages\" or \"conversations\", got keys {}",
                       keys.empty() ? "of none" : fmt::format("{}", fmt::join(keys, ", "))));
  } else {
    item.answer = text_of(record["text"], "text");
    item.prompt = prompt_of(text_or_nothing(record, "prompt"), pictures.size(), options, item);
  }
  if (!pictures.empty()) item.name = pictures.front();
  item.form += pictures.empty() ? " alone" : " with a picture";
  item.kind = text_or_nothing(record, "kind");
  read_group(record, options, item);
  if (item.answer.find(kImageTag) != std::string::npos)
    refuse("<image> in the answer",
           "answer must have no <image>: the picture stands before the "
           "prompt");
}

}  // namespace

void read_form(const json& record, const FormOptions& options, PairItem& item) {
  try {
    read_record(record, options, item);
  } catch (const PairError& error) {
    item.unusable = {error.kind(), error.reason()};
  }
}

}  // namespace lectern::detail
