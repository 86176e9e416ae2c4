// A model as GGUF files: what they hold, and writing and checking them tensor by tensor.
#pragma once

#include "core/io/gguf.h"
#include "nn/vision/sam_config.h"
#include "recipes/export/export.h"
#include "recipes/export/gguf_names.h"

#include <filesystem>
#include <string>
#include <vector>

namespace lectern {

/// Why llama.cpp could not run a model: collected, so that one message has them all.
class GgufLimits {
 public:
  /// `field` as config.json has it; `expected` and `found` in words or numbers.
  template <typename Expected, typename Found>
  void need(bool holds, const std::string& field, const Expected& expected, const Found& found) {
    if (!holds) reasons_.push_back(fmt::format("{} must be {}, got {}", field, expected, found));
  }
  /// Throws ConfigError with every reason.
  void check() const;

 private:
  std::vector<std::string> reasons_;
};

/// One file of an export.
struct GgufContent {
  std::string file;
  GgufMetadata metadata;
  std::vector<GgufRule> rules;
  GgufType type = GgufType::f32;  ///< of matrices; rows that no block fits become f16
};

/// The number that readers show as the type of a whole file (general.file_type).
std::uint32_t gguf_file_type(GgufType type);

/// Writes the files. Every tensor of the source goes where the first rule says that fits it, those
/// of a stack into one; refuses a tensor without a rule (Error). Throws IoError on files.
void write_gguf(const ExportSource& source, const std::filesystem::path& folder,
                const std::vector<GgufContent>& contents);
/// Reads the files and throws IoError naming file and key or tensor unless keys are equal and
/// values within what the types round (error_bound()).
void verify_gguf(const ExportSource& source, const std::filesystem::path& folder,
                 const std::vector<GgufContent>& contents);

/// What deepseek2-ocr needs of a decoder and its tokenizer.
void check_gguf_decoder(const LoadedModel& model, GgufLimits& limits);
/// What any vision file needs of its SAM.
void check_gguf_sam(const SamConfig& sam, GgufLimits& limits);
/// Keys of the language file, the tokenizer's among them. `name` is shown to people.
GgufMetadata gguf_decoder_metadata(const LoadedModel& model, const std::string& name,
                                   GgufType type);
void check_gguf_tokenizer(const Tokenizer& tokenizer, GgufLimits& limits);
/// Keys that begin with "tokenizer.", for `vocab_size` tokens.
GgufMetadata gguf_tokenizer_metadata(const LoadedModel& model);

}  // namespace lectern
