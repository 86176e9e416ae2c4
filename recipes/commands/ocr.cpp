// lectern ocr: pictures and PDFs to Markdown.
#include "core/io/file.h"
#include "core/parallel.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/commands/command.h"
#include "recipes/machine/device.h"
#include "recipes/machine/interrupt.h"
#include "recipes/read/input_files.h"
#include "recipes/read/page_reader.h"
#include "recipes/read/reader.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <string_view>
#include <system_error>

namespace lectern::commands {
namespace {

struct OcrOptions {
  std::string checkpoint, adapter, out, dtype = "fp32", device = "cpu";
  std::vector<std::string> files;
  ReaderArgs reader;
  std::int64_t max_tokens = 0, slots = 0;
  double dots_per_inch = 0;
  std::int64_t threads = 0;
  bool json = false, by_pieces = false, by_page = false, overwrite = false, skip_existing = false;
};

constexpr std::int64_t kPagesAtOnce = 8;  // of a PDF, between two lines of progress
constexpr double kPageDpi = 144;
constexpr std::int64_t kPageTokens = 1024;
constexpr std::string_view kPageBreak = "\n\n---\n\n";
constexpr std::string_view kStopped = "<!-- lectern: stopped after page ";

/// How this model reads pages, as the user has it.
ReadingSettings reading_settings(const OcrOptions& options, const LoadedModel& loaded) {
  ReadingSettings out = loaded.model->config().reading;
  if (options.by_pieces) out.by_pieces = true;
  if (options.by_page) out.by_pieces = false;
  return out;
}

std::filesystem::path markdown_path(const OcrOptions& options, const std::string& file) {
  return std::filesystem::path(options.out) / (std::filesystem::path(file).stem().string() + ".md");
}

/// Two files of the same stem would write one over the other.
void check_targets(const OcrOptions& options) {
  std::map<std::filesystem::path, std::string> sources;
  for (const std::string& file : options.files) {
    const auto target = markdown_path(options, file);
    const auto [at, is_new] = sources.emplace(target, file);
    if (!is_new)
      fail<ConfigError>(
          fmt::format("ocr: {} and {} would both become {}", at->second, file, target.string()));
  }
}

/// Makes the folder, and finds out before anything is read that nothing can be written there.
void prepare_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error && !std::filesystem::is_directory(folder, error))
    error = std::make_error_code(std::errc::not_a_directory);
  if (!error && ::access(folder.c_str(), W_OK | X_OK) != 0)
    error = std::error_code(errno, std::generic_category());
  if (error)
    fail<IoError>(fmt::format("--out: {}: must be a folder that can be written, got: {}", folder,
                              error.message()));
}

/// Whether a file is read; throws IoError when its target is in the way. A target that says that
/// its reading was stopped is ours and not finished: it is made anew.
bool admit(const OcrOptions& options, const std::string& file) {
  const auto target = markdown_path(options, file);
  std::error_code error;
  if (options.out.empty() || !std::filesystem::exists(target, error)) return true;
  if (!std::filesystem::is_regular_file(target, error))
    fail<IoError>(fmt::format("{}: {} must be a file, and is none", file, target.string()));
  if (options.overwrite) return true;
  const std::string text = read_file(target);
  const std::size_t last = text.rfind(kPageBreak);
  if (last != std::string::npos &&
      text.compare(last + kPageBreak.size(), kStopped.size(), kStopped) == 0)
    return true;
  if (options.skip_existing) return false;
  fail<IoError>(
      fmt::format("{}: {} is there already: --overwrite replaces it, --skip-existing leaves it",
                  file, target.string()));
}

ReaderArgs reader_args(const OcrOptions& options, bool by_pieces) {
  ReaderArgs out = options.reader;
  if (by_pieces) out.batch = kPiecesAtOnce;
  if (options.slots > 0) out.batch = options.slots;
  out.max_new_tokens = options.max_tokens > 0 ? options.max_tokens
                       : by_pieces            ? kPieceTokens
                                              : kPageTokens;
  out.stop = stop_requested;
  return out;
}

