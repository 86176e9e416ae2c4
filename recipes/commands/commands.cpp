#include "recipes/commands/command.h"

namespace lectern::commands {

void add_all(CLI::App&) {}

}  // namespace lectern::commands
