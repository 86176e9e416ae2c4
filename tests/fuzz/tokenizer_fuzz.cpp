// Feeds arbitrary bytes to the reader of tokenizer.json; what loads must encode and decode.
// Good seeds: tests/fixtures/tokenizer/*/tokenizer.json.
#include "core/error.h"
#include "data/tokenizer/tokenizer.h"

#include <cstddef>
#include <cstdint>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string bytes(reinterpret_cast<const char*>(data), size);
    const auto tokenizer = lectern::Tokenizer::from_json(bytes, "fuzz");
    const std::string_view text =
        "The <image> cafe\xCC\x81 1234 \xE6\x96\x87\xF0\x9F\x99\x82 a-b\r\n \xFF";
    tokenizer.decode(tokenizer.encode(text, true));
    tokenizer.decode(tokenizer.encode(bytes.substr(0, 200)), false);
  } catch (const lectern::Error&) {
    // The documented way to refuse.
  }
  return 0;
}