InputSettings input_settings(const OcrOptions& options, const ReadingSettings& settings) {
  InputSettings out;
  if (settings.by_pieces) {
    out.picture_dpi = options.dots_per_inch;
    out.wanted_dpi = out.dots_per_inch = settings.piece_dpi;
  } else {
    out.dots_per_inch = options.dots_per_inch > 0 ? options.dots_per_inch : kPageDpi;
  }
  out.admit = [&options](const std::string& file) { return admit(options, file); };
  out.stop = stop_requested;
  return out;
}

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n\f\v") == std::string::npos;
}

/// The first pages of a file, up to one that was not read to its end. What a page has no text of is
/// a comment, which Markdown does not show.
std::string markdown_of(const FileOfPages& file) {
  std::string out;
  const std::int64_t pages = file.pages_done();
  for (std::int64_t i = 0; i < pages; ++i) {
    const PageOfFile& page = file.pages[static_cast<std::size_t>(i)];
    if (i > 0) out += kPageBreak;
    out += page.error.empty() ? page.text
                              : fmt::format("<!-- lectern: page {} could not be read -->", i + 1);
  }
  if (pages < file.page_count && pages > 0)
    out += fmt::format("{}{}{} of {} -->", kPageBreak, kStopped, pages, file.page_count);
  return out + "\n";
}

/// Gives out what was read of the files, in their order: to files or stdout, and at the end as
/// JSON. What is wrong with a file or a page is a line on stderr and an entry in JSON.
class Output {
 public:
  explicit Output(const OcrOptions& options) : options_(options) {}

  bool has_failed() const { return has_failed_; }
  void print_json() const {
    using nlohmann::json;
    print(results_.dump(-1, ' ', false, json::error_handler_t::replace) + "\n");  // names
  }

  void add(const FileOfPages& file) {
    nlohmann::json entry = {{"file", file.name}};
    if (file.is_skipped) {
      const std::string target = markdown_path(options_, file.name).string();
      tell(fmt::format("{}: skipped, {} is there", file.name, target));
      entry["skipped"] = target;
    } else {
      add_pages(file, entry);
      if (!file.error.empty()) fail_with(file.error, entry);
    }
    results_.push_back(std::move(entry));
  }

  /// A file whose reading was stopped, or had not begun.
  void add_stopped(const FileOfPages& file) {
    const std::int64_t pages = file.pages_done();
    nlohmann::json entry = {{"file", file.name}};
    if (pages > 0) add_pages(file, entry);
    fail_with(file.page_count > 0 ? fmt::format("{}: stopped after {} of {} pages", file.name,
                                                pages, file.page_count)
                                  : fmt::format("{}: stopped before it was read", file.name),
              entry);
    results_.push_back(std::move(entry));
  }

 private:
  void fail_with(const std::string& error, nlohmann::json& entry) {
    tell("lectern: " + error);
    entry["error"] =
        entry.contains("error") ? entry["error"].get<std::string>() + "; " + error : error;
    has_failed_ = true;
  }

  /// stdout that cannot be written ends the command: whoever reads there has gone.
  static void print(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
      fail<IoError>(fmt::format("cannot write to stdout: {}", std::strerror(errno)));
  }

  void add_pages(const FileOfPages& file, nlohmann::json& entry) {
    note_pages(file, entry);
    if (file.pages.empty()) return;  // its error says why
    if (options_.out.empty()) {
      if (!options_.json) print(markdown_of(file));
      return;
    }
    const auto target = markdown_path(options_, file.name);
    try {
      write_file(target, markdown_of(file));
      tell(fmt::format("{} -> {} ({} pages)", file.name, target.string(), file.pages_done()));
    } catch (const Error& error) {
      // What was read is not thrown away with it.
      const bool is_printed = !options_.json;
      fail_with(std::string(error.what()) + (is_printed ? "; its text goes to stdout" : ""), entry);
      if (is_printed) print(markdown_of(file));
    }
  }

