#include "core/io/gguf.h"

#include "tests/testing.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <limits>

namespace lectern {
namespace {

using testing::TemporaryFolder;
using testing::throws_with;

GgufMetadata every_kind() {
  return {{"general.architecture", std::string("test")},
          {"test.count", std::uint32_t{7}},
          {"test.scale", 0.25F},
          {"test.flag", true},
          {"test.off", false},
          {"test.numbers", std::vector<float>{1.5F, -2.0F}},
          {"test.kinds", std::vector<std::int32_t>{1, -3}},
          {"test.names", std::vector<std::string>{"a", "", "Ġthe"}}};
}

std::vector<float> counted(std::int64_t count, float step) {
  std::vector<float> out;
  for (std::int64_t i = 0; i < count; ++i) out.push_back(step * static_cast<float>(i % 97) - 3.0F);
  return out;
}

std::vector<GgufEntry> some_entries() {
  return {{"one.weight", GgufType::f32, {3, 5}},
          {"stack.weight", GgufType::q8_0, {2, 3, 64}},
          {"two.bias", GgufType::f32, {7}},
          {"small.weight", GgufType::q4_0, {4, 32}},
          {"half.weight", GgufType::f16, {1, 2, 3, 5}},
          {"brain.weight", GgufType::bf16, {9, 3}}};
}

void write_some(const std::filesystem::path& path) {
  GgufWriter writer(path, every_kind(), some_entries());
  for (const GgufEntry& entry : some_entries()) writer.write(counted(entry.shape.numel(), 0.5F));
  writer.commit();
}

/// Reads a file as the format's document says, with no code of the reader's.
class Cursor {
 public:
  explicit Cursor(std::string bytes) : bytes_(std::move(bytes)) {}
  template <typename T>
  T number() {
    T out{};
    std::memcpy(&out, bytes_.data() + at_, sizeof out);
    at_ += sizeof out;
    return out;
  }
  std::string text() {
    const auto size = number<std::uint64_t>();
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  std::size_t at() const { return at_; }

 private:
  std::string bytes_;
  std::size_t at_ = 0;
};

TEST(Gguf, TheBytesAreThoseOfTheFormat) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.gguf";
  GgufWriter writer(path, {{"k", std::uint32_t{7}}, {"s", std::vector<std::string>{"x", "yz"}}},
                    {{"m.weight", GgufType::f32, {2, 3}}, {"v", GgufType::f16, {3}}});
  writer.write(std::vector<float>{1, 2});
  writer.write(std::vector<float>{3, 4, 5, 6});
  writer.write(std::vector<float>{1, 2, -2});
  writer.commit();
  const std::string bytes = read_file(path);
  Cursor in(bytes);
  EXPECT_EQ(bytes.substr(0, 4), "GGUF");
  in.number<std::uint32_t>();
  EXPECT_EQ(in.number<std::uint32_t>(), 3U);
  EXPECT_EQ(in.number<std::uint64_t>(), 2U);  // tensors
  EXPECT_EQ(in.number<std::uint64_t>(), 2U);  // keys
  EXPECT_EQ(in.text(), "k");
  EXPECT_EQ(in.number<std::uint32_t>(), 4U);
  EXPECT_EQ(in.number<std::uint32_t>(), 7U);
  EXPECT_EQ(in.text(), "s");
  EXPECT_EQ(in.number<std::uint32_t>(), 9U);
  EXPECT_EQ(in.number<std::uint32_t>(), 8U);
  EXPECT_EQ(in.number<std::uint64_t>(), 2U);
  EXPECT_EQ(in.text(), "x");
  EXPECT_EQ(in.text(), "yz");
  EXPECT_EQ(in.text(), "m.weight");
  EXPECT_EQ(in.number<std::uint32_t>(), 2U);
  EXPECT_EQ(in.number<std::uint64_t>(), 3U) << "the fastest dimension comes first";
  EXPECT_EQ(in.number<std::uint64_t>(), 2U);
  EXPECT_EQ(in.number<std::uint32_t>(), 0U);
  EXPECT_EQ(in.number<std::uint64_t>(), 0U);
  EXPECT_EQ(in.text(), "v");
  EXPECT_EQ(in.number<std::uint32_t>(), 1U);
  EXPECT_EQ(in.number<std::uint64_t>(), 3U);
  EXPECT_EQ(in.number<std::uint32_t>(), 1U);
  EXPECT_EQ(in.number<std::uint64_t>(), 32U) << "24 bytes, filled up to the alignment";
  const std::size_t data = (in.at() + 31) / 32 * 32;
  ASSERT_EQ(bytes.size(), data + 64) << "the last tensor is filled up too";
  float last = 0;
  std::memcpy(&last, bytes.data() + data + 20, sizeof last);
  EXPECT_EQ(last, 6);
  EXPECT_EQ(bytes.substr(data + 32, 6), std::string("\x00\x3c\x00\x40\x00\xc0", 6));
}

TEST(Gguf, WhatIsWrittenIsReadAgain) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.gguf";
  write_some(path);
  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file.metadata(), every_kind());
  ASSERT_NE(file.find("test.flag"), nullptr);
  EXPECT_EQ(*file.find("test.flag"), GgufValue(true));
  EXPECT_EQ(file.find("test.nothing"), nullptr);
  ASSERT_EQ(file.entries().size(), some_entries().size());
  for (const GgufEntry& want : some_entries()) {
    const GgufEntry& entry = file.entry(want.name);
    EXPECT_EQ(entry.shape, want.shape) << want.name;
    EXPECT_EQ(entry.type, want.type) << want.name;
    const auto values = counted(want.shape.numel(), 0.5F), got = file.values(want.name);
    for (std::size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(got[i], values[i], error_bound(want.type, values[i], 48)) << want.name << i;
    file.release(want.name);
    EXPECT_EQ(file.values(want.name), got) << "released pages come back";
  }
  std::vector<float> part(64);
  file.read("stack.weight", 128, part);
  const auto whole = file.values("stack.weight");
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 128));
  EXPECT_TRUE(throws_with([&] { file.read("stack.weight", 16, part); },
                          {"a.gguf", "stack.weight", "in blocks of 32"}));
  EXPECT_TRUE(throws_with([&] { file.read("stack.weight", 352, part); }, {"within 384"}));
  EXPECT_TRUE(throws_with([&] { (void)file.entry("x"); }, {"a.gguf", "has no tensor x"}));
}

