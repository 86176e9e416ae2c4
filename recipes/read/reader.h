// Reading pictures with a model: image -> views -> tokens -> text.
#pragma once

#include "data/images/image.h"
#include "data/images/views.h"
#include "data/tokenizer/tokenizer.h"
#include "nn/generation/generation.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace lectern {

struct ReaderArgs {
  std::int64_t max_new_tokens = 1024;
  std::int64_t batch = 16;  ///< slots: a picture takes one, and one more for each of its tiles
  RepetitionGuard guard;
  std::string prompt;  ///< empty: the model's own
  /// Asked again and again: true ends the reading, and pictures that are not read yet are left out.
  std::function<bool()> stop = {};
};

/// The views of the next picture, in order; nothing at the end.
using ViewSource = std::function<std::optional<ImageViews>()>;
/// Called once a picture, when it has been read: its number, and its text.
using OnText = std::function<void(std::size_t number, std::string text)>;

class Reader {
 public:
  /// Keeps references; the model and tokenizer must outlive the reader. Throws ConfigError when the
  /// prompt has not exactly one <image>, at its start.
  Reader(const OcrModel& model, const Tokenizer& tokenizer, const ReaderArgs& args);

  /// Reads pictures as slots become free (generate_stream() in nn/generation/generation.h). What
  /// `next` throws ends the reading.
  void read_stream(const ViewSource& next, const OnText& on_text);

  /// Text of each picture, in their order. `progress` is called with the number of pictures done.
  std::vector<std::string> read(const std::vector<Image>& images,
                                const std::function<void(std::int64_t)>& progress = {});

  /// The same for pictures that are views already. `prompts`, one a picture or none at all, are
  /// tokens that stand behind a picture in place of the reader's prompt.
  std::vector<std::string> read_views(const std::vector<ImageViews>& pictures,
                                      const std::function<void(std::int64_t)>& progress = {},
                                      std::span<const std::vector<std::int32_t>> prompts = {});

  /// What all reading so far took.
  const GenerationStatistics& statistics() const { return statistics_; }

  /// Views that a picture of this size becomes.
  const ViewOptions& views() const { return views_; }

 private:
  using PromptOf = std::function<ModelInput(std::size_t number)>;

  void generate(const std::function<std::optional<ModelInput>()>& next, const OnText& on_text);
  std::vector<std::string> read_all(std::size_t count, const PromptOf& prompt_of,
                                    const std::function<void(std::int64_t)>& progress);
  ModelInput prompt_for(const ImageViews& views, std::span<const std::int32_t> prompt) const;

  const OcrModel& model_;
  const Tokenizer& tokenizer_;
  ReaderArgs args_;
  ViewOptions views_;
  std::vector<std::int32_t> prompt_ids_;
  GenerationStatistics statistics_;
};

/// The image processor's settings of a model, asked as its configuration says or in another way.
ViewOptions view_options(const ModelConfig& config);
ViewOptions view_options(const ModelConfig& config, const ReadingSettings& reading);

}  // namespace lectern
