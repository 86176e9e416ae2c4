#include "recipes/commands/command.h"

namespace lectern::commands {

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
