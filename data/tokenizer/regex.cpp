#include "data/tokenizer/regex.h"

#include "core/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <cstdint>

namespace lectern {
namespace {

// A legitimate split pattern needs a handful of steps a match: repeats of one class do not count.
constexpr std::uint32_t kMatchLimit = 1'000'000;
constexpr std::uint32_t kHeapLimitKiB = 64 * 1024;
constexpr std::size_t kStackBegin = 32 * 1024, kStackLimit = 8 * 1024 * 1024;
constexpr std::size_t kMaxPattern = 64 * 1024;

std::string error_text(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
using CodePointer = std::unique_ptr<pcre2_code, CodeDeleter>;

CodePointer compile_code(std::string_view pattern, std::uint32_t options, int& error,
                         std::size_t& at) {
  PCRE2_SIZE offset = 0;
  CodePointer code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                 options | PCRE2_UTF, &error, &offset, nullptr));
  at = offset;
  return code;
}

// Walks an Oniguruma pattern once and writes the PCRE2 pattern of the same meaning.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail<ConfigError>(fmt::format("regular expression: {} at byte {}", what, at_));
  }

  bool starts(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }

  void copy(std::size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }

  void step() {
    if (pattern_[at_] == '\\') return escape();
    if (in_class_) return class_member();
    switch (pattern_[at_]) {
      case '[':
        in_class_ = true;
        copy(1);
        if (starts("^")) copy(1);
        if (starts("]")) refuse("a class must not begin with an unescaped ]");
        return;
      case '(':
        return group();
      case '}':
        if (interval_ && starts("}+")) refuse("a + after an interval must be bracketed");
        interval_ = false;
        return copy(1);
      case '{':
        interval_ = true;
        return copy(1);
      default:
        return copy(1);
    }
  }

  void class_member() {
    if (starts("[:")) {
      const auto end = pattern_.find(":]", at_);
      if (end == std::string_view::npos) refuse("a class [: must be closed by :]");
      return copy(end + 2 - at_);
    }
    if (starts("[")) refuse("a class inside a class is not supported; escape the bracket");
    if (starts("&&")) refuse("an intersection of classes (&&) is not supported");
    if (starts("]")) in_class_ = false;
    copy(1);
  }

  void group() {
    if (starts("(*")) refuse("a control verb (* is not supported");
    if (!starts("(?")) return copy(1);
    std::size_t i = at_ + 2;
    while (i < pattern_.size() &&
           (std::isalpha(static_cast<unsigned char>(pattern_[i])) || pattern_[i] == '-'))
      ++i;
    if (i < pattern_.size() && i > at_ + 2 && (pattern_[i] == ':' || pattern_[i] == ')'))
      for (std::size_t j = at_ + 2; j < i; ++j)
        if (pattern_[j] != 'i' && pattern_[j] != '-')
          refuse("an inline option other than i is not supported");
    copy(i - at_);
  }

  void escape() {
    if (at_ + 1 == pattern_.size()) refuse("a backslash must be followed by a character");
    // PCRE2's own \s takes U+180E, which is no longer white space, and its \w leaves out marks.
    const auto put = [&](std::string_view members, bool negated) {
      if (in_class_)
        out_ += members;
      else
        (((out_ += negated ? "[^" : "[") += members) += ']');
      at_ += 2;
    };
    static constexpr std::string_view kSpace = "\\p{Z}\\t-\\r\\x{85}";
    static constexpr std::string_view kWord = "\\p{L}\\p{M}\\p{N}\\p{Pc}";
    static constexpr std::string_view kHex = "0-9A-Fa-f";
    const char kind = pattern_[at_ + 1];
    const std::string_view members = kind == 's' || kind == 'S'   ? kSpace
                                     : kind == 'w' || kind == 'W' ? kWord
                                                                  : kHex;
    switch (kind) {
      case 's':
      case 'w':
      case 'h':
        return put(members, false);
      case 'S':
        // Inside a class the complement has no other spelling; only U+180E is then read
        // differently.
        if (in_class_) return copy(2);
        return put(members, true);
      case 'W':
      case 'H':
        if (in_class_) refuse(fmt::format("\\{} inside a class is not supported", kind));
        return put(members, true);
      case 'b':
      case 'B':
        if (in_class_) return copy(2);  // backspace
        // Between a word character and something else, or (\B) between two of a kind.
        out_ += fmt::format("(?:(?<=[{0}])(?{1}[{0}])|(?<![{0}])(?{2}[{0}]))", kWord,
                            kind == 'b' ? '!' : '=', kind == 'b' ? '=' : '!');
        at_ += 2;
        return;
      case 'p':
      case 'P':
        return property();
      default:
        copy(2);
        if (starts("{") && std::string_view("xogkN").find(kind) != std::string_view::npos)
          copy(std::min(pattern_.find('}', at_), pattern_.size() - 1) + 1 - at_);
    }
  }

  // \p{Han}: PCRE2 would match the characters used with the script, Oniguruma those of the script.
  void property() {
    const auto end = pattern_.find('}', at_);
    if (!pattern_.substr(at_ + 2).starts_with("{") || end == std::string_view::npos) return copy(2);
    std::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    const std::string script = fmt::format("\\p{{sc:{}}}", name);
    int error = 0;
    std::size_t offset = 0;
    if (name.size() > 2 && compile_code(script, 0, error, offset))
      out_ += fmt::format("\\{}{{{}sc:{}}}", pattern_[at_ + 1], negated ? "^" : "", name);
    else
      out_ += pattern_.substr(at_, end + 1 - at_);
    at_ = end + 1;
  }

  std::string_view pattern_;
  std::string out_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  bool interval_ = false;
};

}  // namespace

