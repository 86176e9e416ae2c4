// lectern ocr: pictures and PDFs to Markdown.
#include "core/file.h"
#include "core/parallel.h"
#include "data/pdf.h"
#include "recipes/commands/command.h"
#include "recipes/device.h"
#include "recipes/model_folder.h"
#include "recipes/piece_reader.h"
#include "recipes/reader.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>
#include <memory>

namespace lectern::commands {
namespace {

struct Options {
  std::string checkpoint, out, dtype = "fp32", device = "cpu";
  std::vector<std::string> files;
  ReaderArgs reader;
  std::int64_t max_tokens = 0;
  double dots_per_inch = 0;
  std::int64_t threads = 0;
  bool json = false, by_pieces = false, by_page = false;
};

constexpr std::int64_t kPagesAtOnce = 8;  // of a PDF, so that a book does not fill the memory
constexpr double kPageDpi = 144;
constexpr std::int64_t kPageTokens = 1024;

/// How this model reads pages, as the user has it.
ReadingSettings reading_settings(const Options& options, const LoadedModel& loaded) {
  ReadingSettings out = loaded.model->config().reading;
  if (options.by_pieces) out.by_pieces = true;
  if (options.by_page) out.by_pieces = false;
  return out;
}

/// Pictures of pages to text, as wholes or piece by piece.
class PageReader {
 public:
  PageReader(const Options& options, const LoadedModel& loaded)
      : settings_(reading_settings(options, loaded)),
        dots_per_inch_(options.dots_per_inch),
        reader_(*loaded.model, loaded.tokenizer, reader_args(options, settings_.by_pieces)) {}

  /// Texts of the pages of a document; a picture is one page.
  std::vector<std::string> read_file(const std::filesystem::path& path);
  const GenerationStatistics& statistics() const { return reader_.statistics(); }

 private:
  static ReaderArgs reader_args(const Options& options, bool by_pieces) {
    ReaderArgs out = options.reader;
    if (by_pieces) out.batch = kPiecesAtOnce;
    out.max_new_tokens = options.max_tokens > 0 ? options.max_tokens
                         : by_pieces            ? kPieceTokens
                                                : kPageTokens;
    return out;
  }
  /// Of the PDF pages that are drawn.
  double pdf_dots_per_inch() const {
    if (settings_.by_pieces) return settings_.piece_dpi;
    return dots_per_inch_ > 0 ? dots_per_inch_ : kPageDpi;
  }
  std::vector<std::string> read(const std::vector<Image>& pages) {
    if (!settings_.by_pieces) return reader_.read(pages);
    std::vector<std::string> out;
    for (const Image& page : pages) out.push_back(read_by_pieces(reader_, settings_, page));
    return out;
  }

