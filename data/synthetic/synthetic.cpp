#include "data/synthetic/synthetic.h"

#include "core/error.h"
#include "core/io/files.h"
#include "data/synthetic/state.h"
#include "data/text/utf8.h"

#include <pango/pangocairo.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lectern {
namespace {

using detail::FaceCoverage;
using detail::kLeastContrast;
using detail::PageLine;
using detail::PagePlan;
using detail::Style;
using detail::TextChooser;

constexpr double kLeastShare = 0.1;  // of the words that a face must spell to be used at all
constexpr double kEdge = 1;          // pixels between ink and the border of a view
// Draws that one sample may take from its stream.
constexpr int kTextBits = 24, kStyleBits = 8;

void check_options(SyntheticOptions& o) {
  FieldCheck check("synthetic");
  check.integer("max_characters", o.max_characters, within(1, 1000));
  check.integer("min_characters", o.min_characters, within(1, o.max_characters));
  check.integer("region_lines", o.region_lines, within(2, 200));
  describe(o, check);
  describe_page(o, check);
}

double between(Random& random, double low, double high) {
  return low + (high - low) * random.uniform();
}

struct Bounds {
  double left = 1e9, top = 1e9, right = -1e9, bottom = -1e9;
  bool empty() const { return left > right; }
  void add(double x, double y) {
    left = std::min(left, x);
    right = std::max(right, x);
    top = std::min(top, y);
    bottom = std::max(bottom, y);
  }
};

Affine times(const Affine& a, const Affine& b) {  // a after b
  return {a.xx * b.xx + a.xy * b.yx,        a.yx * b.xx + a.yy * b.yx,
          a.xx * b.xy + a.xy * b.yy,        a.yx * b.xy + a.yy * b.yy,
          a.xx * b.x0 + a.xy * b.y0 + a.x0, a.yx * b.x0 + a.yy * b.y0 + a.y0};
}

void add_ink(Bounds& bounds, const LineOutline& line, const Affine& t) {
  const Box& ink = line.ink();
  if (ink.right <= ink.left) return;
  for (const double x : {ink.left, ink.right})
    for (const double y : {ink.top, ink.bottom})
      bounds.add(t.xx * x + t.xy * y + t.x0, t.yx * x + t.yy * y + t.y0);
}

/// Lines of a view in units of the em, and how they are turned and moved.
struct Block {
  std::vector<LineOutline> lines;
  double width = 0, height = 0, leading = 1.2;

  Affine place(std::size_t i, const Affine& block) const {
    const double baseline = lines[0].ascent() + leading * static_cast<double>(i);
    return times(block, {1, 0, 0, 1, 0, baseline});
  }
  Bounds ink(const Affine& block) const {
    Bounds out;
    for (std::size_t i = 0; i < lines.size(); ++i) add_ink(out, lines[i], place(i, block));
    return out;
  }
};

/// Where the block lies: its corner at `left`, its middle at `middle`, turned about its centre.
Affine block_transform(const Block& block, const Style& style, double em, double left,
                       double middle) {
  const double width = block.width * em * style.stretch, height = block.height * em;
  const double cosine = std::cos(style.radians), sine = std::sin(style.radians);
  const Affine scaled{em * style.stretch, 0, 0, em, -width / 2, -height / 2};
  return times({cosine, sine, -sine, cosine, left + width / 2, middle}, scaled);
}

/// How far [low, high] must move to lie in [first, last]; centred where it is too long.
double move_inside(double low, double high, double first, double last) {
  if (high - low > last - first) return (first + last - low - high) / 2;
  return low < first ? first - low : high > last ? last - high : 0;
}

}  // namespace

const std::vector<std::string>& default_font_families() {
  static const std::vector<std::string> families = {"CMU Bright",
                                                    "CMU Concrete",
                                                    "CMU Sans Serif",
                                                    "CMU Serif",
                                                    "CMU Typewriter Text",
                                                    "Caladea",
                                                    "Carlito",
                                                    "Courier Prime",
                                                    "DejaVu Sans",
                                                    "DejaVu Sans Mono",
                                                    "DejaVu Serif",
                                                    "EB Garamond",
                                                    "FreeMono",
                                                    "FreeSans",
                                                    "FreeSerif",
                                                    "Gentium",
                                                    "Inconsolata",
                                                    "Liberation Mono",
                                                    "Liberation Sans",
                                                    "Liberation Sans Narrow",
                                                    "Liberation Serif",
                                                    "Linux Biolinum O",
                                                    "Linux Libertine O",
                                                    "Old Standard TT",
                                                    "Open Sans"};
  return families;
}

