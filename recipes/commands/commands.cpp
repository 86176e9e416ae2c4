#include "recipes/commands/command.h"

#include <algorithm>
#include <cstdio>

namespace lectern::commands {

void tell(const std::string& line) {
  std::string text = line;
  std::replace(text.begin(), text.end(), '\n', ' ');
  text += '\n';
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void add_all(Command app) {
  add_data(app);
  add_tokenizer(app);
  add_train(app);
  add_plan(app);
  add_eval(app);
  add_score(app);
  add_ocr(app);
  add_export(app);
  add_parity(app);
  add_bench(app);
  add_ablate(app);
  add_report(app);
  add_info(app);
}

}  // namespace lectern::commands