TEST(Gguf, TheWriterRefusesWhatReadersWould) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.gguf";
  const auto refused = [&](const GgufMetadata& keys, std::vector<GgufEntry> entries,
                           std::initializer_list<std::string_view> parts) {
    return throws_with([&] { GgufWriter(path, keys, std::move(entries)); }, parts);
  };
  EXPECT_TRUE(refused({{"k", true}, {"k", false}}, {}, {"a.gguf", "key k is given twice"}));
  const GgufEntry good = {"t", GgufType::f32, {2}};
  EXPECT_TRUE(refused({}, {good, good}, {"tensor t is given twice"}));
  EXPECT_TRUE(refused({}, {{std::string(64, 'n'), GgufType::f32, {2}}}, {"1 to 63 bytes, got 64"}));
  EXPECT_TRUE(refused({}, {{"t", GgufType::f32, {}}}, {"tensor t", "1 to 4 dimensions"}));
  EXPECT_TRUE(refused({}, {{"t", GgufType::f32, {1, 1, 1, 1, 1}}}, {"1 to 4 dimensions"}));
  EXPECT_TRUE(refused({}, {{"t", GgufType::q8_0, {32, 16}}},
                      {"tensor t", "rows must be multiples of 32 for q8_0, got 16"}));

  GgufWriter writer(path, {}, {{"q", GgufType::q4_0, {2, 32}}, good});
  EXPECT_TRUE(throws_with([&] { writer.write(std::vector<float>(16)); }, {"tensor q", "blocks"}));
  EXPECT_TRUE(throws_with([&] { writer.write(std::vector<float>(96)); }, {"at most 64", "got 96"}));
  std::vector<float> bad(32, 0.0F);
  bad[5] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(throws_with([&] { writer.write(bad); },
                          {"a.gguf", "tensor q", "q4_0 cannot hold its values", "finite"}));
  writer.write(std::vector<float>(64, 1.0F));
  EXPECT_TRUE(throws_with([&] { writer.commit(); }, {"tensor t was not written"}));
  writer.write(std::vector<float>(2, 1.0F));
  EXPECT_TRUE(throws_with([&] { writer.write(std::vector<float>(1)); }, {"written already"}));
  EXPECT_FALSE(std::filesystem::exists(path)) << "not before commit()";
}

