// build/lectern: parses the command line, runs one command, turns exceptions into one line.
#include "core/error.h"
#include "recipes/commands/command.h"

#include <cstdio>
#include <exception>

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
    std::fprintf(stderr, "lectern: %s\n", error.what());
    return 1;
  }
  return 0;
}