  ReadingSettings settings_;
  double dots_per_inch_;
  Reader reader_;
};

bool is_pdf(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".pdf";
}

std::vector<std::string> PageReader::read_file(const std::filesystem::path& path) {
  if (!is_pdf(path)) {
    Image picture = read_image(path);
    if (settings_.by_pieces && dots_per_inch_ > 0)
      picture = rescaled(std::move(picture), dots_per_inch_, settings_.piece_dpi);
    return read({std::move(picture)});
  }
  const std::int64_t pages = pdf_page_count(path);
  std::vector<std::string> out;
  for (std::int64_t first = 1; first <= pages; first += kPagesAtOnce) {
    const std::int64_t last = std::min(pages, first + kPagesAtOnce - 1);
    for (std::string& text : read(render_pdf_pages(path, first, last, pdf_dots_per_inch())))
      out.push_back(std::move(text));
    if (pages > 1) fmt::print(stderr, "{}: {} of {} pages\n", path.string(), last, pages);
  }
  return out;
}

std::string join_pages(const std::vector<std::string>& texts) {
  std::string markdown;
  for (const std::string& text : texts) {
    if (!markdown.empty()) markdown += "\n\n---\n\n";  // a page break
    markdown += text;
  }
  return markdown + "\n";
}

std::filesystem::path markdown_path(const Options& options, const std::string& file) {
  return std::filesystem::path(options.out) / (std::filesystem::path(file).stem().string() + ".md");
}

/// Two files of the same stem would write one over the other.
void check_targets(const Options& options) {
  std::map<std::filesystem::path, std::string> sources;
  for (const std::string& file : options.files) {
    const auto target = markdown_path(options, file);
    const auto [at, is_new] = sources.emplace(target, file);
    if (!is_new)
      fail<ConfigError>(
          fmt::format("ocr: {} and {} would both become {}", at->second, file, target.string()));
  }
}

void run(const Options& options) {
  if (options.threads > 0) set_thread_count(static_cast<int>(options.threads));
  if (!options.out.empty()) check_targets(options);
  const Device device = use_device(options.device);
  const LoadedModel loaded =
      load_model_folder(options.checkpoint.empty() ? shipped_model().string() : options.checkpoint,
                        weight_dtype(options.dtype));
  loaded.model->store().to(device);
  PageReader reader(options, loaded);
  if (!options.out.empty()) std::filesystem::create_directories(options.out);
  nlohmann::json results = nlohmann::json::array();
  for (const std::string& file : options.files) {
    const auto texts = reader.read_file(file);
    if (!options.out.empty()) {
      const auto target = markdown_path(options, file);
      write_file(target, join_pages(texts));
      fmt::print(stderr, "{} -> {} ({} pages)\n", file, target.string(), texts.size());
    } else if (!options.json) {
      fmt::print("{}", join_pages(texts));
    }
    results.push_back({{"file", file}, {"pages", texts}});
  }
  if (options.json) fmt::print("{}\n", results.dump());
  const GenerationStatistics& done = reader.statistics();
  fmt::print(stderr, "first tokens after {:.2f} s; then {} tokens at {:.1f} tokens/s\n",
             done.encode + done.prefill, done.decoded_tokens, done.tokens_per_second());
}

}  // namespace

void add_ocr(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("ocr", "read images and PDFs; Markdown on stdout");
  command->add_option("FILE", options->files, "PNG, JPEG or PDF")->required();
  command->add_option("--checkpoint", options->checkpoint,
                      "model, checkpoint or run folder; default: the small one of recipes/nano");
  command->add_option("--out", options->out, "write <stem>.md files here instead of stdout");
  command->add_option("--prompt", options->reader.prompt, "default: the model's own");
  command
      ->add_option("--max-tokens", options->max_tokens,
                   "longest answer; default: 1024 for a page, 64 for a piece")
      ->check(CLI::Range(1, 1 << 20));
  auto* pieces = command->add_flag("--pieces", options->by_pieces,
                                   "read each page in runs of words, which are found by their ink; "
                                   "default: as the model's config.json says (read_by)");
  command->add_flag("--whole-pages", options->by_page, "read each page as a whole")
      ->excludes(pieces);
  command
      ->add_option("--no-repeat-ngram", options->reader.guard.ngram,
                   "forbid repeating n-grams of this length; 0: off")
      ->check(CLI::Range(0, 1024));
  command
      ->add_option("--repeat-window", options->reader.guard.window,
                   "tokens that --no-repeat-ngram looks back")
      ->check(CLI::Range(1, 1 << 20));
  command
      ->add_option("--dpi", options->dots_per_inch,
                   "whole pages: resolution at which PDF pages are drawn, 144. Pieces: resolution "
                   "of the picture files, which are scaled to the model's; without it they stay as "
                   "they are. PDFs are then drawn at the model's")
      ->check(CLI::Range(18.0, 1200.0));
  command->add_option("--device", options->device, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  command->add_option("--dtype", options->dtype, "of the weights: fp32 or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command->add_option("--threads", options->threads, "CPU threads; 0: all cores")
      ->check(CLI::Range(0, 1024));
  command->add_flag("--json", options->json, "print one JSON array instead of Markdown");
  command->callback([options] { run(*options); });
}

}  // namespace lectern::commands
