// What the configuration of a model says to the rest of lectern, whatever its family: its decoder,
// how it is asked, what its parts are called, how many tokens a view costs, and where it may be
// cut.
//
// A family (nn/families.h) derives from it and from OcrModel (model.h).
//
// A pipeline may part a model between units:
//   0 .. E - 1        the encoder's, as the family cuts it; the last gives projected rows
//   E .. E + D - 1    decoder block u - E; the first with the embeddings and the media rows
//   E + D             the decoder's norm, the head and the loss
#pragma once

#include "nn/blocks/residual_config.h"
#include "nn/language/decoder_config.h"
#include "nn/model_input.h"
#include "nn/parameter.h"
#include "nn/reading_settings.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

class OcrModel;

/// The parts that stages freeze and runs begin from, as prefixes of parameter names. The encoder is
/// everything before the decoder, its vision tokenizer among it.
struct ModelParts {
  std::vector<std::string> tokenizer, encoder, decoder, head;
};

/// What a recipe may say of a model beside its configuration file.
struct ModelSettings {
  std::optional<ResidualConfig> residual;
  std::string decoder_reads = "config";  ///< "queries", "visual", or as the file says
  std::int64_t queries = 0;              ///< rows of every query table; 0: as the file says
};

/// Views of one size, and how many of them.
struct ViewCount {
  std::int64_t pixels = 0;  ///< a side
  double count = 0;
};

/// What a unit does with views beyond the products of its parameters: `lectern plan`'s estimates.
struct UnitSizes {
  double attention = 0;     ///< operations of a forward pass
  double stream_bytes = 0;  ///< moved by residual streams in a forward pass
  double input_bytes = 0;   ///< f32, streams included: what recomputation keeps
  double kept_bytes = 0;    ///< f32, what backward needs without recomputation
  double block_bytes = 0;   ///< of kept_bytes, those of one block: alive while it runs
  double output_bytes = 0;  ///< f32, handed to the next unit
};

class ModelConfig {
 public:
  DecoderConfig decoder;
  std::int64_t image_token_id = 128815;
  ReadingSettings reading;
  ResidualConfig residual;

  virtual ~ModelConfig() = default;
  virtual std::unique_ptr<ModelConfig> clone() const = 0;
  /// Its name in the table of families.
  virtual std::string_view family() const = 0;

  /// Applies what a recipe says. Throws ConfigError for a setting that the family does not have.
  virtual void apply(const ModelSettings& settings);
  /// config.json in the layout that lectern writes.
  virtual nlohmann::json to_json() const = 0;
  /// Makes the model; parameters as ParameterStore says. With `placement` only a part of them is
  /// here (their values do not depend on it). Throws ConfigError when the experts do not divide by
  /// the ranks.
  virtual std::unique_ptr<OcrModel> make(std::uint64_t seed, DType dtype = DType::f32,
                                         ParameterValues values = ParameterValues::initialised,
                                         const ModelPlacement& placement = {}) const = 0;
  /// Weights of such a model, counted without making it.
  virtual double parameter_count() const = 0;
  virtual const ModelParts& parts() const = 0;
  /// Patterns of parameter names by the names that recipes have for parts of the model: those of
  /// parts(), what every decoder has ("decoder.attention", "decoder.mlp", "experts", "router"), and
  /// what a family adds.
  virtual std::map<std::string, std::vector<std::string>> named_parts() const;
  /// The published name of a tensor that a file may store under another program's name.
  virtual std::string published_name(const std::string& name) const { return name; }
  /// What transformers' module calls the tensor that is published under this name.
  virtual std::string module_name(const std::string& published) const { return published; }

  /// Pixels a side of what the vision tokenizer sees as one patch.
  virtual std::int64_t patch_size() const = 0;
  /// Tokens that a square view gives before the encoder compresses or queries them further.
  virtual std::int64_t visual_tokens(std::int64_t view_pixels) const = 0;
  /// Rows of the decoder that stand for a view.
  virtual std::int64_t decoder_tokens(std::int64_t view_pixels) const = 0;
  /// Rows of the decoder that stand for a picture: a global view, columns x rows local tiles (0 x 0
  /// without), and what separates them.
  virtual std::int64_t picture_tokens(std::int64_t global_size, std::int64_t tile_size,
                                      std::int64_t columns, std::int64_t rows) const;

  /// E: units before the decoder.
  virtual std::int64_t encoder_units() const = 0;
  /// The encoder unit whose computation reads a parameter, by its name in checkpoints.
  virtual std::optional<std::int64_t> encoder_unit_of(const std::string& name) const = 0;
  virtual std::string encoder_unit_name(std::int64_t unit) const = 0;
  /// Rows that a matrix of an encoder unit meets; 0 for a table that rows are looked up in.
  virtual double rows_of(std::int64_t unit, const std::string& parameter,
                         std::span<const ViewCount> views) const = 0;
  virtual UnitSizes encoder_sizes(std::int64_t unit, std::span<const ViewCount> views) const = 0;
  /// Rows of an encoder unit for one picture of the global view; rough.
  virtual double estimated_rows(std::int64_t unit) const = 0;

  /// E: the first unit of the decoder.
  std::int64_t first_decoder_unit() const { return encoder_units(); }
  /// E + D + 1.
  std::int64_t unit_count() const { return encoder_units() + decoder.num_hidden_layers + 1; }
  /// The unit whose computation reads a parameter. Throws ConfigError for a name that belongs to
  /// none.
  std::int64_t unit_of_parameter(const std::string& name) const;
  /// "vision tokenizer", "encoder block 3", "decoder block 0", "head".
  std::string unit_name(std::int64_t unit) const;
  /// Which units have a parameter that none of the prefixes freezes.
  std::vector<bool> trained_units(const std::vector<std::string>& frozen) const;
  /// Which units read one of these tensors, by their names in checkpoints.
  std::vector<bool> units_of(const std::vector<std::string>& tensors) const;
  /// What each unit costs, in no unit: weights that a row meets x rows, for one picture of the
  /// global view and `text_tokens`. Rough; `lectern plan` times them.
  std::vector<double> estimated_unit_costs(std::int64_t text_tokens = 256) const;

  /// Patterns of parameter names (matches_any()) for a list of named_parts() and patterns, which
  /// stay as they are.
  std::vector<std::string> prefixes_of(const std::vector<std::string>& parts) const;

 protected:
  ModelConfig() = default;
  ModelConfig(const ModelConfig&) = default;
  ModelConfig& operator=(const ModelConfig&) = default;
};

}  // namespace lectern
