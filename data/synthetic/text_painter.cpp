#include "data/synthetic/text_painter.h"

#include "core/error.h"
#include "data/text/utf8.h"

#include <pango/pangocairo.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

namespace lectern {
namespace {

/// Size at which outlines are taken, pixels: large against cairo's fixed point of 1/256 pixel.
constexpr double kOutlineSize = 64;

struct Unreference {
  void operator()(void* object) const { g_object_unref(object); }
};
template <typename T>
using Reference = std::unique_ptr<T, Unreference>;

struct FreeDescription {
  void operator()(PangoFontDescription* description) const {
    pango_font_description_free(description);
  }
};
using Description = std::unique_ptr<PangoFontDescription, FreeDescription>;

struct FreeOptions {
  void operator()(cairo_font_options_t* options) const { cairo_font_options_destroy(options); }
};
struct FreeContext {
  void operator()(cairo_t* context) const { cairo_destroy(context); }
};
struct FreeSurface {
  void operator()(cairo_surface_t* surface) const { cairo_surface_destroy(surface); }
};
struct FreePath {
  void operator()(cairo_path_t* path) const { cairo_path_destroy(path); }
};

using SurfacePointer = std::unique_ptr<cairo_surface_t, FreeSurface>;
using ContextPointer = std::unique_ptr<cairo_t, FreeContext>;

/// What shaping text needs.
struct Shaper {
  Reference<PangoFontMap> map;
  Reference<PangoContext> context;
  Reference<PangoLayout> layout;
  SurfacePointer surface;
  ContextPointer scratch;
  std::unordered_map<std::string, Description> descriptions;

  Shaper()
      : map(pango_cairo_font_map_new()),
        context(pango_font_map_create_context(map.get())),
        // Of no size: cairo drops glyphs that lie ten times their size outside of a surface.
        surface(cairo_recording_surface_create(CAIRO_CONTENT_ALPHA, nullptr)),
        scratch(cairo_create(surface.get())) {
    const std::unique_ptr<cairo_font_options_t, FreeOptions> options(cairo_font_options_create());
    cairo_font_options_set_hint_style(options.get(), CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_hint_metrics(options.get(), CAIRO_HINT_METRICS_OFF);
    cairo_font_options_set_antialias(options.get(), CAIRO_ANTIALIAS_GRAY);
    pango_cairo_context_set_font_options(context.get(), options.get());
    pango_cairo_context_set_resolution(context.get(), 72);
    pango_context_set_round_glyph_positions(context.get(), FALSE);
    // The user's locale must not choose glyphs.
    pango_context_set_language(context.get(), pango_language_from_string("en"));
    pango_context_set_base_dir(context.get(), PANGO_DIRECTION_LTR);
    layout.reset(pango_layout_new(context.get()));
    pango_layout_set_single_paragraph_mode(layout.get(), TRUE);
    PangoAttrList* attributes = pango_attr_list_new();
    pango_attr_list_insert(attributes, pango_attr_fallback_new(FALSE));
    pango_layout_set_attributes(layout.get(), attributes);
    pango_attr_list_unref(attributes);
  }

  const PangoFontDescription* description(const FontFace& face) {
    Description& found = descriptions[face.description];
    if (!found) {
      found.reset(pango_font_description_from_string(face.description.c_str()));
      pango_font_description_set_absolute_size(found.get(), kOutlineSize * PANGO_SCALE);
    }
    return found.get();
  }
};

/// The process's one Shaper, for one thread at a time. With a font map of its own in each thread, a
/// training process whose two threads drew was seen to die by a segmentation fault: the maps share
/// fontconfig's state. Never destroyed: threads may outlive main.
class ShaperTurn {
 public:
  ShaperTurn() : lock_(mutex()) {
    static Shaper* const instance = new Shaper;
    shaper_ = instance;
  }
  Shaper* operator->() const { return shaper_; }

 private:
  static std::recursive_mutex& mutex() {
    static std::recursive_mutex* const instance = new std::recursive_mutex;
    return *instance;
  }

