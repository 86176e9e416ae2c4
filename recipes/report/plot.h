// Line plots as inline SVG. Colours come from CSS variables of the page (--series-0 ...).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lectern {

struct PlotSeries {
  std::string label;  // "": not in the legend
  std::vector<double> x, y;
  int color = 0;        // --series-<color>
  bool smooth = false;  // draw the points faintly and their running mean strongly
  bool dots = false;    // mark each point
};

struct PlotArgs {
  std::string title;
  std::string x_label, y_label;
  std::vector<PlotSeries> series;
  bool log_y = false;
  double y_min = 0, y_max = 0;  // equal: from the data
  bool from_zero = false;       // let the axis start at 0
};

/// An <svg> of 360 x 240 units that scales to the width it is given. Points that are not finite
/// (or not positive on a logarithmic axis) are left out; no points at all give "no data".
std::string line_plot(const PlotArgs& args);

/// Exponential running mean, started without bias; `half_life` in points.
std::vector<double> running_mean(const std::vector<double>& values, double half_life);
/// Mean of the running means from both ends: smooth, and not late where the curve falls.
std::vector<double> centred_mean(const std::vector<double>& values, double half_life);

/// At least `count` / 2 and about `count` round values that cover [low, high].
std::vector<double> ticks(double low, double high, int count);

/// Text made safe for HTML and attributes; bytes that are not UTF-8 become U+FFFD.
std::string escape_html(std::string_view text);

}  // namespace lectern
