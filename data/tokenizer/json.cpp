// Reads tokenizer.json into Tokenizer::State. Every setting is either understood or refused.
#include "core/error.h"
#include "core/io/file.h"
#include "core/notice.h"
#include "data/json_node.h"
#include "data/tokenizer/state.h"

#include <algorithm>

namespace lectern {
namespace {

using nlohmann::json;

// Ids may have gaps, but the table by id must stay in proportion to the file.
constexpr std::int64_t kIdSlack = 65536;
constexpr std::size_t kMaxSteps = 64;

// ----- normalizer -----

void read_normalizer(const JsonNode& node, std::vector<NormalForm>& forms) {
  if (node.is_null()) return;
  const std::string& type = node["type"].text();
  if (type == "Sequence") {
    node.only({"type", "normalizers"});
    const JsonNode members = node["normalizers"];
    for (std::size_t i = 0; i < members.size(); ++i) read_normalizer(members.at(i), forms);
    return;
  }
  node.only({"type"});
  if (type == "NFC")
    forms.push_back(NormalForm::nfc);
  else if (type == "NFD")
    forms.push_back(NormalForm::nfd);
  else if (type == "NFKC")
    forms.push_back(NormalForm::nfkc);
  else if (type == "NFKD")
    forms.push_back(NormalForm::nfkd);
  else
    node["type"].refuse("be NFC, NFD, NFKC, NFKD or Sequence");
  if (forms.size() > kMaxSteps) node.refuse(fmt::format("have at most {} steps", kMaxSteps));
}

// ----- pre_tokenizer -----

Regex read_pattern(const JsonNode& node) {
  const JsonNode pattern = node["pattern"];
  pattern.only({"Regex", "String"});
  const JsonNode expression = pattern["Regex"], text = pattern["String"];
  if (expression.is_null() == text.is_null()) pattern.refuse("hold Regex or String");
  const JsonNode& given = text.is_null() ? expression : text;
  try {
    return text.is_null() ? Regex::compile(given.text()) : Regex::literal(given.text());
  } catch (const ConfigError& error) {
    given.refuse(fmt::format("be a regular expression that lectern can run ({})", error.what()));
  }
}

SplitBehavior read_behavior(const JsonNode& node) {
  const std::string& name = node.text();
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  node.refuse("be Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

// Appends the steps; true when they end in ByteLevel, after which nothing may cut.
bool read_pre_tokenizer(const JsonNode& node, std::vector<PreTokenizerStep>& steps) {
  const std::string& type = node["type"].text();
  if (type == "Sequence") {
    node.only({"type", "pretokenizers"});
    const JsonNode members = node["pretokenizers"];
    bool ended = false;
    for (std::size_t i = 0; i < members.size(); ++i) {
      if (ended) members.at(i).refuse("not follow ByteLevel");
      ended = read_pre_tokenizer(members.at(i), steps);
    }
    return ended;
  }
  if (steps.size() >= kMaxSteps) node.refuse(fmt::format("be one of at most {} steps", kMaxSteps));
  PreTokenizerStep step;
  if (type == "ByteLevel") {
    node.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    step.add_prefix_space = node["add_prefix_space"].flag();
    if (node["use_regex"].flag_or(true)) step.pattern = Regex::compile(kByteLevelPattern);
  } else if (type == "Split") {
    node.only({"type", "pattern", "behavior", "invert"});
    step.pattern = read_pattern(node);
    step.behavior = read_behavior(node["behavior"]);
    step.invert = node["invert"].flag_or(false);
  } else if (type == "Digits") {
    node.only({"type", "individual_digits"});
    step.pattern = Regex::compile("\\p{N}");
    if (!node["individual_digits"].flag()) step.behavior = SplitBehavior::contiguous;
  } else {
    node["type"].refuse("be ByteLevel, Split, Digits or Sequence");
  }
  steps.push_back(std::move(step));
  return type == "ByteLevel";
}

// ----- decoder -----

int count_byte_level(const JsonNode& node) {
  const std::string& type = node["type"].text();
  if (type == "ByteLevel") return 1;
  if (type == "Fuse") return 0;
  if (type != "Sequence") node["type"].refuse("be ByteLevel, Fuse or Sequence");
  const JsonNode members = node["decoders"];
  int count = 0;
  for (std::size_t i = 0; i < members.size(); ++i) count += count_byte_level(members.at(i));
  return count;
}

// ----- model and added tokens -----

class StateReader {
 public:
  StateReader(const nlohmann::json& document, const std::string& file, Tokenizer::State& state)
      : root_(document, file), file_(file), state_(state) {}

  void run() {
    root_.only({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                "post_processor", "decoder", "model"});
    pass_over("truncation");
    pass_over("padding");
    read_normalizer(root_["normalizer"], state_.normalizers);
    read_cuts();
    if (count_byte_level(root_["decoder"]) != 1) root_["decoder"].refuse("hold ByteLevel once");
    read_model_settings();
    read_vocabulary();
    read_merges();
    read_added_tokens();
    read_post_processor(root_["post_processor"]);
  }

 private:
  /// What a trainer or a calibration left in the file; encode() gives all of a text and no more.
  void pass_over(const char* key) {
    const JsonNode setting = root_[key];
    if (setting.is_null()) return;
    if (!setting.is_object()) setting.refuse("be an object or null");
    notice(fmt::format("{}: {} is passed over: lectern gives all tokens of a text, and no others",
                       file_, key));
  }

  void read_cuts() {
    std::vector<PreTokenizerStep> steps;
    const JsonNode node = root_["pre_tokenizer"];
    if (!read_pre_tokenizer(node, steps)) node.refuse("end in ByteLevel");
    state_.pre_tokenizer = PreTokenizer(std::move(steps));
  }

  void read_model_settings() {
    const JsonNode model = root_["model"];
    model.only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
    if (const JsonNode type = model["type"]; !type.is_null() && type.text() != "BPE")
      type.refuse("be BPE");
    const JsonNode dropout = model["dropout"];
    if (!dropout.is_null() && !(dropout.value().is_number() && dropout.value() == 0.0))
      dropout.refuse("be null or 0");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const JsonNode affix = model[key]; !affix.is_null() && !affix.text().empty())
        affix.refuse("be null or empty");
    state_.ignore_merges = model["ignore_merges"].flag_or(false);
  }

  void add_token(std::int64_t id, const std::string& text, const JsonNode& where) {
    auto& token = state_.tokens[static_cast<std::size_t>(id)];
    if (token.present)
      where.refuse(fmt::format("give every token an id of its own: {} is both {} and {}", id,
                               json(token.text).dump(), json(text).dump()));
    token.text = text;
    token.bytes = from_byte_symbols(text).value_or(text);
    token.present = true;
    state_.ids.emplace(text, static_cast<std::int32_t>(id));
  }

  void read_vocabulary() {
    const JsonNode vocabulary = root_["model"]["vocab"];
    if (!vocabulary.is_object()) vocabulary.refuse("be an object");
    const std::size_t entries = vocabulary.value().size() + root_["added_tokens"].value().size();
    largest_id_ = static_cast<std::int64_t>(entries) * 8 + kIdSlack;
    std::int64_t limit = 0;
    for (const auto& item : vocabulary.value().items()) {
      const bool fits =
          item.value().is_number_unsigned() &&
          item.value().get<std::uint64_t>() <= static_cast<std::uint64_t>(largest_id_);
      if (!fits) vocabulary[item.key()].integer(0, largest_id_);
      limit = std::max(limit, item.value().get<std::int64_t>() + 1);
    }
    state_.tokens.resize(static_cast<std::size_t>(limit));
    state_.ids.reserve(entries);
    for (const auto& item : vocabulary.value().items())
      add_token(item.value().get<std::int64_t>(), item.key(), vocabulary);
    read_bytes();
  }

  // Which id each byte starts from; a byte without a symbol becomes unk_token or nothing.
  void read_bytes() {
    const JsonNode model = root_["model"];
    bool complete = true;
    std::int32_t unknown = -1;
    if (const JsonNode node = model["unk_token"]; !node.is_null()) {
      const auto found = state_.ids.find(node.text());
      if (found == state_.ids.end()) node.refuse("be a token of model.vocab");
      unknown = found->second;
    }
    for (int byte = 0; byte < 256; ++byte) {
      const auto found = state_.ids.find(byte_symbols()[byte]);
      complete = complete && found != state_.ids.end();
      state_.byte_ids[byte] = found == state_.ids.end() ? unknown : found->second;
    }
    for (const char* key : {"fuse_unk", "byte_fallback"})
      if (model[key].flag_or(false) && !complete)
        model[key].refuse("be false where model.vocab lacks symbols of the byte alphabet");
  }

  std::int32_t merge_member(const JsonNode& merges, std::size_t index,
                            std::string_view text) const {
    const auto found = state_.ids.find(text);
    if (found == state_.ids.end())
      merges.at(index).refuse(fmt::format("name tokens of model.vocab, which lacks {}",
                                          json(std::string(text)).dump()));
    return found->second;
  }

  void read_merges() {
    const JsonNode merges = root_["model"]["merges"];
    state_.merges = MergeTable(merges.size());
    std::string joined;
    for (std::size_t i = 0; i < merges.size(); ++i) {
      const json& merge = merges.value()[i];
      std::string_view left, right;
      if (merge.is_string()) {
        const std::string_view both = merge.get_ref<const std::string&>();
        const auto space = both.find(' ');
        if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos)
          merges.at(i).refuse("be two tokens with one space between");
        left = both.substr(0, space);
        right = both.substr(space + 1);
      } else {
        if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() ||
            !merge[1].is_string())
          merges.at(i).refuse("be a string or an array of two strings");
        left = merge[0].get_ref<const std::string&>();
        right = merge[1].get_ref<const std::string&>();
      }
      (joined = left) += right;
      const std::int32_t left_id = merge_member(merges, i, left);
      const std::int32_t right_id = merge_member(merges, i, right);
      const std::int32_t joined_id = merge_member(merges, i, joined);
      state_.merges.set(left_id, right_id, {static_cast<std::int32_t>(i), joined_id});
    }
  }

