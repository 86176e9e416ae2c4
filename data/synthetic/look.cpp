// What drawn samples can look like: keys of recipes, options of `lectern data synthetic`, and the
// fingerprint of a source.
#include "data/synthetic/state.h"
#include "data/synthetic/synthetic.h"

namespace lectern {

using detail::kLeastContrast;

void describe(SyntheticOptions& r, FieldVisitor& f) {
  f.number("distinct_share", r.distinct_share, between(0, 1),
           {.meaning = "words from the list of different ones, not from running text"});
  f.number("random_share", r.random_share, between(0, 1),
           {.meaning = "words of random characters of the text"});
  f.span("font_size", r.font_size, between(2, 512),
         {"pixels of the em", "less where the text would not fit the view"});
  f.number("bold_share", r.bold_share, between(0, 1), {.meaning = "samples in a bold face"});
  f.number("italic_share", r.italic_share, between(0, 1), {.meaning = "samples in an italic face"});
  f.number("stretch", r.stretch, between(0, 0.5), {.meaning = "widths vary by this factor"});
  f.number("rotation_degrees", r.rotation_degrees, between(0, 2), {"degrees", "either way"});
  f.number("blur", r.blur, between(0, 8), {"pixels", "largest standard deviation"});
  f.number("noise", r.noise, between(0, 100), {"grey levels", "largest standard deviation"});
  f.number("jpeg_share", r.jpeg_share, between(0, 1),
           {.meaning = "samples that went through JPEG"});
  f.integer("jpeg_quality", r.jpeg_quality, within(1, 95), {.meaning = "the least"});
  f.integer("ink", r.ink, within(0, 255 - kLeastContrast), {"grey level", "the lightest"});
  f.integer("paper", r.paper, within(r.ink + kLeastContrast, 255),
            {"grey level", "the darkest, at least 64 above `ink`"});
  f.number("colour_share", r.colour_share, between(0, 1),
           {.meaning = "samples with tinted ink and paper"});
}

void describe_page(SyntheticOptions& r, FieldVisitor& f) {
  f.span("page_width", r.page_width, within(64, 8192), {"pixels", "of drawn pages"});
}

}  // namespace lectern