  /// What is to be said of single pages.
  void note_pages(const FileOfPages& file, nlohmann::json& entry) {
    using nlohmann::json;
    json texts = json::array(), errors = json::array(), notes = json::array(),
         blank = json::array();
    std::string blank_pages;
    if (!file.note.empty()) tell(fmt::format("{}: poppler: {}", file.name, file.note));
    for (std::int64_t i = 0; i < file.pages_done(); ++i) {
      const PageOfFile& page = file.pages[static_cast<std::size_t>(i)];
      const std::int64_t number = i + 1;
      const bool has_text = !is_blank(page.text);
      std::string error = page.error;
      // A page of which nothing could be drawn looks like a blank one.
      if (error.empty() && !has_text && !page.note.empty())
        error = "no text was found, and it could not be drawn well: poppler: " + page.note;
      if (!error.empty()) {
        errors.push_back({{"page", number}, {"error", error}});
        tell(fmt::format("lectern: {}: page {}: {}", file.name, number, error));
        has_failed_ = true;
      } else if (!page.note.empty()) {
        notes.push_back({{"page", number}, {"note", page.note}});
        tell(fmt::format("{}: page {}: parts may be missing: poppler: {}", file.name, number,
                         page.note));
      } else if (!has_text) {
        blank.push_back(number);
        blank_pages += (blank_pages.empty() ? "" : ", ") + std::to_string(number);
      }
      texts.push_back(page.error.empty() ? json(page.text) : json());
    }
    if (!blank.empty())
      tell(file.page_count == 1 ? fmt::format("{}: no text was found", file.name)
                                : fmt::format("{}: no text was found on page{} {}", file.name,
                                              blank.size() > 1 ? "s" : "", blank_pages));
    if (!texts.empty()) entry["pages"] = texts;
    for (const auto& [key, list] :
         {std::pair("errors", errors), {"notes", notes}, {"without_text", blank}})
      if (!list.empty()) entry[key] = list;
    if (!file.note.empty()) entry["note"] = file.note;
  }

  const OcrOptions& options_;
  nlohmann::json results_ = nlohmann::json::array();
  bool has_failed_ = false;
};

void report(const GenerationStatistics& done, std::int64_t slots) {
  if (done.prompt_tokens == 0) return;
  std::string line =
      fmt::format("first tokens after {:.2f} s; then {} tokens at {:.1f} tokens/s",
                  done.encode + done.prefill, done.decoded_tokens, done.tokens_per_second());
  if (done.decode_steps > 0)
    line += fmt::format(
        ", in {} steps: {:.1f} of {} slots busy", done.decode_steps,
        static_cast<double>(done.decoded_tokens) / static_cast<double>(done.decode_steps), slots);
  tell(line);
}

void tell_progress(const FileOfPages& file) {
  const std::int64_t read = file.pages_done();
  if (file.page_count > 1 && (read % kPagesAtOnce == 0 || read == file.page_count))
    tell(fmt::format("{}: {} of {} pages read", file.name, read, file.page_count));
}

