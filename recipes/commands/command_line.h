// The command line of build/lectern: what commands say of their arguments. CLI11, which parses it,
// costs seconds to compile and stays in command_line.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {  // NOLINT(readability-identifier-naming): CLI11's own
class App;
class Option;
}  // namespace CLI

namespace lectern::commands {

/// One argument, for saying more of it; belongs to its command.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option required();
  /// The value is one of these.
  Option one_of(const std::vector<std::string>& choices);
  /// Numbers from `least` to `most`, both included.
  Option range(int least, int most);
  Option range(double least, double most);
  Option positive();
  /// --help says the value that the variable has now.
  Option show_default();
  /// Given again for each value: --set a=1 --set b=2.
  Option repeated();
  /// Cannot be given together with `other`.
  Option excludes(Option other);
  /// Cannot be given without `other`.
  Option needs(Option other);

 private:
  CLI::Option* option_;
};

/// The program or one of its sub-commands; a handle, copies mean the same command.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Command add_subcommand(const std::string& name, const std::string& help);
  /// Parsing fails unless one of the sub-commands is named.
  void require_subcommand();
  /// An argument: `name` is "--out", or "FILE" for one by position. Its value goes to `variable`,
  /// which must live until the command has run. For texts, paths, numbers, lists of texts (one or
  /// more values), pairs of numbers and an optional number; another type takes a line in
  /// command_line.cpp.
  template <typename Value>
  Option add_option(const std::string& name, Value& variable, const std::string& help);
  /// True when it is given.
  Option add_flag(const std::string& name, bool& variable, const std::string& help);
  /// A flag that changes nothing.
  Option add_flag(const std::string& name, const std::string& help);
  /// Runs when this command was named and its arguments are in their variables.
  void callback(std::function<void()> run);

 private:
  CLI::App* app_;
};

/// For a callback that finds arguments missing: ends the program with status 2 and "<what> is
/// required".
[[noreturn]] void fail_with_missing(const std::string& what);

class CommandLine {
 public:
  /// `version` is what --version prints.
  CommandLine(const std::string& program, const std::string& help, const std::string& version);
  ~CommandLine();

  Command root();
  /// Parses and runs the callback of the named command. The exit status when that is settled: 0
  /// after --help and --version, 2 after a mistake in the arguments, which has been printed; a
  /// command or option that does not exist with the nearest that does. What the callback throws
  /// goes through.
  std::optional<int> run(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace lectern::commands