  std::lock_guard<std::recursive_mutex> lock_;
  Shaper* shaper_ = nullptr;
};

double units(int pango) { return static_cast<double>(pango) / PANGO_SCALE / kOutlineSize; }

/// The characters of `text` that the face lacks, as text.
std::string missing_characters(const FontFace& face, std::string_view text) {
  std::vector<char32_t> characters;
  std::vector<std::string> spelled;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = code_point(text, at);
    characters.push_back(point.value);
    spelled.emplace_back(text.substr(at, point.bytes));
    at += point.bytes;
  }
  const std::vector<bool> has = coverage_of(face, characters);
  std::string out;
  for (std::size_t i = 0; i < has.size(); ++i)
    if (!has[i]) out += spelled[i];
  return out;
}

}  // namespace

std::vector<std::string> font_families() {
  const ShaperTurn shaper;
  PangoFontFamily** families = nullptr;
  int count = 0;
  pango_font_map_list_families(shaper->map.get(), &families, &count);
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) out.emplace_back(pango_font_family_get_name(families[i]));
  g_free(families);
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<FontFace> faces_of(const std::string& family) {
  const ShaperTurn shaper;
  PangoFontFamily** families = nullptr;
  int count = 0;
  pango_font_map_list_families(shaper->map.get(), &families, &count);
  std::vector<FontFace> out;
  for (int i = 0; i < count; ++i) {
    if (family != pango_font_family_get_name(families[i])) continue;
    PangoFontFace** faces = nullptr;
    int face_count = 0;
    pango_font_family_list_faces(families[i], &faces, &face_count);
    for (int f = 0; f < face_count; ++f) {
      if (pango_font_face_is_synthesized(faces[f])) continue;
      const Description description(pango_font_face_describe(faces[f]));
      pango_font_description_unset_fields(description.get(),
                                          static_cast<PangoFontMask>(PANGO_FONT_MASK_SIZE));
      char* text = pango_font_description_to_string(description.get());
      out.push_back({text, family,
                     pango_font_description_get_weight(description.get()) >= PANGO_WEIGHT_SEMIBOLD,
                     pango_font_description_get_style(description.get()) != PANGO_STYLE_NORMAL});
      g_free(text);
    }
    g_free(faces);
  }
  g_free(families);
  std::sort(out.begin(), out.end(),
            [](const FontFace& a, const FontFace& b) { return a.description < b.description; });
  return out;
}

std::vector<bool> coverage_of(const FontFace& face, const std::vector<char32_t>& characters) {
  const ShaperTurn shaper;
  const Reference<PangoFont> font(pango_font_map_load_font(shaper->map.get(), shaper->context.get(),
                                                           shaper->description(face)));
  std::vector<bool> out(characters.size());
  if (!font) return out;
  PangoCoverage* coverage = pango_font_get_coverage(font.get(), pango_language_from_string("en"));
  for (std::size_t i = 0; i < characters.size(); ++i)
    out[i] = characters[i] == U' ' ||
             pango_coverage_get(coverage, static_cast<int>(characters[i])) == PANGO_COVERAGE_EXACT;
  g_object_unref(coverage);
  return out;
}

struct LineOutline::Path {
  std::unique_ptr<cairo_path_t, FreePath> path;
};

LineOutline::LineOutline(const FontFace& face, std::string_view text)
    : path_(std::make_unique<Path>()) {
  const ShaperTurn shaper;
  PangoLayout* layout = shaper->layout.get();
  pango_layout_set_font_description(layout, shaper->description(face));
  pango_layout_set_text(layout, text.data(), static_cast<int>(text.size()));
  if (pango_layout_get_unknown_glyphs_count(layout) > 0)
    fail<ConfigError>(fmt::format("drawing text: the font {} must have every character, got \"{}\"",
                                  face.description, missing_characters(face, text)));
  PangoLayoutLine* line = pango_layout_get_line_readonly(layout, 0);
  PangoRectangle logical;
  pango_layout_line_get_extents(line, nullptr, &logical);
  advance_ = units(logical.width);
  ascent_ = units(-logical.y);
  descent_ = units(logical.y + logical.height);
  cairo_t* scratch = shaper->scratch.get();
  cairo_new_path(scratch);
  cairo_move_to(scratch, 0, 0);
  pango_cairo_layout_line_path(scratch, line);
  cairo_path_extents(scratch, &ink_.left, &ink_.top, &ink_.right, &ink_.bottom);
  for (double* side : {&ink_.left, &ink_.top, &ink_.right, &ink_.bottom}) *side /= kOutlineSize;
  path_->path.reset(cairo_copy_path(scratch));
  if (path_->path->status != CAIRO_STATUS_SUCCESS)
    fail<Error>(
        fmt::format("drawing text: cairo: {}", cairo_status_to_string(path_->path->status)));
}

LineOutline::~LineOutline() = default;
LineOutline::LineOutline(LineOutline&&) noexcept = default;
LineOutline& LineOutline::operator=(LineOutline&&) noexcept = default;

struct Canvas::Surface {
  SurfacePointer surface;
  ContextPointer context;
  const std::uint8_t* pixels = nullptr;
  std::int64_t stride = 0;
};

Canvas::Canvas(std::int64_t width, std::int64_t height)
    : surface_(std::make_unique<Surface>()), width_(width), height_(height) {
  constexpr std::int64_t kMost = 32767;  // what cairo takes
  if (width < 1 || height < 1 || width > kMost || height > kMost)
    fail<ShapeError>(
        fmt::format("canvas: sides must be 1 .. {}, got {} x {}", kMost, width, height));
  surface_->surface.reset(cairo_image_surface_create(CAIRO_FORMAT_A8, static_cast<int>(width),
                                                     static_cast<int>(height)));
  surface_->context.reset(cairo_create(surface_->surface.get()));
  if (const auto status = cairo_status(surface_->context.get()); status != CAIRO_STATUS_SUCCESS)
    fail<MemoryError>(fmt::format("canvas: cairo: {}", cairo_status_to_string(status)));
  surface_->pixels = cairo_image_surface_get_data(surface_->surface.get());
  surface_->stride = cairo_image_surface_get_stride(surface_->surface.get());
}

Canvas::~Canvas() = default;

void Canvas::draw(const LineOutline& line, const Affine& t) {
  cairo_t* context = surface_->context.get();
  constexpr double kUnit = 1 / kOutlineSize;
  const cairo_matrix_t matrix{t.xx * kUnit, t.yx * kUnit, t.xy * kUnit, t.yy * kUnit, t.x0, t.y0};
  cairo_set_matrix(context, &matrix);
  cairo_new_path(context);
  cairo_append_path(context, line.path_->path.get());
  cairo_identity_matrix(context);
  cairo_set_source_rgba(context, 0, 0, 0, 1);
  cairo_fill(context);
}

void Canvas::draw_rectangle(const Box& box) {
  cairo_t* context = surface_->context.get();
  cairo_identity_matrix(context);
  cairo_new_path(context);
  cairo_rectangle(context, box.left, box.top, box.right - box.left, box.bottom - box.top);
  cairo_set_source_rgba(context, 0, 0, 0, 1);
  cairo_fill(context);
}

const std::uint8_t* Canvas::row(std::int64_t y) const {
  cairo_surface_flush(surface_->surface.get());
  return surface_->pixels + y * surface_->stride;
}

}  // namespace lectern