struct RegexScratch::Memory {
  Memory()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kStackBegin, kStackLimit, nullptr)) {
    if (data == nullptr || context == nullptr)
      fail<MemoryError>("regular expression: no memory for a match");
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKiB);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Memory() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

RegexScratch::RegexScratch() : memory_(std::make_unique<Memory>()) {}
RegexScratch::~RegexScratch() = default;
RegexScratch::RegexScratch(RegexScratch&&) noexcept = default;
RegexScratch& RegexScratch::operator=(RegexScratch&&) noexcept = default;

struct Regex::Code {
  CodePointer code;
  bool jit = false;
};

namespace {

CodePointer compile_or_fail(std::string_view pattern, std::uint32_t options) {
  if (pattern.size() > kMaxPattern)
    fail<ConfigError>(fmt::format("regular expression: must be at most {} bytes, got {}",
                                  kMaxPattern, pattern.size()));
  int error = 0;
  std::size_t at = 0;
  CodePointer code = compile_code(pattern, options, error, at);
  if (!code)
    fail<ConfigError>(fmt::format("regular expression: {} at byte {}", error_text(error), at));
  return code;
}

}  // namespace

Regex Regex::compile(std::string_view pattern) {
  auto code = std::make_shared<Code>();
  code->code = compile_or_fail(Translator(pattern).run(),
                               PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
  code->jit = pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE) == 0;
  Regex regex;
  regex.code_ = std::move(code);
  return regex;
}

Regex Regex::literal(std::string_view text) {
  auto code = std::make_shared<Code>();
  code->code = compile_or_fail(text, PCRE2_LITERAL);
  code->jit = pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE) == 0;
  Regex regex;
  regex.code_ = std::move(code);
  return regex;
}

bool Regex::find(std::string_view text, std::size_t from, Match& match,
                 RegexScratch& scratch) const {
  RegexScratch::Memory& memory = *scratch.memory_;
  const auto run = code_->jit ? pcre2_jit_match : pcre2_match;
  const int found = run(code_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                        from, PCRE2_NO_UTF_CHECK, memory.data, memory.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0)
    fail<Error>(fmt::format("regular expression: gave up at byte {} of {}: {}", from, text.size(),
                            error_text(found)));
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(memory.data);
  match = {bounds[0], bounds[1]};
  if (match.begin < from || match.end < match.begin)
    fail<Error>(fmt::format("regular expression: match {}..{} must not go back before {}",
                            match.begin, match.end, from));
  return true;
}

}  // namespace lectern
