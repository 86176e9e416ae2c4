// Every command of README.md and docs/*.md, run as a reader would: in a folder like a fresh clone,
// in the order of the documents, long ones cut short. Documents that a script would download are
// small PDFs made here. A command that is not in the table below fails the test: it runs, or it
// says why not.
#include "core/io/file.h"
#include "tests/data/test_pdf.h"
#include "tests/recipes/spawn.h"
#include "tests/testing.h"

#include <fmt/format.h>

#include <chrono>
#include <map>
#include <regex>
#include <set>
#include <sstream>

namespace lectern {
namespace {

namespace fs = std::filesystem;

struct Documented {
  std::string command = {};  // as it stands there, without its comment
  std::string more = {};     // appended to cut it short
  std::string instead = {};  // run in its place
  std::string skip = {};     // why it is not run
  std::string before = {};   // what a reader would have done before
};

constexpr const char* kCut =
    " --set steps=2 --set optimizer.warmup_steps=0 --set checkpoint.every=0 --set "
    "evaluation.samples=2"
    " --set threads=1";
// What an ablation trains keeps its curriculum and warm-up.
constexpr const char* kCutAblation =
    " --set training.seeds=[1] --set training.steps=2 --set training.curve_every=1"
    " --set training.curve_samples=2 --set training.evaluation_samples=2";

constexpr const char* kLibrary = "tests/library/install.sh runs it";

// Over 60 lines: a command an entry.
std::vector<Documented> documented() {
  const std::string stage1 = "build/lectern train quickstart/stage1";
  const std::string anew = "rm -rf out/quickstart/stage1";
  return {
      // README.md
      {.command = "./quickstart.sh", .skip = "installs, builds and trains for 25 minutes"},
      {.command = "./test.sh", .skip = "this test is part of it"},
      {.command = "build/lectern ocr page.pdf", .more = " --max-tokens 8"},
      {.command = "build/lectern data pages --pdf papers/*.pdf --out out/mine/pages"},
      {.command = "build/lectern tokenizer train --text out/mine/pages --vocab 512 --out "
                  "out/mine/tokenizer.json"},
      {.command = "build/lectern data shards --pages out/mine/pages --tokenizer "
                  "out/mine/tokenizer.json --out out/mine/shards --split 0.9"},
      {.command = "build/lectern data synthetic --text out/mine/pages --level region "
                  "--contact-sheet out/mine/sheet.png"},
      {.command =
           "build/lectern data pairs receipts receipts.jsonl --checkpoint recipes/nano --out "
           "out/pairs --split 0.9 --contact-sheet out/pairs.png",
       .before =
           "for part in receipts more; do build/lectern data synthetic --text out/mine/pages "
           "--level line --ascii-only --count 12 --seed ${#part} --out $part; done\n"
           "for text in more/*.txt; do printf '{\"image\": \"%s\", \"text\": \"line %s\"}\\n' "
           "${text%.txt}.png $text; done >receipts.jsonl"},
      {.command = "build/lectern train quickstart/stage3 --set run_dir=out/own --set "
                  "model.init=recipes/nano --set model.config=recipes/nano --set "
                  "data.tokenizer=recipes/nano/tokenizer.json --set view.global_size=128 --set "
                  "data.max_text_tokens=96 --set "
                  "'data.shards=[\"out/pairs/train\"]' --set data.validation=out/pairs/validation",
       .more = kCut},
      {.command = "build/lectern eval --checkpoint out/own --shards out/pairs/validation "
                  "--max-tokens 96",
       .instead = "build/lectern eval --checkpoint out/own --shards out/pairs/validation "
                  "--max-tokens 8"},
      {.command = "mine=(--set 'data.shards=[\"out/mine/shards/train\"]' --set "
                  "data.validation=out/mine/shards/validation --set "
                  "data.tokenizer=out/mine/tokenizer.json)"},
      {.command = stage1 + " \"${mine[@]}\" --set run_dir=out/mine/stage1", .more = kCut},
      {.command = "build/lectern train quickstart/stage2 \"${mine[@]}\" --set "
                  "run_dir=out/mine/stage2 --set model.init=out/mine/stage1",
       .more = kCut},
      {.command = "build/lectern train quickstart/stage3 \"${mine[@]}\" --set "
                  "run_dir=out/mine/stage3 --set model.init=out/mine/stage2",
       .more = kCut},
      {.command = "mpirun -np 2 " + stage1 + " --set batch.micro_batch=16",
       .more = kCut,
       .before = "mkdir -p out/quickstart && cp -r out/mine/shards out/mine/tokenizer.json "
                 "out/quickstart/"},
      {.command = "build/lectern train quickstart-mhc/all", .more = kCut},
      {.command = "build/lectern ablate ablations/residual",
       .more = " --set text.depths=[1] --set text.steps=2 --set text.seeds=[1] --set "
               "text.warmup_steps=0 --set 'text.variants=[\"plain\",\"mhc\"]' "
               "--set ocr.enabled=false --set text.validation_sequences=2"},
      {.command = "build/lectern ablate ablations/queries", .more = kCutAblation},
      {.command = "build/lectern ablate ablations/stages",
       .more = std::string(kCutAblation) +
               " --set training.then.0.steps=2 --set training.then.1.steps=2"},
      {.command = "build/lectern parity tests/fixtures/mhc_A"},
      {.command = "build/lectern ocr --checkpoint out/mine/stage3 picture.png",
       .more = " --max-tokens 8",
       .before = "cp out/mine/sheet.png picture.png"},
      {.command = "build/lectern eval --checkpoint out/mine/stage3 --shards "
                  "out/mine/shards/validation --level word --samples 200 --max-tokens 24 --out "
                  "out/mine/eval",
       .instead = "build/lectern eval --checkpoint out/mine/stage3 --shards "
                  "out/mine/shards/validation --level word --samples 4 --max-tokens 4 --out "
                  "out/mine/eval"},
      {.command = "build/lectern score --pred out/mine/eval/pred --gt out/mine/eval/gt"},
      {.command = "scripts/eval-beside-tesseract.sh -s 3 --checkpoint out/mine/stage3 --shards "
                  "out/mine/shards/validation out/mine/beside",
       .skip = "tesseract is not among the packages that lectern needs"},
      {.command =
           "build/lectern export --checkpoint out/mine/stage3 --format hf --out out/mine/hf"},
      {.command = "build/lectern export --checkpoint out/mine/stage3 --format original --out "
                  "out/mine/original"},
      {.command = "build/lectern export --checkpoint out/mine/stage3 --format encoder --out "
                  "out/mine/encoder"},
      {.command = "build/lectern export --checkpoint big --format gguf --type q8_0 --out "
                  "out/mine/gguf",
       .skip = "needs a model of the released views; tests/oracle/gguf_check.py exports one"},
      {.command = "build/lectern report --run out/mine --out out/mine/report.html"},
      {.command = "build/lectern ocr --checkpoint weights/DeepSeek-OCR-2 --dtype bf16 page.png",
       .skip = "the released weights are 7 GB that this machine has not"},
      {.command = "build/lectern parity tests/fixtures/ocr2_A"},
      {.command = "build/lectern parity tests/fixtures/preprocess"},
      {.command = "build/lectern bench step --config bench/bench_small.json --stage 1",
       .more = " --crops 0 --text 8 --batch 1 --steps 1"},
      {.command = "bench/compare_torch.py", .skip = "needs PyTorch (scripts/oracle-venv.sh)"},
      {.command = "bench/compare.sh", .skip = "hours of figures; needs PyTorch"},
      // docs/fine-tuning.md
      {.command = "build/lectern data pairs receipts --checkpoint recipes/nano --out "
                  "out/tuned/shards --split 0.9"},
      {.command = "build/lectern train receipts --set run_dir=out/tuned/run --set "
                  "'data.shards=[\"out/tuned/shards/train\"]' --set "
                  "data.validation=out/tuned/shards/validation",
       .more = kCut},
      {.command = "build/lectern eval --checkpoint recipes/nano --adapter out/tuned/run --shards "
                  "out/tuned/shards/validation",
       .more = " --max-tokens 8"},
      {.command = "build/lectern export --checkpoint out/tuned/run --format lectern --merge --out "
                  "out/tuned/merged"},
      {.command = "build/lectern ocr receipts --checkpoint out/tuned/run",
       .more = " --max-tokens 4"},
      {.command = "build/lectern plan --adapter receipts"},
      {.command =
           "build/lectern export --checkpoint out/tuned/run --format peft --out out/tuned/peft"},
      // docs/library.md
      {.command = "cmake --install build --prefix out/prefix", .skip = kLibrary},
      {.command = "cmake -S examples -B out/examples -DCMAKE_PREFIX_PATH=$PWD/out/prefix",
       .skip = kLibrary},
      {.command = "cmake --build out/examples", .skip = kLibrary},
      {.command = "out/examples/train_network", .skip = kLibrary},
      {.command = "out/examples/own_operation", .skip = kLibrary},
      // docs/mhc.md
      {.command = "x' = H_res x + H_postᵀ F(H_pre x) x: n streams of width C a token; F: "
                  "attention or MLP",
       .skip = "a formula"},
      // docs/parallel.md
      {.command = "mpirun -np 2 " + stage1 +
                  " --set batch.global_size=16 --set batch.micro_batch=8 --set threads=1 --set "
                  "steps=14 --set optimizer.warmup_steps=5 --set checkpoint.every=0 --set "
                  "evaluation.samples=0 --set run_dir=out/two"},
      {.command = "ls -l out/two/checkpoints/step-000014/optimizer-*"},
      {.command = "mpirun -np 8 build/lectern train ocr2/stage2 --set device=cuda --set mesh.ep=8",
       .skip = "needs eight GPUs"},
      {.command = "build/lectern bench checkpoint --config bench/bench_1gb.json --out /var/tmp",
       .skip = "writes gigabytes; minutes on a model of any size"},
      {.command = "lectern bench step --device cuda --dtype bf16 --stage 2 --crops 6 --text 1024 "
                  "--config CONFIG > step.json",
       .skip = "needs a GPU"},
      {.command =
           "lectern plan ocr2/stage2 --nodes 20 --gpus 8 --gpu a100-40g --measured step.json",
       .instead = "lectern plan ocr2/stage2 --nodes 20 --gpus 8 --gpu a100-40g"},
      // docs/recipes.md
      {.command = stage1, .more = kCut, .before = anew},
      {.command = stage1 + " --set steps=100 --set run_dir=out/try", .more = kCut},
      {.command = stage1 + " --resume", .more = std::string(kCut) + " --set steps=3"},
      {.command = stage1 + " --profile",
       .more = std::string(kCut) + " --set steps=5",
       .before = anew},
      {.command = "memory: of 22 blocks 13 keep their activations and 9 recompute (rrrkrkkr...); "
                  "0.497 GiB predicted, 0.500 GiB allowed",
       .skip = "what a run says"},
      // docs/ablation-*/README.md
      {.command = "scripts/ablation-docs.sh out/ablate-queries docs/ablation-queries"},
      {.command = "scripts/ablation-docs.sh out/ablate-stages docs/ablation-stages"},
  };
}

/// A line without its comment, and with single spaces between words.
std::string plain(const std::string& line) {
  const std::string bare = std::regex_replace(line, std::regex("\\s{2,}#.*|\\s+# .*"), "");
  return std::regex_replace(std::regex_replace(bare, std::regex("\\s+"), " "), std::regex("^ | $"),
                            "");
}

/// The commands of a document: indented blocks and fenced ones of bash or sh, lines that end in a
/// backslash and open parentheses joined with what follows.
std::vector<std::string> commands_in(const fs::path& document) {
  std::istringstream lines(read_file(document));
  std::vector<std::string> out;
  std::string line, before, open, fence;
  bool inside = false, fenced = false;
  while (std::getline(lines, line)) {
    if (line.starts_with("```")) {
      fence = fenced ? "" : line.substr(3);
      fenced = !fenced;
      continue;
    }
    const bool starts = before.empty() || before.starts_with("#");
    inside =
        fenced ? fence == "bash" || fence == "sh" : line.starts_with("    ") && (inside || starts);
    before = line;
    if (!inside || plain(line).empty()) continue;
    std::string text = plain(line);
    const bool goes_on = text.ends_with("\\");
    if (goes_on) text.pop_back();
    open += (open.empty() ? "" : " ") + text;
    if (goes_on || (open.find("=(") != std::string::npos && !open.ends_with(")"))) continue;
    out.push_back(plain(open));
    open.clear();
  }
  return out;
}

std::vector<fs::path> documents() {
  const fs::path source = testing::source_folder();
  std::vector<fs::path> out;
  for (const auto& entry : fs::recursive_directory_iterator(source / "docs"))
    if (entry.path().extension() == ".md") out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  // Later commands read what earlier ones made, in the order in which a reader would go.
  out.insert(out.begin(),
             {source / "docs/training.md", source / "docs/reading.md", source / "README.md"});
  return out;
}

/// Prose of the repository, as the content of small PDFs: real words, every one of them ASCII.
std::string page_of(std::istringstream& words) {
  std::string out = testing::pdf_text("A page of words", 72, 740, 18), word;
  for (int line = 0; line < 30; ++line) {
    std::string text;
    while (text.size() < 60 && words >> word)
      if (std::all_of(word.begin(), word.end(), [](unsigned char c) { return std::isalnum(c); }))
        text += (text.empty() ? "" : " ") + word;
    out += testing::pdf_text(text, 72, 710 - 20 * line);
  }
  return out;
}

/// A folder like a clone in which lectern has been built.
void make_clone(const fs::path& clone) {
  const fs::path source = testing::source_folder();
  for (const char* name : {"bench", "recipes", "tests"})
    fs::create_directory_symlink(source / name, clone / name);
  for (const char* name : {"docs", "scripts"})
    fs::copy(source / name, clone / name, fs::copy_options::recursive);
  fs::create_directories(clone / "build");
  fs::create_symlink(testing::lectern_binary(), clone / "build/lectern");
  fs::create_directories(clone / "papers");
  fs::create_directories(clone / "out/words/pdf");
  fs::create_directories(clone / "out/ablate-text");
  const std::string prose = read_file(source / "docs/architecture.md") +
                            read_file(source / "docs/parallel.md") +
                            read_file(source / "docs/mhc.md");
  std::istringstream words(prose);
  std::string list;
  for (const char* name : {"one", "two", "three", "four"}) {
    const std::string pdf = testing::make_pdf({{.content = page_of(words)}});
    write_file(clone / fmt::format("papers/{}.pdf", name), pdf);
    write_file(clone / fmt::format("out/words/pdf/{}.pdf", name), pdf);
    list += fmt::format("local papers/{}.pdf 1-9 1-9\n", name);
  }
  write_file(clone / "page.pdf", testing::make_pdf({{.content = testing::pdf_paragraph("A", 1)}}));
  write_file(clone / "out/ablate-text/prose.txt", prose);
  // What scripts would download is here already.
  const fs::path file = clone / "scripts/documents.sh";
  const std::string before = read_file(file);
  std::string text = std::regex_replace(before, std::regex("documents=\"[^\"]*\""),
                                        "documents=\"\n" + list + "\"");
  text = std::regex_replace(text, std::regex("held_out=\\([^)]*\\)"), "held_out=(three four)");
  ASSERT_NE(text, before);
  write_file(file, text);
  write_file(clone / "scripts/install-deps.sh", "#!/bin/sh\n");
  fs::permissions(clone / "scripts/install-deps.sh", fs::perms::owner_all);
}

struct Ran {
  int status = 0;
  double seconds = 0;
  std::string output;
};

Ran run(const fs::path& clone, const std::string& script) {
  write_file(clone / "command.sh", script);
  const auto start = std::chrono::steady_clock::now();
  const std::string line =
      fmt::format("cd '{0}' && PATH='{0}/build':$PATH bash command.sh >command.log 2>&1 </dev/null",
                  clone.string());
  Ran out;
  out.status = std::system(line.c_str());
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  out.output = read_file(clone / "command.log");
  if (out.output.size() > 2000) out.output = "..." + out.output.substr(out.output.size() - 2000);
  return out;
}

TEST(DocumentedCommands, EveryOneRunsOrSaysWhyNot) {
  std::map<std::string, Documented> table;
  for (Documented& entry : documented()) table[entry.command] = entry;
  const testing::TemporaryFolder folder;
  const fs::path clone = folder.path() / "lectern";
  fs::create_directories(clone);
  ASSERT_NO_FATAL_FAILURE(make_clone(clone));
  const bool has_mpi = std::system("command -v mpirun >/dev/null") == 0;
  std::string settings =
      "set -e\nexport OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
      "OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none\n";
  std::set<std::string> seen;
  for (const fs::path& document : documents())
    for (const std::string& command : commands_in(document)) {
      const auto found = table.find(command);
      if (found == table.end()) {
        ADD_FAILURE() << document << " has a command that the table of this test has not:\n  "
                      << command;
        continue;
      }
      if (!seen.insert(command).second) continue;
      Documented entry = found->second;
      if (command.starts_with("mpirun") && entry.skip.empty() && !has_mpi)
        entry.skip = "there is no mpirun here";
      if (!entry.skip.empty()) {
        fmt::print("skipped  {}\n         {}\n", command, entry.skip);
        continue;
      }
      if (std::regex_search(command, std::regex("^\\w+=\\("))) {
        settings += command + "\n";
        continue;
      }
      const std::string line = (entry.instead.empty() ? command : entry.instead) + entry.more;
      const Ran ran = run(clone, settings + entry.before + "\n" + line + "\n");
      fmt::print("{:6.1f} s {}\n", ran.seconds, line);
      EXPECT_EQ(ran.status, 0) << document << "\n  " << line << "\n" << ran.output;
    }
  for (const auto& [command, entry] : table)
    EXPECT_TRUE(seen.contains(command)) << "no document has this command any more: " << command;
}

TEST(DocumentedCommands, AreFoundInBlocksOfBothKinds) {
  const testing::TemporaryFolder folder;
  const fs::path file = folder.path() / "a.md";
  write_file(file,
             "text\n    continued text\n\n    one  --a   # comment\n    two \\\n      --b\n\n"
             "```bash\nthree\n```\n```toml\nkey = 1\n```\n# Heading\n    v=(--x\n      --y)\n");
  EXPECT_EQ(commands_in(file),
            (std::vector<std::string>{"one --a", "two --b", "three", "v=(--x --y)"}));
}

}  // namespace
}  // namespace lectern
