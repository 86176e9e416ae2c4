// A tiny model that reads pages of drawn letters by pieces, for tests.
#pragma once

#include "recipes/checkpoint/model_folder.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/tiny_run.h"

#include <nlohmann/json.hpp>

#include <filesystem>

namespace lectern::testing {

/// Writes it, with its tokenizer, into the new folder `model`: pieces of 60 pixels at 100 dots an
/// inch.
inline void save_piece_model(const std::filesystem::path& model) {
  nlohmann::json config = tiny_config();
  config["lectern"].update({{"read_by", "pieces"},
                            {"global_size", 64},
                            {"piece_width", 60},
                            {"piece_dpi", 100},
                            {"piece_margin", 2}});
  config["lectern"]["queries_768"] = 16;
  std::filesystem::create_directories(model);
  save_model(*make_model(parse_model_config(config, "config"), 1), model);
  tiny_tokenizer().save(model / "tokenizer.json");
}

}  // namespace lectern::testing
