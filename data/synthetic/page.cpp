// Whole pages: what stands where is planned in characters, then measured and drawn.
#include "core/error.h"
#include "data/synthetic/image_effects.h"
#include "data/synthetic/state.h"

#include <algorithm>
#include <cmath>

namespace lectern {
namespace detail {
namespace {

constexpr double kCharacterWidth = 0.52;  // em of an average character, with room to spare
constexpr double kParagraphGap = 0.7;     // em between blocks

double between(Random& random, double low, double high) {
  return low + (high - low) * random.uniform();
}

std::int64_t between(Random& random, std::int64_t low, std::int64_t high) {
  return low + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(high - low + 1)));
}

/// Fills the columns of a page block by block.
class Planner {
 public:
  Planner(TextChooser& chooser, PagePlan& plan, double share)
      : chooser_(chooser),
        random_(chooser.random()),
        plan_(plan),
        bottom_((static_cast<double>(plan.height) - 2 * plan.margin_y) / plan.em * share),
        characters_(std::max<std::int64_t>(
            8, static_cast<std::int64_t>(plan.column_width / (kCharacterWidth * plan.em)))),
        leading_(between(random_, 1.15, 1.5)),
        first_indent_(random_.uniform() < 0.5 ? 1.5 : 0) {}

  void fill() {
    chooser_.start();
    if (random_.uniform() < 0.7) heading(between(random_, 1.4, 1.9));
    while (column_ < plan_.columns) {
      const double kind = random_.uniform();
      if (kind < 0.62)
        paragraph();
      else if (kind < 0.77)
        list();
      else if (kind < 0.87)
        table();
      else
        heading(between(random_, 1.1, 1.4));
    }
    if (!plan_.lines.empty()) plan_.lines.back().ends_block = true;
  }

 private:
  /// False when the page is full; the line is then left out.
  bool add(PageLine line) {
    const double height = line.size * leading_;
    if (top_ + height > bottom_ && !(plan_.lines.empty())) {
      ++column_;
      top_ = 0;
      if (column_ >= plan_.columns) return false;
    }
    line.column = column_;
    line.top = top_;
    top_ += height;
    plan_.lines.push_back(std::move(line));
    return true;
  }

  void end_block() {
    if (!plan_.lines.empty()) plan_.lines.back().ends_block = true;
    top_ += kParagraphGap;
  }

  std::int64_t fitting(double size, double indent) const {
    const auto less = static_cast<std::int64_t>(indent / kCharacterWidth);
    return std::max<std::int64_t>(
        4, static_cast<std::int64_t>(static_cast<double>(characters_ - less) / size));
  }

  void heading(double size) {
    PageLine line;
    line.size = size;
    line.bold = true;
    line.cells = {chooser_.next_line(std::max<std::int64_t>(4, fitting(size, 0) * 7 / 10))};
    add(std::move(line));
    end_block();
  }

  void paragraph() {
    const std::int64_t lines = between(random_, std::int64_t{2}, std::int64_t{8});
    for (std::int64_t i = 0; i < lines; ++i) {
      PageLine line;
      line.indent = i == 0 ? first_indent_ : 0;
      line.cells = {chooser_.next_line(fitting(1, line.indent))};
      if (!add(std::move(line)) || (i > 0 && chooser_.at_paragraph())) break;
    }
    end_block();
  }

  void list() {
    const std::int64_t items = between(random_, std::int64_t{2}, std::int64_t{5});
    const double kind = random_.uniform();
    for (std::int64_t i = 0; i < items; ++i) {
      PageLine line;
      line.indent = 1.5;
      const std::string mark = kind < 0.4 ? "-" : kind < 0.5 ? "*" : std::to_string(i + 1) + ".";
      line.cells = {mark + " " + chooser_.next_line(fitting(1, 3.5))};
      if (!add(std::move(line))) break;
    }
    end_block();
  }

  std::string number() {
    const std::int64_t whole = between(random_, std::int64_t{0}, std::int64_t{999});
    if (random_.uniform() < 0.5) return std::to_string(whole);
    return fmt::format("{}.{:02}", whole, between(random_, std::int64_t{0}, std::int64_t{99}));
  }

  void table() {
    const std::int64_t columns = between(random_, std::int64_t{2}, plan_.columns > 1 ? 3 : 4);
    const std::int64_t rows = between(random_, std::int64_t{2}, std::int64_t{6});
    const std::int64_t room = std::max<std::int64_t>(3, characters_ / columns - 2);
    const bool ruled = random_.uniform() < 0.6;
    for (std::int64_t row = 0; row < rows; ++row) {
      PageLine line;
      line.bold = row == 0;
      for (std::int64_t cell = 0; cell < columns; ++cell)
        line.cells.push_back(
            row > 0 && cell > 0 && random_.uniform() < 0.7 ? number() : chooser_.word(1, room));
      line.rule_below = ruled && (row == 0 || row + 1 == rows);
      if (!add(std::move(line))) break;
    }
    end_block();
  }

  TextChooser& chooser_;
  Random& random_;
  PagePlan& plan_;
  double bottom_;
  std::int64_t characters_;
  double leading_, first_indent_, top_ = 0;
  int column_ = 0;
};

}  // namespace

std::array<std::int64_t, 2> choose_page_size(const SyntheticOptions& options, Random& random) {
  const std::int64_t width = between(random, options.page_width[0], options.page_width[1]);
  return {width, std::lround(static_cast<double>(width) * between(random, 1.2, 1.45))};
}

