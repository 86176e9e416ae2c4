// lectern export: a checkpoint in the layout of another program.
#include "recipes/export/export.h"

#include "recipes/commands/command.h"

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace lectern::commands {

void add_export(Command app) {
  struct Options {
    std::string checkpoint, adapter, format, out, dtype = "fp32", type, vision_type;
    bool json = false, merge = false;
  };
  auto options = std::make_shared<Options>();
  Command command = app.add_subcommand("export", "write a model for other programs");
  command.add_option("--checkpoint", options->checkpoint, "model, checkpoint or run folder")
      .required();
  command.add_option("--adapter", options->adapter,
                     "low-rank adapter on it: a run that trained one, or a PEFT folder");
  command.add_flag("--merge", options->merge, "write the model with the adapter added");
  command
      .add_option("--format", options->format,
                  "hf: transformers; original: vLLM, SGLang; gguf: llama.cpp; encoder: what stands "
                  "before the decoder; lectern: a model folder of our own; peft, gguf-lora: an "
                  "adapter alone")
      .required()
      .one_of(export_formats());
  command.add_option("--out", options->out, "folder to make").required();
  command
      .add_option("--dtype", options->dtype,
                  "of matrices with --format lectern or encoder: fp32 or bf16")
      .one_of({"fp32", "bf16"});
  command
      .add_option("--type", options->type,
                  "of matrices with --format gguf: f32 (the default), f16, bf16, q8_0 or q4_0")
      .one_of(gguf_type_names());
  command
      .add_option("--vision-type", options->vision_type,
                  "the same for mmproj.gguf: by default --type's, but q8_0 for q4_0")
      .one_of(gguf_type_names());
  command.add_flag("--json", options->json, "print one JSON object");
  command.callback([options] {
    const ExportReport report = export_model(
        ExportSource::open(options->checkpoint, options->adapter), options->format, options->out,
        {.dtype = weight_dtype(options->dtype),
         .type = gguf_type_of(options->type),
         .vision_type = gguf_type_of(options->vision_type),
         .merge = options->merge});
    if (options->json) {
      fmt::print("{}\n", nlohmann::json{{"format", options->format},
                                        {"path", report.folder.string()},
                                        {"files", report.files},
                                        {"tensors", report.tensors},
                                        {"bytes", report.bytes}}
                             .dump());
    } else {
      fmt::print("{}: {} tensors, {} bytes, read back and compared: {}\n", report.folder.string(),
                 report.tensors, report.bytes, fmt::join(report.files, ", "));
    }
  });
}

}  // namespace lectern::commands
