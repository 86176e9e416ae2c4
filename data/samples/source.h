// A source of training samples: what the sample set, the sampler, the loader and evaluation ask of
// words cut from pages (cut.h), text that is drawn (drawn.h), stored pairs of picture and answer
// (pairs.h) and everything else that can be learnt from. A new kind is one class behind this
// interface and one line in the table of kinds.cpp.
//
// Tokens of a sample: [begin] image placeholders, prompt, response, [end]; only the response and
// the end are trained. How many they are is known without reading any picture.
#pragma once

#include "data/images/views.h"
#include "data/pages/page.h"
#include "data/samples/sampler.h"
#include "data/tokenizer/tokenizer.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// How a set shows its samples, whatever their source.
struct SampleOptions {
  /// Resolutions that training alternates between; view v is used for the whole of a step.
  std::vector<ViewOptions> views = std::vector<ViewOptions>(1);
  std::int32_t begin_token = 0, end_token = 1;  // begin -1: none
  std::int32_t image_token = 128815;
  std::int64_t margin = 4;       // pixels left of a pasted text
  std::int64_t padding = 1;      // pixels of the page kept around a box
  std::int64_t text_height = 0;  // pixels that a word's or line's box is scaled to; 0: as it is
  bool at_top =
      false;  // words and lines begin `margin` below the top, as regions do; else in the middle
  /// Pasted text moves by up to this, another way each time, but never out of the view.
  std::int64_t jitter_pixels = 0;
  std::uint64_t seed = 0;  // of the jitter
};

/// A page as it was before anything was cut from it.
struct WholePage {
  Image picture;
  double dots_per_inch = 0;  // 0 for drawn ones
};

struct Sample {
  Image global;              // empty for text, or when pixels were not asked for
  std::vector<Image> local;  // row-major over columns x rows
  int columns = 0, rows = 0;
  std::int64_t image_tokens = 0;
  std::vector<std::int32_t> prompt_ids, response_ids;
  std::string text;      // of the response
  std::string page_id;   // names the page or record in messages
  std::string document;  // by which samples are reported and split
  std::string kind;      // what it shows: "word", "page", or as a stored record says
  Box box;               // on the page
  std::string key;       // SampleSource::key
};

/// One draw of a set, seen in one of its views.
struct SampleRequest {
  const SampleOptions& options;
  Draw draw;
  int view = 0;

  const ViewOptions& views() const { return options.views[static_cast<std::size_t>(view)]; }
};

/// Tokens of a sample without the begin and end tokens, and its local tiles.
struct SampleLengths {
  std::int64_t image = 0, prompt = 0, response = 0;
  ViewGrid grid;

  std::int64_t sum() const { return image + prompt + response; }
};

/// Pieces that did not pass a source's filters, by the first reason that was found.
struct LeftOut {
  std::int64_t empty = 0;       // no text, or no picture
  std::int64_t tokens = 0;      // longer than max_text_tokens
  std::int64_t letters = 0;     // other characters than ASCII, with ascii_only
  std::int64_t characters = 0;  // longer than max_characters
  std::int64_t box = 0;         // boxes too small, too narrow or outside of the page

  std::int64_t sum() const { return empty + tokens + letters + characters + box; }
};

/// A record of a shard, or a file, that a source is made of.
struct SourceRecord {
  std::string document;
  std::int64_t tokens = -1;           // of its text; -1: not known
  std::function<std::string()> text;  // reads it
};

/// Functions may be called from several threads. Samples are numbered 0 .. count() - 1; each is a
/// pure function of the source's own settings, its number, the position of the draw and the set's
/// options.
class SampleSource {
 public:
  virtual ~SampleSource() = default;

  /// For messages: "word of out/shards/train".
  virtual std::string describe() const = 0;
  /// At least 1.
  virtual std::int64_t count() const = 0;
  /// Samples that did not pass the source's filters.
  virtual LeftOut left_out() const { return {}; }
  std::int64_t dropped() const { return left_out().sum(); }
  /// For the start of a run: what was left out and why; "" when nothing was.
  virtual std::string remark() const;
  /// Calls `visit` for everything that samples are made from, whether it passes filters or not.
  virtual void each_record(const std::function<void(const SourceRecord&)>& /*visit*/) const {}
  /// Samples that should be drawn near each other in time (SamplerSource::window); 0: any order.
  virtual std::int64_t window() const { return 0; }

  virtual SampleLengths lengths(std::int64_t index, const ViewOptions& view) const = 0;
  /// The largest lengths().sum(), or a bound of it where samples are not listed.
  virtual std::int64_t longest(const ViewOptions& view) const;

  /// Everything that the sample's pixels and text depend on, by content and not by name: the same
  /// key is the same sample.
  virtual std::string key(const SampleRequest& request) const = 0;
  /// Has the lengths that lengths() said. Without `pixels` the views are left empty.
  virtual Sample make(const SampleRequest& request, bool pixels) const = 0;
  /// The page that the sample shows a part of. Throws ConfigError where there is none.
  virtual WholePage whole_page(std::int64_t index) const;
};

/// For the start of a run: "31 longer than max_text_tokens, 2 longer than max_characters".
std::string wording(const LeftOut& left_out);

/// The end of a key: "|" and a hash of the picture and of whatever else the sample is made from.
/// Ids are not enough: two documents may have one name, and a document may be replaced.
std::string content_key(const std::string& picture_sha256, std::string_view content);

/// Where samples are counted by what a shard says of its pages, other tokens would not fit: throws
/// ConfigError unless `sha256` is that of the tokenizer's file. `folder` is for the message.
void check_tokenizer(const Tokenizer& tokenizer, const std::string& sha256,
                     const std::string& folder);

}  // namespace lectern