PagePlan plan_page(TextChooser& chooser, const SyntheticOptions& options,
                   std::array<std::int64_t, 2> size, double share) {
  Random& random = chooser.random();
  PagePlan plan;
  plan.width = size[0];
  plan.height = size[1];
  plan.em = between(random, options.font_size[0], options.font_size[1]);
  plan.margin_x = between(random, 0.05, 0.13) * static_cast<double>(plan.width);
  plan.margin_y = between(random, 0.05, 0.12) * static_cast<double>(plan.height);
  const double inner = static_cast<double>(plan.width) - 2 * plan.margin_x;
  plan.gutter = between(random, 1.5, 3) * plan.em;
  plan.columns = random.uniform() < 0.4 && inner > 30 * plan.em ? 2 : 1;
  plan.column_width = (inner - plan.gutter * (plan.columns - 1)) / plan.columns;
  plan.justified = random.uniform() < 0.6;
  Planner(chooser, plan, share).fill();
  return plan;
}

std::string PagePlan::text() const {
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += lines[i - 1].ends_block ? "\n\n" : "\n";
    for (std::size_t c = 0; c < lines[i].cells.size(); ++c)
      out += (c > 0 ? " " : "") + lines[i].cells[c];
  }
  return out;
}

namespace {

/// A part of a line that is drawn in one piece.
struct Piece {
  LineOutline outline;
  double x = 0;  // em of the line
};

std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> out(1);
  for (const char c : line)
    if (c == ' ')
      out.emplace_back();
    else
      out.back() += c;
  return out;
}

/// Words side by side so that the line fills `width` em; nothing where gaps would become holes.
std::vector<Piece> justify(const FontFace& face, const std::string& text, double width) {
  std::vector<Piece> out;
  double sum = 0;
  for (const std::string& word : words_of(text)) {
    out.push_back({LineOutline(face, word), sum});
    sum += out.back().outline.advance();
  }
  const auto gaps = static_cast<double>(out.size() - 1);
  const double gap = (width - sum) / std::max(gaps, 1.0);
  if (gaps < 2 || gap < 0.15 || gap > 0.9) return {};
  for (std::size_t i = 0; i < out.size(); ++i) out[i].x += gap * static_cast<double>(i);
  return out;
}

}  // namespace
}  // namespace detail

/// Draws one line; `em` is the page's, after it was made to fit.
void SyntheticSource::State::draw_page_line(Canvas& canvas, const detail::PagePlan& plan,
                                            const detail::PageLine& line,
                                            const detail::Style& style, double em) const {
  const FontFace& face = page_face(line, style);
  const double size = em * line.size;
  const double left = plan.margin_x + line.column * (plan.column_width + plan.gutter);
  const double width = plan.column_width - line.indent * em;
  const double cosine = std::cos(style.radians), sine = std::sin(style.radians);
  const double middle_x = static_cast<double>(plan.width) / 2;
  const double middle_y = static_cast<double>(plan.height) / 2;
  const double top = plan.margin_y + line.top * em;
  const auto draw = [&](const LineOutline& outline, double x, double squeeze) {
    const double dx = x - middle_x, dy = top + outline.ascent() * size - middle_y;
    canvas.draw(outline,
                {cosine * size * squeeze, sine * size * squeeze, -sine * size, cosine * size,
                 middle_x + cosine * dx - sine * dy, middle_y + sine * dx + cosine * dy});
  };
  const auto cells = static_cast<double>(line.cells.size());
  for (std::size_t c = 0; c < line.cells.size(); ++c) {
    const double x = left + line.indent * em + width * static_cast<double>(c) / cells;
    const bool fills = plan.justified && line.cells.size() == 1 && !line.ends_block && !line.bold;
    const auto pieces =
        fills ? detail::justify(face, line.cells[c], width / size) : std::vector<detail::Piece>{};
    for (const detail::Piece& piece : pieces) draw(piece.outline, x + piece.x * size, 1);
    if (!pieces.empty()) continue;
    const LineOutline outline(face, line.cells[c]);
    draw(outline, x, std::min(1.0, width / cells / std::max(outline.advance() * size, 1e-3)));
  }
  if (line.rule_below && style.radians == 0) {
    const double y = top + 1.12 * size;
    canvas.draw_rectangle({left, y, left + plan.column_width, y + std::max(0.06 * em, 0.8)});
  }
}

Image SyntheticSource::draw_page(std::uint64_t index, int attempt) const {
  if (state_->options.level != Level::page)
    fail<ConfigError>(fmt::format("synthetic: draw_page() needs level page, got {}",
                                  name_of(state_->options.level)));
  const detail::Style style = state_->style(index);
  const detail::PagePlan plan = state_->page(index, attempt, style.face);
  // The plan counts characters; a wide face is drawn smaller, down to where squeezing is better.
  double fit = 1;
  for (const detail::PageLine& line : plan.lines) {
    if (line.cells.size() > 1) continue;
    const double room = plan.column_width / plan.em - line.indent;
    const LineOutline outline(state_->page_face(line, style), line.cells[0]);
    fit = std::min(fit, room / std::max(outline.advance() * line.size, 1e-3));
  }
  const double em = plan.em * std::max(fit, 0.75);
  Canvas canvas(plan.width, plan.height);
  for (const detail::PageLine& line : plan.lines)
    state_->draw_page_line(canvas, plan, line, style, em);
  return state_->finish(canvas, style, index);
}

}  // namespace lectern
