#include "recipes/commands/command_line.h"

#include "recipes/config/nearest.h"

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <utility>
#include <vector>

namespace lectern::commands {

Option Option::required() {
  option_->required();
  return *this;
}

Option Option::one_of(const std::vector<std::string>& choices) {
  option_->check(CLI::IsMember(choices));
  return *this;
}

Option Option::range(int least, int most) {
  option_->check(CLI::Range(least, most));
  return *this;
}

Option Option::range(double least, double most) {
  option_->check(CLI::Range(least, most));
  return *this;
}

Option Option::positive() {
  option_->check(CLI::PositiveNumber);
  return *this;
}

Option Option::show_default() {
  option_->capture_default_str();
  return *this;
}

Option Option::repeated() {
  option_->take_all()->allow_extra_args(false);
  return *this;
}

Option Option::excludes(Option other) {
  option_->excludes(other.option_);
  return *this;
}

Option Option::needs(Option other) {
  option_->needs(other.option_);
  return *this;
}

Command Command::add_subcommand(const std::string& name, const std::string& help) {
  return Command(app_->add_subcommand(name, help));
}

void Command::require_subcommand() { app_->require_subcommand(1); }

template <typename Value>
Option Command::add_option(const std::string& name, Value& variable, const std::string& help) {
  return Option(app_->add_option(name, variable, help));
}

template Option Command::add_option(const std::string&, std::string&, const std::string&);
template Option Command::add_option(const std::string&, std::filesystem::path&, const std::string&);
template Option Command::add_option(const std::string&, int&, const std::string&);
template Option Command::add_option(const std::string&, std::int64_t&, const std::string&);
template Option Command::add_option(const std::string&, std::uint64_t&, const std::string&);
template Option Command::add_option(const std::string&, double&, const std::string&);
template Option Command::add_option(const std::string&, std::vector<std::string>&,
                                    const std::string&);
template Option Command::add_option(const std::string&, std::array<double, 2>&, const std::string&);
template Option Command::add_option(const std::string&, std::array<std::int64_t, 2>&,
                                    const std::string&);
template Option Command::add_option(const std::string&, std::optional<std::int64_t>&,
                                    const std::string&);

Option Command::add_flag(const std::string& name, bool& variable, const std::string& help) {
  return Option(app_->add_flag(name, variable, help));
}

Option Command::add_flag(const std::string& name, const std::string& help) {
  return Option(app_->add_flag(name)->description(help));
}

void Command::callback(std::function<void()> run) { app_->callback(std::move(run)); }

void fail_with_missing(const std::string& what) { throw CLI::RequiredError(what); }

namespace {

std::vector<std::string> names_of_commands(const CLI::App& app) {
  std::vector<std::string> out;
  for (const CLI::App* each : app.get_subcommands({})) out.push_back(each->get_name());
  return out;
}

/// The sub-command of this name; null where there is none.
const CLI::App* command_of(const CLI::App& app, const std::string& name) {
  for (const CLI::App* each : app.get_subcommands({}))
    if (each->get_name() == name) return each;
  return nullptr;
}

std::string suggestion(const std::string& found, const std::vector<std::string>& known) {
  const std::string near = nearest_name(found, known);
  return near.empty() ? "" : fmt::format("; did you mean {}?", near);
}

/// What to say of a word that stands where a command must and is none; empty where all are.
std::string unknown_command(const CLI::App& root, int argc, char** argv) {
  const CLI::App* app = &root;
  std::string path = root.get_name();
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::vector<std::string> known = names_of_commands(*app);
    if (known.empty() || word.starts_with('-')) return "";
    const CLI::App* next = command_of(*app, word);
    if (next == nullptr)
      return fmt::format("{} has no command {}{} ({} --help lists them)", path, word,
                         suggestion(word, known), path);
    app = next;
    path += " " + word;
  }
  return "";
}

/// The same for options that a command does not have.
std::string unknown_options(const CLI::App& root, int argc, char** argv) {
  const CLI::App* app = &root;
  std::vector<std::string> known;
  for (int i = 1; i < argc; ++i)
    if (const CLI::App* next = command_of(*app, argv[i])) app = next;
  for (const CLI::Option* option : app->get_options())
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  std::string out;
  for (const std::string& word : root.remaining(true)) {
    if (!word.starts_with("--")) continue;
    const std::string near = nearest_name(word.substr(0, word.find('=')), known);
    if (!near.empty()) out += fmt::format("{}: did you mean {}?\n", word, near);
  }
  return out;
}

}  // namespace

CommandLine::CommandLine(const std::string& program, const std::string& help,
                         const std::string& version)
    : app_(std::make_unique<CLI::App>(help)) {
  app_->name(program);
  app_->set_version_flag("--version", version, "print the version and leave");
}

CommandLine::~CommandLine() = default;

Command CommandLine::root() { return Command(app_.get()); }

std::optional<int> CommandLine::run(int argc, char** argv) {
  constexpr int kBadUsage = 2;
  if (const std::string unknown = unknown_command(*app_, argc, argv); !unknown.empty()) {
    fmt::print(stderr, "lectern: {}\n", unknown);
    return kBadUsage;
  }
  try {
    app_->parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app_->exit(success);
  } catch (const CLI::ExtrasError& error) {
    app_->exit(error);
    fmt::print(stderr, "{}", unknown_options(*app_, argc, argv));
    return kBadUsage;
  } catch (const CLI::ParseError& error) {
    app_->exit(error);
    return kBadUsage;
  }
  return std::nullopt;
}

}  // namespace lectern::commands
