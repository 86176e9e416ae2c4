// lectern tokenizer train | encode | decode
#include "data/tokenizer/tokenizer.h"

#include "core/error.h"
#include "core/io/file.h"
#include "data/text/text_corpus.h"
#include "data/tokenizer/train.h"
#include "recipes/commands/command.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace lectern::commands {
namespace {

using nlohmann::json;

struct TrainArguments {
  std::vector<std::string> text;
  std::string out;
  std::string style = "deepseek";
  std::int64_t vocab = 0;
  std::int64_t min_frequency = 2;
  bool json = false;
};

void train(const TrainArguments& arguments) {
  TrainOptions options;
  options.vocab_size = arguments.vocab;
  options.min_frequency = arguments.min_frequency;
  options.style = tokenizer_style(arguments.style);
  const std::size_t special = options.special_tokens.size();
  TokenizerTrainer trainer(std::move(options));
  std::uint64_t bytes = 0;
  const std::vector<std::filesystem::path> files =
      text_files({arguments.text.begin(), arguments.text.end()});
  for (const std::filesystem::path& path : files) {
    const std::string text = read_file(path);
    bytes += text.size();
    trainer.add(text);
  }
  const Tokenizer tokenizer = trainer.train();
  tokenizer.save(arguments.out);
  const auto merges = tokenizer.vocab_size() - static_cast<std::int64_t>(special) - 256;
  if (arguments.json)
    std::cout << json{{"out", arguments.out},
                      {"vocab_size", tokenizer.vocab_size()},
                      {"vocab_size_asked", arguments.vocab},
                      {"merged_tokens", merges},
                      {"special_tokens", special},
                      {"files", files.size()},
                      {"bytes", bytes}}
                     .dump()
              << '\n';
  else
    std::cout << fmt::format(
        "{}: {} tokens ({} special, 256 bytes, {} merged) from {} bytes in {} files\n",
        arguments.out, tokenizer.vocab_size(), special, merges, bytes, files.size());
  if (tokenizer.vocab_size() < arguments.vocab)
    std::cerr << fmt::format(
        "lectern tokenizer train: the text offers {} tokens of the {} asked for\n",
        tokenizer.vocab_size(), arguments.vocab);
}

// Calls answer(value) for the JSON value of each line of stdin and prints the JSON value it
// returns.
template <typename Answer>
void answer_lines(const std::string& command, const Answer& answer) {
  std::ios::sync_with_stdio(false);
  std::string line;
  for (std::uint64_t number = 1; std::getline(std::cin, line); ++number) {
    const std::string where = fmt::format("{}: stdin line {}", command, number);
    std::cout << answer(parse_json(line, where), where)
                     .dump(-1, ' ', false, json::error_handler_t::replace)
              << '\n';
  }
  std::cout.flush();
  if (std::cin.bad() || !std::cout) fail<IoError>(command + ": stdin or stdout failed");
}

void encode(const std::string& path, bool add_special) {
  const Tokenizer tokenizer = Tokenizer::load(path);
  answer_lines("tokenizer encode", [&](const json& text, const std::string& where) -> json {
    if (!text.is_string())
      fail<IoError>(fmt::format("{} must be a JSON string, got {}", where, text.type_name()));
    return tokenizer.encode(text.get_ref<const std::string&>(), add_special);
  });
}

void decode(const std::string& path, bool skip_special) {
  const Tokenizer tokenizer = Tokenizer::load(path);
  answer_lines("tokenizer decode", [&](const json& list, const std::string& where) -> json {
    if (!list.is_array())
      fail<IoError>(fmt::format("{} must be a JSON array of ids, got {}", where, list.type_name()));
    std::vector<std::int32_t> ids;
    for (const json& id : list) {
      constexpr auto kLargest = std::numeric_limits<std::int32_t>::max();
      if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::uint64_t{kLargest})
        fail<IoError>(fmt::format("{}: element {} must be an id in 0..{}, got {}", where,
                                  ids.size(), kLargest,
                                  id.is_primitive() ? id.dump() : id.type_name()));
      ids.push_back(id.get<std::int32_t>());
    }
    return tokenizer.decode(ids, skip_special);
  });
}

void add_train_command(Command tokenizer) {
  Command command = tokenizer.add_subcommand(
      "train", "Train a byte-level BPE tokenizer and write it as a tokenizer.json");
  const auto arguments = std::make_shared<TrainArguments>();
  command
      .add_option("--text", arguments->text,
                  "UTF-8 text files to learn from, and folders of them: their .txt")
      .required();
  command
      .add_option("--vocab", arguments->vocab,
                  "Number of tokens: special tokens, 256 bytes and merges together")
      .required();
  command.add_option("--out", arguments->out, "The tokenizer.json to write").required();
  command
      .add_option("--style", arguments->style,
                  "How text is cut before merging: deepseek, qwen2, gpt2")
      .one_of({"deepseek", "qwen2", "gpt2"})
      .show_default();
  command
      .add_option("--min-frequency", arguments->min_frequency,
                  "Pairs seen less often are not merged")
      .show_default();
  command.add_flag("--json", arguments->json, "Print one JSON object about the result");
  command.callback([arguments] { train(*arguments); });
}

struct CodeArguments {
  std::string tokenizer;
  bool flag = false;
};

}  // namespace

void add_tokenizer(Command app) {
  Command tokenizer = app.add_subcommand("tokenizer", "Train and run tokenizers");
  tokenizer.require_subcommand();
  add_train_command(tokenizer);

  Command encoding = tokenizer.add_subcommand(
      "encode", "stdin: one JSON string a line; stdout: one JSON array of ids a line");
  const auto encode_arguments = std::make_shared<CodeArguments>();
  encoding.add_option("--tokenizer", encode_arguments->tokenizer, "tokenizer.json").required();
  encoding.add_flag(
      "--no-special", encode_arguments->flag,
      "Leave out the tokens that the file's template puts around a text; added tokens "
      "in the text are recognised either way");
  encoding.callback(
      [encode_arguments] { encode(encode_arguments->tokenizer, !encode_arguments->flag); });

  Command decoding = tokenizer.add_subcommand(
      "decode", "stdin: one JSON array of ids a line; stdout: one JSON string a line");
  const auto decode_arguments = std::make_shared<CodeArguments>();
  decoding.add_option("--tokenizer", decode_arguments->tokenizer, "tokenizer.json").required();
  decoding.add_flag("--skip-special", decode_arguments->flag, "Leave out special tokens");
  decoding.callback(
      [decode_arguments] { decode(decode_arguments->tokenizer, decode_arguments->flag); });
}

}  // namespace lectern::commands