TEST(Gguf, DamagedFilesAreRefusedByName) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.gguf", bad = folder.path() / "bad.gguf";
  write_some(path);
  const std::string bytes = read_file(path);
  const auto refused = [&](const std::string& text, std::initializer_list<std::string_view> parts) {
    write_file(bad, text);
    return throws_with([&] { GgufFile::open(bad); }, {"bad.gguf"}) &&
           throws_with([&] { GgufFile::open(bad); }, parts);
  };
  EXPECT_TRUE(refused("", {"must begin with GGUF"}));
  EXPECT_TRUE(refused("GGML" + bytes.substr(4), {"must begin with GGUF"}));
  std::string changed = bytes;
  changed[4] = 2;
  EXPECT_TRUE(refused(changed, {"version must be 3, got 2"}));
  // Every cut but those that only take away what fills up the last tensor.
  for (std::size_t size = 0; size + 32 < bytes.size(); size += 1)
    ASSERT_TRUE(refused(bytes.substr(0, size), {})) << size;
  changed = bytes;
  std::memset(changed.data() + 8, 0xff, 8);
  EXPECT_TRUE(refused(changed, {"number of tensors", "must fit the file"}));
}

TEST(Gguf, NamesAndPlacesMustFit) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.gguf";
  GgufWriter writer(path, {{"aa", true}, {"ab", true}},
                    {{"ta", GgufType::f32, {8}}, {"tb", GgufType::f32, {8}}});
  writer.write(std::vector<float>(8));
  writer.write(std::vector<float>(8));
  writer.commit();
  const std::string bytes = read_file(path);
  const auto with = [&](std::size_t at, std::string_view text) {
    std::string out = bytes;
    out.replace(at, text.size(), text);
    write_file(path, out);
    return [&] { GgufFile::open(path); };
  };
  EXPECT_TRUE(throws_with(with(bytes.find("ab"), "aa"), {"a.gguf: key aa must be given once"}));
  const std::size_t second = bytes.find("tb");
  EXPECT_TRUE(throws_with(with(second, "ta"), {"tensor ta: must be given once"}));
  // Behind the name: dimensions (4 bytes), a size (8), the type (4), the offset (8).
  EXPECT_TRUE(
      throws_with(with(second + 2, "\x05"), {"tensor tb: dimensions must be 1 to 4, got 5"}));
  EXPECT_TRUE(
      throws_with(with(second + 6, std::string_view("\0", 1)), {"sizes must be 1 or more"}));
  EXPECT_TRUE(throws_with(with(second + 13, "\x70"), {"tensor tb: sizes"}));
  EXPECT_TRUE(throws_with(with(second + 14, "\x07"), {"type must be F32", "got number 7"}));
  EXPECT_TRUE(throws_with(with(second + 14, "\x08"), {"rows must be multiples of 32, got 8"}));
  EXPECT_TRUE(throws_with(with(second + 18, std::string_view("\0", 1)),
                          {"tensor tb", "must follow on byte 32"}));
  EXPECT_TRUE(throws_with(with(second + 6, "\x10"), {"tensor tb", "got offset 32 and 64 bytes"}));
  const std::size_t key = bytes.find("aa");
  EXPECT_TRUE(throws_with(with(key + 2, "\x0c"), {"key aa: type must be UINT32", "got number 12"}));
}

TEST(Gguf, NothingIsLeftWhenTheDiskIsFull) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.gguf";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {  // a limit on the size of files stands for a full disk
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{8192, 8192};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      GgufWriter writer(path, every_kind(), {{"big", GgufType::f32, {1 << 16}}});
      writer.write(std::vector<float>(1 << 16));
    } catch (const IoError& error) {
      const std::string what = error.what();
      ::_exit(what.find("a.gguf: cannot write: ") == std::string::npos ? 2 : 0);
    }
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace lectern