void SyntheticSource::State::find_faces() {
  const auto installed = font_families();
  const bool by_default = options.fonts.empty();
  const auto& wanted = by_default ? default_font_families() : options.fonts;
  std::vector<FontFace> candidates;
  for (const std::string& family : wanted) {
    const std::vector<FontFace> found = faces_of(family);
    if (found.empty()) missing.push_back(family);
    candidates.insert(candidates.end(), found.begin(), found.end());
  }
  std::string names;
  for (const std::string& family : missing) names += (names.empty() ? "" : ", ") + family;
  if (!missing.empty() && (!by_default || candidates.empty()))
    fail<ConfigError>(fmt::format(
        "synthetic: fonts must be installed, got none of the family {} ({} families are; "
        "scripts/install-deps.sh installs the default ones, fonts-noto-cjk or fonts-droid-fallback "
        "have CJK)",
        names, installed.size()));
  // A face that spells next to nothing of the text would repeat the same few words.
  const auto& distinct = corpus.distinct();
  for (const FontFace& face : candidates) {
    FaceCoverage has(face, corpus.characters());
    const auto spelled = std::count_if(distinct.begin(), distinct.end(),
                                       [&](std::int64_t i) { return has.spells(corpus.word(i)); });
    if (static_cast<double>(spelled) < kLeastShare * static_cast<double>(distinct.size())) continue;
    if (families.empty() || faces[families.back()[0]].family != face.family)
      families.emplace_back();
    families.back().push_back(faces.size());
    faces.push_back(face);
    coverage.push_back(std::move(has));
  }
  if (faces.empty())
    fail<ConfigError>(fmt::format(
        "synthetic: no usable font: none of the {} faces of {} can spell a tenth of the text's "
        "words, such as \"{}\" (fonts-noto-cjk or fonts-droid-fallback have CJK)",
        candidates.size(), wanted[0] + (wanted.size() > 1 ? " and others" : ""), corpus.word(0)));
}

void SyntheticSource::State::drop_unspellable() {
  std::vector<char32_t> missing_characters;
  for (const char32_t c : corpus.characters())
    if (std::none_of(coverage.begin(), coverage.end(),
                     [&](const FaceCoverage& has) { return has.has(c); }))
      missing_characters.push_back(c);
  corpus.drop_words_with(missing_characters);
}

Random SyntheticSource::State::text_stream(std::uint64_t index, int attempt) const {
  Random random(options.seed, "synthetic/text");
  random.seek(((index << 4) + static_cast<std::uint64_t>(attempt & 15)) << kTextBits);
  return random;
}

