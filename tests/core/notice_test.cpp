#include "core/notice.h"

#include "tests/notices.h"
#include "tests/testing.h"

#include <thread>

namespace lectern {
namespace {

TEST(Notice, SaysATextOnceAndAgainToANewSink) {
  const testing::Notices outer;
  notice("a");
  notice("a");
  notice("b");
  EXPECT_EQ(outer.said, (std::vector<std::string>{"a", "b"}));
  {
    const testing::Notices inner;
    notice("a");
    EXPECT_EQ(inner.said, std::vector<std::string>{"a"});
  }
  notice("a");
  EXPECT_EQ(outer.said, (std::vector<std::string>{"a", "b", "a"}));
  const NoticeSink before = set_notice_sink({});
  notice("nobody hears this");
  set_notice_sink(before);
  EXPECT_EQ(outer.said.size(), 3u);
}

TEST(Notice, FromSeveralThreads) {
  const testing::Notices notices;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([] {
      for (int k = 0; k < 100; ++k) notice(std::to_string(k));
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(notices.said.size(), 100u);
}

}  // namespace
}  // namespace lectern
