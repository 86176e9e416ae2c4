#include "recipes/report/plot.h"

#include "data/text/utf8.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace lectern {
namespace {

constexpr double kWidth = 360, kHeight = 240;
constexpr double kLeft = 46, kRight = 350, kTop = 34, kBottom = 204;
constexpr std::size_t kMaxPoints = 300;

struct Axis {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;

  double at(double value) const {
    const double position =
        log ? (std::log(value) - std::log(low)) / (std::log(high) - std::log(low))
            : (value - low) / (high - low);
    return from + position * (to - from);
  }
};

bool usable(double x, double y, bool log_y) {
  return std::isfinite(x) && std::isfinite(y) && (!log_y || y > 0);
}

/// Drops what cannot be drawn.
PlotSeries cleaned(const PlotSeries& series, bool log_y) {
  PlotSeries out = series;
  out.x.clear();
  out.y.clear();
  for (std::size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i)
    if (usable(series.x[i], series.y[i], log_y)) {
      out.x.push_back(series.x[i]);
      out.y.push_back(series.y[i]);
    }
  return out;
}

std::string number(double value) {
  const double size = std::abs(value);
  if (size >= 1e6) return fmt::format("{:g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:g}k", value / 1e3);
  if (size != 0 && size < 1e-3) return fmt::format("{:.0e}", value);
  return fmt::format("{:g}", value);
}

/// The lowest and highest point of each of kMaxPoints / 2 stretches, so that no spike is lost.
void thin(std::vector<double>& x, std::vector<double>& y) {
  if (x.size() <= kMaxPoints) return;
  std::vector<double> thin_x, thin_y;
  const std::size_t stretches = kMaxPoints / 2;
  for (std::size_t s = 0; s < stretches; ++s) {
    const auto begin = static_cast<std::ptrdiff_t>(x.size() * s / stretches);
    const auto end = static_cast<std::ptrdiff_t>(x.size() * (s + 1) / stretches);
    const auto [low, high] = std::minmax_element(y.begin() + begin, y.begin() + end);
    for (const auto& each : {std::min(low, high), std::max(low, high)}) {
      thin_x.push_back(x[static_cast<std::size_t>(each - y.begin())]);
      thin_y.push_back(*each);
    }
  }
  x = std::move(thin_x);
  y = std::move(thin_y);
}

std::string polyline(std::vector<double> x, std::vector<double> y, const Axis& horizontal,
                     const Axis& vertical, std::string_view style) {
  thin(x, y);
  std::string points;
  for (std::size_t i = 0; i < x.size(); ++i)
    points += fmt::format("{}{:.1f},{:.1f}", i ? " " : "", horizontal.at(x[i]), vertical.at(y[i]));
  return fmt::format("<polyline {} points=\"{}\"/>", style, points);
}

std::string draw_series(const PlotSeries& series, const Axis& horizontal, const Axis& vertical) {
  std::string out;
  const std::string color = fmt::format("stroke=\"var(--series-{})\"", series.color);
  if (series.smooth) {
    const double half_life = std::max(1.0, static_cast<double>(series.y.size()) / 40);
    out += polyline(series.x, series.y, horizontal, vertical, "class=\"raw\" " + color);
    out += polyline(series.x, centred_mean(series.y, half_life), horizontal, vertical,
                    "class=\"line\" " + color);
  } else {
    out += polyline(series.x, series.y, horizontal, vertical, "class=\"line\" " + color);
  }
  if (series.dots || series.x.size() == 1)
    for (std::size_t i = 0; i < std::min(series.x.size(), kMaxPoints); ++i)
      out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"var(--series-{})\"/>",
                         horizontal.at(series.x[i]), vertical.at(series.y[i]), series.color);
  return out;
}

std::string draw_axes(const PlotArgs& args, const Axis& horizontal, const Axis& vertical) {
  std::string out;
  std::vector<double> y_ticks;
  if (vertical.log) {
    for (double decade = std::pow(10, std::floor(std::log10(vertical.low)));
         decade <= vertical.high; decade *= 10)
      for (const double step : {1.0, 2.0, 5.0})
        if (decade * step >= vertical.low * 0.999 && decade * step <= vertical.high * 1.001)
          y_ticks.push_back(decade * step);
    if (y_ticks.size() > 7)
      std::erase_if(y_ticks, [](double tick) {
        const double exponent = std::log10(tick);
        return std::abs(exponent - std::round(exponent)) > 1e-6;
      });
  } else {
    y_ticks = ticks(vertical.low, vertical.high, 5);
  }
  for (const double tick : y_ticks) {
    const double y = vertical.at(tick);
    out += fmt::format(
        "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
        "<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>",
        kLeft, kRight, y, y, kLeft - 6, y + 4, number(tick));
  }
  for (const double tick : ticks(horizontal.low, horizontal.high, 5))
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"{}\">{}</text>",
                       horizontal.at(tick), kBottom + 15,
                       horizontal.at(tick) > kRight - 14 ? "end" : "middle", number(tick));
  out += fmt::format("<line class=\"axis\" x1=\"{0}\" x2=\"{1}\" y1=\"{2}\" y2=\"{2}\"/>", kLeft,
                     kRight, kBottom);
  out += fmt::format("<text class=\"label\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                     kRight, kHeight - 6, escape_html(args.x_label));
  return out;
}