void run_ocr(OcrOptions& options) {
  if (options.threads > 0) set_thread_count(static_cast<int>(options.threads));
  options.files = expand_folders(options.files, tell);
  if (!options.out.empty()) {
    check_targets(options);
    prepare_folder(options.out);
  }
  const Device device = use_device(options.device);
  const LoadedModel loaded =
      load_model_folder(options.checkpoint.empty() ? shipped_model().string() : options.checkpoint,
                        weight_dtype(options.dtype), options.adapter);
  loaded.to(device);
  const ReadingSettings settings = reading_settings(options, loaded);
  const ReaderArgs args = reader_args(options, settings.by_pieces);
  Reader reader(*loaded.model, loaded.tokenizer, args);
  // From here on there is something to lose.
  set_signal_note("ocr: what has been read is kept; ");
  install_signal_handlers();
  PagesOfFiles pages(options.files, input_settings(options, settings));
  Output output(options);
  const auto give_out_done = [&] {
    while (const FileOfPages* file = pages.next_done()) output.add(*file);
  };
  std::string failure;
  try {
    read_pages(
        reader, settings, [&] { return pages.next(); },
        [&](std::string text) {
          tell_progress(pages.add(std::move(text)));
          give_out_done();
        });
  } catch (const std::exception& error) {  // no memory, no device: what was read is kept
    failure = error.what();
    tell("lectern: " + failure);
  }
  give_out_done();  // files after the last page
  for (const FileOfPages& file : pages.unfinished()) output.add_stopped(file);
  if (options.json) output.print_json();
  report(reader.statistics(), args.batch);
  if (stop_requested()) throw AlreadyTold{128 + stop_signal()};
  if (output.has_failed() || !failure.empty()) throw AlreadyTold{};
}

}  // namespace

void add_ocr(Command app) {
  auto options = std::make_shared<OcrOptions>();
  Command command = app.add_subcommand(
      "ocr",
      "read images and PDFs; Markdown on stdout. Pictures are turned as their EXIF data say; "
      "light text on dark is read as its inverse");
  command
      .add_option("FILE", options->files,
                  "PNG, JPEG or PDF, told apart by content; of a folder all that are in it")
      .required();
  command.add_option("--checkpoint", options->checkpoint,
                     "model, checkpoint or run folder; default: the small one of recipes/nano");
  command.add_option("--adapter", options->adapter,
                     "low-rank adapter to read with: a run that trained one, or a PEFT folder");
  command.add_option("--out", options->out, "write <stem>.md files here instead of stdout");
  Option overwrite = command.add_flag("--overwrite", options->overwrite,
                                      "replace <stem>.md files that are there; default: such a "
                                      "file is an error, unless its reading was stopped");
  command
      .add_flag("--skip-existing", options->skip_existing,
                "leave out what has its <stem>.md already: goes on with a batch")
      .excludes(overwrite);
  command.add_option("--prompt", options->reader.prompt, "default: the model's own");
  command
      .add_option("--max-tokens", options->max_tokens,
                  "longest answer; default: 1024 for a page, 64 for a piece")
      .range(1, 1 << 20);
  command
      .add_option("--slots", options->slots,
                  "sequences decoded together: a page (or piece) takes one, and one more for each "
                  "of its tiles; default: 16 for pages, 64 for pieces")
      .range(1, 1 << 16);
  Option pieces = command.add_flag("--pieces", options->by_pieces,
                                   "read each page in runs of words, which are found by their ink; "
                                   "default: as the model's config.json says (read_by)");
  command.add_flag("--whole-pages", options->by_page, "read each page as a whole").excludes(pieces);
  command
      .add_option("--no-repeat-ngram", options->reader.guard.ngram,
                  "forbid repeating n-grams of this length; 0: off")
      .range(0, 1024);
  command
      .add_option("--repeat-window", options->reader.guard.window,
                  "tokens that --no-repeat-ngram looks back")
      .range(1, 1 << 20);
  command
      .add_option("--dpi", options->dots_per_inch,
                  "whole pages: resolution at which PDF pages are drawn, 144. Pieces: resolution "
                  "of the picture files, which are scaled to the model's; without it they stay as "
                  "they are. PDFs are then drawn at the model's")
      .range(18.0, 1200.0);
  command.add_option("--device", options->device, "cpu or cuda").one_of({"cpu", "cuda"});
  command.add_option("--dtype", options->dtype, "of the weights: fp32 or bf16")
      .one_of({"fp32", "bf16"});
  command.add_option("--threads", options->threads, "CPU threads; 0: all cores").range(0, 1024);
  command.add_flag("--json", options->json, "print one JSON array instead of Markdown");
  command.callback([options] { run_ocr(*options); });
}

}  // namespace lectern::commands