  AddedToken read_added_token(const JsonNode& node) {
    node.only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken token;
    token.id = static_cast<std::int32_t>(node["id"].integer(0, largest_id_));
    token.content = node["content"].text();
    token.single_word = node["single_word"].flag();
    token.left_strip = node["lstrip"].flag();
    token.right_strip = node["rstrip"].flag();
    token.normalized = node["normalized"].flag();
    token.special = node["special"].flag();
    if (token.content.empty()) node["content"].refuse("not be empty");
    const auto known = state_.ids.find(token.content);
    if (known == state_.ids.end()) {
      if (state_.tokens.size() <= static_cast<std::size_t>(token.id))
        state_.tokens.resize(static_cast<std::size_t>(token.id) + 1);
      add_token(token.id, token.content, node["id"]);
    } else if (known->second != token.id) {
      node["id"].refuse(fmt::format("be {}, which \"content\" has already", known->second));
    }
    return token;
  }

  void read_added_tokens() {
    const JsonNode list = root_["added_tokens"];
    if (list.is_null()) return;
    std::vector<AddedToken> tokens;
    for (std::size_t i = 0; i < list.size(); ++i) tokens.push_back(read_added_token(list.at(i)));
    // Of equal patterns the first counts, and special tokens come before the others.
    std::stable_partition(tokens.begin(), tokens.end(), [](const auto& t) { return t.special; });
    for (const AddedToken& token : tokens) {
      if (token.special) state_.tokens[token.id].special = true;
      if (token.normalized)
        state_.normalized_added.add(state_.normalized(token.content), token);
      else
        state_.raw_added.add(token.content, token);
    }
  }