std::string draw_legend(const std::vector<PlotSeries>& all) {
  std::string out;
  double x = kRight;
  for (auto series = all.rbegin(); series != all.rend(); ++series) {
    if (series->label.empty()) continue;
    x -= 6.2 * static_cast<double>(code_points(series->label).size());
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}</text>", x, kTop - 6,
                       escape_html(series->label));
    x -= 14;
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{}\" width=\"10\" height=\"4\" rx=\"2\" "
        "fill=\"var(--series-{})\"/>",
        x, kTop - 12, series->color);
    x -= 10;
  }
  return out;
}

/// Room above and below, and never an empty range.
void set_range(Axis& axis, double low, double high) {
  if (axis.log) {
    axis.low = low / 1.08;
    axis.high = high * 1.08;
    return;
  }
  const double room = high > low ? 0.05 * (high - low) : std::max(1e-9, std::abs(high) * 0.1);
  axis.low = low >= 0 ? std::max(0.0, low - room) : low - room;
  axis.high = high + room;
}

}  // namespace

std::vector<double> running_mean(const std::vector<double>& values, double half_life) {
  const double keep = std::pow(0.5, 1 / std::max(half_life, 1e-9));
  std::vector<double> out;
  double sum = 0, weight = 0;
  for (const double value : values) {
    sum = keep * sum + value;
    weight = keep * weight + 1;
    out.push_back(sum / weight);
  }
  return out;
}

std::vector<double> centred_mean(const std::vector<double>& values, double half_life) {
  std::vector<double> out = running_mean(values, half_life);
  const auto back = running_mean({values.rbegin(), values.rend()}, half_life);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = (out[i] + back[out.size() - 1 - i]) / 2;
  return out;
}

std::vector<double> ticks(double low, double high, int count) {
  std::vector<double> out;
  if (!(high > low) || !std::isfinite(low) || !std::isfinite(high)) return out;
  const double rough = (high - low) / count;
  const double decade = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * decade;
  for (const double each : {5.0, 2.0, 1.0})
    if (each * decade >= rough * 0.9) step = each * decade;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && out.size() < 100;
       ++i)
    out.push_back(i * step == 0 ? 0.0 : i * step);
  return out;
}

std::string escape_html(std::string_view text) {
  std::u32string out;
  for (const char32_t c : code_points(text)) {
    // HTML allows no control characters but these two.
    const bool control = (c < 0x20 && c != U'\n' && c != U'\t') || (c >= 0x7f && c < 0xa0);
    if (c == U'&')
      out += U"&amp;";
    else if (c == U'<')
      out += U"&lt;";
    else if (c == U'>')
      out += U"&gt;";
    else if (c == U'"')
      out += U"&quot;";
    else
      out += control ? U'\ufffd' : c;
  }
  return to_utf8(out);
}

std::string line_plot(const PlotArgs& args) {
  std::vector<PlotSeries> all;
  double x_low = HUGE_VAL, x_high = -HUGE_VAL, y_low = HUGE_VAL, y_high = -HUGE_VAL;
  for (const PlotSeries& series : args.series) {
    all.push_back(cleaned(series, args.log_y));
    for (const double x : all.back().x) {
      x_low = std::min(x_low, x);
      x_high = std::max(x_high, x);
    }
    for (const double y : all.back().y) {
      y_low = std::min(y_low, y);
      y_high = std::max(y_high, y);
    }
  }
  std::string out = fmt::format(
      "<svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">"
      "<text class=\"title\" x=\"4\" y=\"14\">{}</text>",
      kWidth, kHeight, escape_html(args.title), escape_html(args.title));
  if (x_low > x_high)
    return out + fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">no data</text></svg>",
                             kWidth / 2, kHeight / 2);
  Axis horizontal{.low = x_low, .high = x_high, .from = kLeft, .to = kRight, .log = false};
  if (x_high <= x_low) set_range(horizontal, x_low, x_high);
  Axis vertical{.low = 0, .high = 1, .from = kBottom, .to = kTop + 4, .log = args.log_y};
  if (args.y_max > args.y_min) {
    vertical.low = args.y_min;
    vertical.high = args.y_max;
  } else {
    set_range(vertical, args.from_zero ? std::min(0.0, y_low) : y_low, y_high);
  }
  out += fmt::format("<text class=\"label\" x=\"4\" y=\"{}\">{}</text>", kTop - 4,
                     escape_html(args.y_label));
  out += draw_axes(args, horizontal, vertical);
  for (const PlotSeries& series : all) out += draw_series(series, horizontal, vertical);
  return out + draw_legend(args.series) + "</svg>";
}

}  // namespace lectern