detail::Style SyntheticSource::State::style(std::uint64_t index) const {
  Random random(options.seed, "synthetic/style");
  random.seek(index << kStyleBits);
  Style out;
  const auto& family = families[random.below(families.size())];
  const bool bold = random.uniform() < options.bold_share;
  const bool italic = random.uniform() < options.italic_share;
  std::vector<std::size_t> fitting;
  for (const std::size_t face : family)
    if (faces[face].bold == bold && faces[face].italic == italic) fitting.push_back(face);
  const auto& choice = fitting.empty() ? family : fitting;
  out.face = choice[random.below(choice.size())];
  out.em = between(random, options.font_size[0], options.font_size[1]);
  out.stretch = 1 + options.stretch * between(random, -1, 1);
  out.radians = options.rotation_degrees * between(random, -1, 1) * std::numbers::pi / 180;
  out.leading = between(random, 1.1, 1.5);
  out.blur = options.blur * random.uniform();
  out.noise = options.noise * random.uniform();
  const double jpeg = random.uniform(), quality = random.uniform();
  if (jpeg < options.jpeg_share)
    out.jpeg =
        static_cast<int>(options.jpeg_quality +
                         std::lround(quality * static_cast<double>(95 - options.jpeg_quality)));
  const auto ink = static_cast<int>(options.ink), paper = static_cast<int>(options.paper);
  const int dark = static_cast<int>(std::lround(random.uniform() * ink));
  const int light = 255 - static_cast<int>(std::lround(random.uniform() * (255 - paper)));
  const bool tinted = random.uniform() < options.colour_share;
  for (std::size_t c = 0; c < 3; ++c) {
    const double room = light - dark - kLeastContrast;
    const double more = std::min(80.0, 0.6 * room) * random.uniform();
    const double less = std::min(40.0, 0.4 * room) * random.uniform();
    out.ink[c] = static_cast<std::uint8_t>(dark + (tinted ? std::lround(more) : 0));
    out.paper[c] = static_cast<std::uint8_t>(light - (tinted ? std::lround(less) : 0));
  }
  out.shift_x = between(random, -1, 1);
  out.shift_y = between(random, -1, 1);
  out.phase_x = random.uniform() - 0.5;
  out.phase_y = random.uniform() - 0.5;
  return out;
}

std::vector<std::string> SyntheticSource::State::lines(std::uint64_t index, int attempt,
                                                       std::size_t face) const {
  TextChooser choose = chooser(index, attempt, face);
  // Later attempts say less: what did not fit was too long.
  const std::int64_t halved = options.max_characters >> std::max(0, (attempt - 2) / 2);
  const std::int64_t longest = std::max<std::int64_t>(halved, 1);
  const std::int64_t shortest = std::min(options.min_characters, longest);
  if (options.level == Level::character) return {choose.character()};
  if (options.level == Level::word) return {choose.word(shortest, longest)};
  const auto length = [&] {
    return shortest + static_cast<std::int64_t>(choose.random().below(
                          static_cast<std::uint64_t>(longest - shortest + 1)));
  };
  if (options.level == Level::line) {
    std::string best;
    for (int i = 0; i < 8; ++i) {  // paragraphs end early: the longest of a few
      choose.start();
      std::string line = choose.next_line(length());
      if (line.size() > best.size()) best = std::move(line);
      if (count_characters(best) >= shortest) break;
    }
    return {best};
  }
  const std::int64_t most =
      std::max<std::int64_t>(options.region_lines >> std::max(0, attempt - 3), 1);
  const auto count = most < 2 ? 1 : 2 + choose.random().below(static_cast<std::uint64_t>(most - 1));
  // Lines of next to nothing are no region.
  const std::int64_t width = std::max(length(), longest / 3);
  std::vector<std::string> out;
  choose.start();
  while (out.size() < count) out.push_back(choose.next_line(width));
  return out;
}

PagePlan SyntheticSource::State::page(std::uint64_t index, int attempt, std::size_t face) const {
  TextChooser choose = chooser(index, attempt, face);
  Random size_stream(options.seed, "synthetic/size");
  size_stream.seek(index << kStyleBits);
  const auto size = detail::choose_page_size(options, size_stream);
  return detail::plan_page(choose, options, size, attempt < 2 ? 1.0 : 1.0 / (1 << (attempt - 1)));
}

Image SyntheticSource::State::finish(const Canvas& canvas, const Style& style,
                                     std::uint64_t index) const {
  GreyPlane coverage = coverage_of(canvas);
  blur(coverage, style.blur);
  Image out = colour(coverage, style.ink, style.paper);
  add_noise(out, style.noise, options.seed, index);
  return style.jpeg > 0 ? through_jpeg(out, style.jpeg) : out;
}

const FontFace& SyntheticSource::State::page_face(const PageLine& line, const Style& style) const {
  const FontFace& body = faces[style.face];
  if (!line.bold || body.bold) return body;
  for (const auto& family : families)
    for (const std::size_t face : family)
      if (faces[face].family == body.family && faces[face].bold && !faces[face].italic &&
          std::all_of(line.cells.begin(), line.cells.end(),
                      [&](const std::string& cell) { return coverage[face].spells(cell); }))
        return faces[face];
  return body;
}

