#include "data/samples/batch.h"

#include "core/error.h"
#include "data/images/views.h"

#include <algorithm>

namespace lectern {
namespace {

std::int64_t length_of(const Sample& sample, const SampleOptions& options) {
  return (options.begin_token >= 0 ? 1 : 0) + sample.image_tokens +
         static_cast<std::int64_t>(sample.prompt_ids.size() + sample.response_ids.size()) + 1;
}

/// Writes rows of the four token tensors from left to right.
class RowWriter {
 public:
  RowWriter(const Batch& batch, std::int64_t row, std::int64_t tokens)
      : ids_(batch.input_ids.data<std::int32_t>() + row * tokens),
        labels_(batch.labels.data<std::int32_t>() + row * tokens),
        positions_(batch.positions.data<std::int32_t>() + row * tokens),
        starts_(batch.segment_start.data<std::int32_t>() + row * tokens) {}

  void begin_sample() { start_ = at_; }
  void put(std::int32_t id, bool trained) {
    ids_[at_] = id;
    labels_[at_] = trained ? id : kIgnoredLabel;
    positions_[at_] = at_ - start_;
    starts_[at_] = start_;
    ++at_;
  }
  void put(const Sample& sample, const SampleOptions& options) {
    begin_sample();
    if (options.begin_token >= 0) put(options.begin_token, false);
    for (std::int64_t i = 0; i < sample.image_tokens; ++i) put(options.image_token, false);
    for (const std::int32_t id : sample.prompt_ids) put(id, false);
    for (const std::int32_t id : sample.response_ids) put(id, true);
    put(options.end_token, true);
  }
  void pad_to(std::int64_t tokens, std::int32_t pad) {
    while (at_ < tokens) put(pad, false);
  }

 private:
  std::int32_t *ids_, *labels_, *positions_, *starts_;
  std::int32_t at_ = 0, start_ = 0;
};

/// [views, 3, size, size] f32, or undefined when there are none.
Tensor pixels_of(const std::vector<const Image*>& views, std::string_view name) {
  if (views.empty()) return {};
  const std::int64_t size = views.front()->width;
  const std::int64_t values = 3 * size * size;
  const Tensor out =
      Tensor::empty({static_cast<std::int64_t>(views.size()), 3, size, size}, DType::f32);
  for (std::size_t i = 0; i < views.size(); ++i) {
    if (views[i]->width != size || views[i]->height != size)
      fail<ShapeError>(fmt::format("batch: {} must all be {} x {}, got {} x {}", name, size, size,
                                   views[i]->width, views[i]->height));
    write_normalised(*views[i], out.data<float>() + static_cast<std::int64_t>(i) * values);
  }
  return out;
}

void add_images(std::span<const Sample> samples, Batch& batch) {
  std::vector<const Image*> global, local;
  for (const Sample& sample : samples) {
    if (sample.image_tokens == 0) continue;
    batch.num_local_patches.push_back(sample.columns * sample.rows);
    batch.image_keys.push_back(sample.key);
    batch.has_pixels.push_back(sample.global.empty() ? 0 : 1);
    if (sample.global.empty()) continue;
    global.push_back(&sample.global);
    for (const Image& tile : sample.local) local.push_back(&tile);
  }
  batch.pixel_values = pixels_of(global, "global views");
  batch.pixel_values_local = pixels_of(local, "local views");
}

}  // namespace

Batch make_batch(std::span<const Sample> samples, const SampleOptions& sample_options,
                 const BatchOptions& options) {
  if (samples.empty()) fail<ShapeError>("batch: samples must not be empty");
  const bool packed = options.pack_tokens > 0;
  std::int64_t longest = 0, total = 0;
  for (const Sample& sample : samples) {
    const std::int64_t length = length_of(sample, sample_options);
    longest = std::max(longest, length);
    total += length;
  }
  if (packed && total > options.pack_tokens)
    fail<ShapeError>(fmt::format("batch: a pack must have at most {} tokens, got {}",
                                 options.pack_tokens, total));
  const std::int64_t rows = packed ? 1 : static_cast<std::int64_t>(samples.size());
  const std::int64_t tokens = packed ? total : longest;
  if (tokens > (std::int64_t{1} << 30))
    fail<ShapeError>(fmt::format("batch: a row must have at most 2^30 tokens, got {}", tokens));

  Batch batch;
  for (Tensor* tensor : {&batch.input_ids, &batch.labels, &batch.positions, &batch.segment_start})
    *tensor = Tensor::empty({rows, tokens}, DType::i32);
  if (packed) {
    RowWriter row(batch, 0, tokens);
    for (const Sample& sample : samples) row.put(sample, sample_options);
  } else {
    for (std::int64_t i = 0; i < rows; ++i) {
      RowWriter row(batch, i, tokens);
      row.put(samples[static_cast<std::size_t>(i)], sample_options);
      row.pad_to(tokens, options.pad_token);
    }
  }
  add_images(samples, batch);
  for (const Sample& sample : samples) {
    batch.sample_keys.push_back(sample.key);
    batch.trained_tokens += static_cast<std::int64_t>(sample.response_ids.size()) + 1;
  }
  batch.samples = static_cast<std::int64_t>(samples.size());
  return batch;
}

}  // namespace lectern
