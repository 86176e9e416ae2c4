// Text for tests that draw samples.
#pragma once

#include "data/text/text_corpus.h"

namespace lectern::testing {

inline constexpr const char* kEnglish = R"(A page is read from the top left. The reader sees words,
lines and blocks; every word was once set in type, and each letter has its own shape.

In 1996 the library held 12,480 books (about 3% of them in Greek). "Quick foxes", said Jane Fox,
"jump over lazy dogs & zebras": a sentence that has been used for testing since typewriters
were new. Prices rose from $4.50 to $7.25 in six years -- an unusual time!

Tables, headings and lists follow. The values x = 0.25 and y < 17 were measured twice; the
difference is smaller than the error of either. What remains is to say why it matters, who has
seen it before, and whether anybody would want to do it again.
)";

inline TextCorpus english_corpus() { return TextCorpus(kEnglish, CorpusOptions{}); }

}  // namespace lectern::testing