SyntheticSource::SyntheticSource(TextCorpus corpus, SyntheticOptions options)
    : state_(std::make_unique<State>(std::move(corpus), std::move(options))) {
  check_options(state_->options);
  state_->find_faces();
  state_->drop_unspellable();
  SyntheticOptions& o = state_->options;
  std::string faces;
  for (const FontFace& face : state_->faces) faces += face.description + "\n";
  FieldValues look;
  describe(o, look);
  describe_page(o, look);
  state_->fingerprint =
      sha256_of(fmt::format("{} {} {} {} {} {} {}\n{}\n{}", name_of(o.level), o.seed,
                            o.min_characters, o.max_characters, o.region_lines, look.text(),
                            state_->corpus.sha256(), faces,
                            std::string(pango_version_string()) + cairo_version_string()))
          .substr(0, 16);
}

SyntheticSource::~SyntheticSource() = default;
const SyntheticOptions& SyntheticSource::options() const { return state_->options; }
const TextCorpus& SyntheticSource::corpus() const { return state_->corpus; }
const std::vector<FontFace>& SyntheticSource::faces() const { return state_->faces; }
const std::vector<std::string>& SyntheticSource::missing_families() const {
  return state_->missing;
}
const std::string& SyntheticSource::fingerprint() const { return state_->fingerprint; }

const FontFace& SyntheticSource::face(std::uint64_t index) const {
  return state_->faces[state_->style(index).face];
}

std::string SyntheticSource::text(std::uint64_t index, int attempt) const {
  const std::size_t face = state_->style(index).face;
  if (state_->options.level == Level::page) return state_->page(index, attempt, face).text();
  std::string out;
  for (const std::string& line : state_->lines(index, attempt, face))
    out += (out.empty() ? "" : "\n") + line;
  return out;
}

std::array<std::int64_t, 2> SyntheticSource::page_size(std::uint64_t index) const {
  Random size_stream(state_->options.seed, "synthetic/size");
  size_stream.seek(index << kStyleBits);
  return detail::choose_page_size(state_->options, size_stream);
}

Image SyntheticSource::draw(std::uint64_t index, const Placement& to, int attempt) const {
  if (state_->options.level == Level::page)
    fail<ConfigError>("synthetic: draw() takes every level but page, got page");
  const Style style = state_->style(index);
  Block block;
  block.leading = style.leading;
  for (const std::string& line : state_->lines(index, attempt, style.face)) {
    block.lines.emplace_back(state_->faces[style.face], line);
    block.width = std::max(block.width, block.lines.back().advance());
  }
  const LineOutline& first = block.lines.front();
  block.height = first.ascent() + first.descent() +
                 style.leading * static_cast<double>(block.lines.size() - 1);
  const auto size = static_cast<double>(to.size), margin = static_cast<double>(to.margin);
  const double room = size - 2 * margin;
  double em =
      std::min({style.em, room / std::max(block.width * style.stretch, 1e-3), room / block.height});
  const bool at_top = to.at_top || state_->options.level == Level::region;
  const auto jitter = static_cast<double>(to.jitter);
  const auto place = [&] {
    const double middle = at_top ? margin + block.height * em / 2 : size / 2;
    return block_transform(block, style, em, margin + jitter * style.shift_x + style.phase_x,
                           middle + jitter * style.shift_y + style.phase_y);
  };
  // Turned text, swashes and accents may reach beyond the box that was made to fit.
  Affine transform = place();
  Bounds ink = block.ink(transform);
  if (const double most = std::max(ink.right - ink.left, ink.bottom - ink.top);
      !ink.empty() && most > size - 2 * kEdge) {
    em *= (size - 2 * kEdge) / most;
    transform = place();
    ink = block.ink(transform);
  }
  if (!ink.empty()) {
    transform.x0 += move_inside(ink.left, ink.right, kEdge, size - kEdge);
    transform.y0 += move_inside(ink.top, ink.bottom, kEdge, size - kEdge);
  }
  Canvas canvas(to.size, to.size);
  for (std::size_t i = 0; i < block.lines.size(); ++i)
    canvas.draw(block.lines[i], block.place(i, transform));
  return state_->finish(canvas, style, index);
}

}  // namespace lectern
