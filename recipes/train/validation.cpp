#include "recipes/train/validation.h"

#include "distributed/world.h"
#include "recipes/evaluate/evaluate.h"

#include <nlohmann/json.hpp>

#include <iterator>
#include <utility>

namespace lectern {
namespace {

using Json = nlohmann::json;

Json to_json(const PageScore& page) {
  return {
      page.name,          page.missing, page.edits,     page.predicted_length, page.truth_length,
      page.edit_distance, page.cer,     page.precision, page.recall,           page.f1,
      page.repeats};
}

PageScore page_from(const Json& v) {
  PageScore out;
  out.name = v[0].get<std::string>();
  out.missing = v[1].get<bool>();
  out.edits = v[2].get<std::int64_t>();
  out.predicted_length = v[3].get<std::int64_t>();
  out.truth_length = v[4].get<std::int64_t>();
  out.edit_distance = v[5].get<double>();
  out.cer = v[6].get<double>();
  out.precision = v[7].get<double>();
  out.recall = v[8].get<double>();
  out.f1 = v[9].get<double>();
  out.repeats = v[10].get<bool>();
  return out;
}

/// What evaluate() says of one set, all ranks' shares of it together.
struct SetResult {
  std::vector<PageScore> pages;
  double loss = 0;
  double seconds = 0;
};

SetResult evaluate_shared(const OcrModel& model, const Tokenizer& tokenizer, const SampleSet& set,
                          EvaluationArgs args, Communicator& ranks) {
  args.rank = ranks.rank();
  args.ranks = ranks.size();
  EvaluationResult here = evaluate(model, tokenizer, set, args);
  if (ranks.size() == 1) return {std::move(here.scores.pages), here.loss, here.seconds};
  Json share = {{"pages", Json::array()}};
  for (const PageScore& page : here.scores.pages) share["pages"].push_back(to_json(page));
  std::vector<Json> shares;
  for (const std::string& text :
       all_gather_text(ranks, share.dump(-1, ' ', false, Json::error_handler_t::replace)))
    shares.push_back(Json::parse(text));
  SetResult out;
  for (std::size_t i = 0;; ++i) {  // sample i was read by rank i % ranks
    const Json& pages = shares[i % shares.size()]["pages"];
    if (i / shares.size() >= pages.size()) break;
    out.pages.push_back(page_from(pages[i / shares.size()]));
  }
  const auto sums = reduced(ranks, {here.loss_sum, static_cast<double>(here.trained_tokens)});
  out.loss = sums[1] > 0 ? sums[0] / sums[1] : 0;
  out.seconds = reduced(ranks, here.seconds, Reduction::max);
  return out;
}

}  // namespace

ValidationResult validate(const OcrModel& model, const Tokenizer& tokenizer,
                          const std::vector<ValidationSet>& sets, const EvaluationRecipe& recipe,
                          Communicator& ranks) {
  EvaluationArgs args;
  args.samples = recipe.samples;
  args.with_loss = true;
  args.reader.max_new_tokens = recipe.max_new_tokens;
  ValidationResult out;
  MetricFields each = MetricFields::object();
  std::vector<PageScore> pages;
  double seconds = 0;
  for (const ValidationSet& set : sets) {
    SetResult result = evaluate_shared(model, tokenizer, *set.samples, args, ranks);
    if (!set.name.empty()) {
      const double cer = summarize(result.pages).cer;
      each["eval_cer/" + set.name] = cer;
      each["eval_loss/" + set.name] = result.loss;
      out.lines.push_back(
          fmt::format("{}: character error rate {:.3f}, loss {:.3f}", set.name, cer, result.loss));
    }
    out.loss += result.loss / static_cast<double>(sets.size());
    seconds += result.seconds;
    pages.insert(pages.end(), std::make_move_iterator(result.pages.begin()),
                 std::make_move_iterator(result.pages.end()));
  }
  const Scores scores = summarize(std::move(pages));
  out.cer = scores.cer;
  out.fields = {{"eval_samples", scores.pages.size()},
                {"eval_cer", scores.cer},
                {"eval_edit_distance", scores.edit_distance},
                {"eval_f1", scores.f1},
                {"eval_repetition_rate", scores.repetition_rate},
                {"eval_loss", out.loss}};
  out.fields.update(each);
  out.lines.push_back(fmt::format(
      "held out: character error rate {:.3f}, edit distance {:.3f}, {} of {} exact ({:.1f} s)",
      scores.cer, scores.edit_distance, scores.exact, scores.pages.size(), seconds));
  return out;
}

}  // namespace lectern
