// build/lectern: parses the command line, runs one command, turns exceptions into one line.
#include "core/error.h"
#include "recipes/commands/command.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

namespace {

int fail_with(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fprintf(stderr, "lectern: %s\n", message.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"lectern trains, evaluates and exports optical-compression OCR models"};
  app.name("lectern");
  app.require_subcommand(1);
  lectern::commands::add_all(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    app.exit(error);
    return 2;
  } catch (const std::exception& error) {
    return fail_with(error.what());
  }
  // Output that a full disk or a closed pipe swallowed is no success.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    return fail_with("cannot write to stdout");
  return 0;
}