  // ----- post_processor -----

  void read_post_processor(const JsonNode& node) {
    if (node.is_null()) return;
    const std::string& type = node["type"].text();
    if (type == "ByteLevel") return;  // moves offsets only
    if (type == "Sequence") {
      node.only({"type", "processors"});
      const JsonNode members = node["processors"];
      for (std::size_t i = 0; i < members.size(); ++i) read_post_processor(members.at(i));
      return;
    }
    if (type != "TemplateProcessing")
      node["type"].refuse("be ByteLevel, TemplateProcessing or Sequence");
    node.only({"type", "single", "pair", "special_tokens"});
    if (has_template_) node.refuse("be the only TemplateProcessing");
    has_template_ = true;
    read_template(node);
  }

  void read_template(const JsonNode& node) {
    const JsonNode single = node["single"];
    bool after = false;
    for (std::size_t i = 0; i < single.size(); ++i) {
      const JsonNode item = single.at(i);
      item.only({"Sequence", "SpecialToken"});
      if (!item["Sequence"].is_null()) {
        if (after || item["Sequence"]["id"].text() != "A") item.refuse("be sequence A, once");
        after = true;
        continue;
      }
      const JsonNode ids = node["special_tokens"][item["SpecialToken"]["id"].text()]["ids"];
      for (std::size_t k = 0; k < ids.size(); ++k) {
        const std::int64_t id = ids.at(k).integer(0, largest_id_);
        if (id >= static_cast<std::int64_t>(state_.tokens.size()) || !state_.tokens[id].present)
          ids.at(k).refuse("be the id of a token");
        (after ? state_.template_after : state_.template_before)
            .push_back(static_cast<std::int32_t>(id));
      }
    }
    if (!after) single.refuse("hold sequence A");
  }

  JsonNode root_;
  const std::string& file_;
  Tokenizer::State& state_;
  std::int64_t largest_id_ = 0;
  bool has_template_ = false;
};

}  // namespace

Tokenizer Tokenizer::from_json(std::string text, const std::string& name) {
  const std::string file = "tokenizer " + name;
  auto state = std::make_shared<State>();
  {
    const nlohmann::json document = parse_json(text, file);
    StateReader(document, file, *state).run();
  }
  state->json = std::move(text);
  return Tokenizer(std::move(state));
}

}  // namespace lectern
