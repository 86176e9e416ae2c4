#include "core/io/safetensors.h"

#include "core/io/file.h"
#include "tests/testing.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::TemporaryFolder;
using testing::throws_with;

/// The bytes of a file with this header and this much data.
std::string file_bytes(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), 8);
  return out + header + std::string(data_bytes, '\0');
}

class Safetensors : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& bytes) {
    const auto path = folder_.path() / "test.safetensors";
    write_file(path, bytes);
    return path;
  }
  ::testing::AssertionResult refused(const std::string& bytes,
                                     std::initializer_list<std::string_view> parts) {
    const auto path = write(bytes);
    const auto named = throws_with([&] { SafetensorsFile::open(path); }, {path.string()});
    return named ? throws_with([&] { SafetensorsFile::open(path); }, parts) : named;
  }
  /// One tensor "a" with this description, and data.
  ::testing::AssertionResult refused_entry(const std::string& entry, std::size_t data_bytes,
                                           std::initializer_list<std::string_view> parts) {
    return refused(file_bytes("{\"a\":" + entry + "}", data_bytes), parts);
  }
  TemporaryFolder folder_;
};

TEST_F(Safetensors, RoundTrip) {
  const auto path = folder_.path() / "round.safetensors";
  const Tensor f32 = random_tensor({3, 5}, 1), strided = random_tensor({4, 6}, 2).transpose(0, 1);
  const Tensor bf16 = random_tensor({7}, 3).to(DType::bf16), u8 = Tensor::full({3}, 200, DType::u8);
  const Tensor i64 = Tensor::full({}, -5, DType::i64), none = Tensor::zeros({0, 4}, DType::i32);
  save_safetensors(path,
                   {{"z", f32}, {"s", strided}, {"b", bf16}, {"u", u8}, {"i", i64}, {"n", none}},
                   {{"format", "pt"}, {"note", "a \"quoted\" one"}});
  const auto file = SafetensorsFile::open(path);
  EXPECT_EQ(file.names(), (std::vector<std::string>{"b", "i", "n", "s", "u", "z"}));
  EXPECT_EQ(file.metadata().at("note"), "a \"quoted\" one");
  EXPECT_TRUE(near(file.get("z"), f32, 0));
  EXPECT_TRUE(near(file.get("s"), strided, 0));
  EXPECT_TRUE(near(file.get("b"), bf16, 0));
  EXPECT_EQ(file.dtype_of("b"), DType::bf16);
  EXPECT_EQ(file.get("u").data<std::uint8_t>()[2], 200);
  EXPECT_EQ(file.get("i").item(), -5);
  EXPECT_EQ(file.shape_of("n"), (Shape{0, 4}));
  EXPECT_EQ(file.get("n").numel(), 0);
}

TEST_F(Safetensors, TensorsStayMappedAfterTheFileObjectIsGone) {
  const auto path = folder_.path() / "mapped.safetensors";
  const Tensor value = random_tensor({1000}, 1);
  save_safetensors(path, {{"first", value}, {"second", value}});
  Tensor first, second;
  {
    const auto file = SafetensorsFile::open(path);
    first = file.get("first");
    second = file.get("second");
    EXPECT_EQ(file.get("first").raw(), first.raw()) << "no copy: same address each time";
  }
  EXPECT_EQ(static_cast<char*>(second.raw()) - static_cast<char*>(first.raw()), 4000)
      << "neighbours in the file are neighbours in the mapping";
  EXPECT_TRUE(near(second, value, 0));
  // A stray write reaches neither the file nor another mapping of it.
  first.data<float>()[0] = 77;
  EXPECT_TRUE(near(SafetensorsFile::open(path).get("first"), value, 0));
}

TEST_F(Safetensors, UnalignedDataIsCopied) {
  // A header of 7 mod 8 bytes: its tensor starts at an odd address.
  std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  while (header.size() % 8 != 7) header += ' ';
  const auto file = SafetensorsFile::open(write(file_bytes(header, 4)));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.get("a").raw()) % 4, 0u);
  EXPECT_EQ(file.get("a").item(), 0);
}

TEST_F(Safetensors, ReadsAFixtureOfTheReferenceWriter) {
  const auto folder = SafetensorsFolder::open(testing::fixture(testing::first_family() + "_A"));
  EXPECT_TRUE(folder.contains("lm_head.weight"));
  EXPECT_EQ(folder.get("lm_head.weight").ndim(), 2);
  EXPECT_TRUE(throws_with([&] { folder.get("nothing"); }, {"has no tensor nothing"}));
}

// Every value of half precision, against its definition.
TEST_F(Safetensors, HalfPrecisionIsGivenAsF32) {
  const std::string header = R"({"h":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]}})";
  std::string bytes = file_bytes(header, 0);
  for (int half = 0; half < 65536; ++half) {
    bytes += static_cast<char>(half & 0xff);
    bytes += static_cast<char>(half >> 8);
  }
  const auto file = SafetensorsFile::open(write(bytes));
  EXPECT_EQ(file.dtype_of("h"), DType::f32);
  EXPECT_EQ(file.shape_of("h"), (Shape{65536}));
  EXPECT_FALSE(file.get_joined({"h"}, {65536})) << "there is nothing to map";
  const Tensor got = file.get("h");
  ASSERT_EQ(got.dtype(), DType::f32);
  for (int half = 0; half < 65536; ++half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const double sign = half & 0x8000 ? -1 : 1;
    const float value = got.data<float>()[half];
    if (exponent == 31 && fraction != 0) {
      ASSERT_TRUE(std::isnan(value)) << half;
      continue;
    }
    const double want = exponent == 31  ? sign * std::numeric_limits<double>::infinity()
                        : exponent == 0 ? sign * std::ldexp(fraction, -24)
                                        : sign * std::ldexp(1024 + fraction, exponent - 25);
    ASSERT_EQ(static_cast<double>(value), want) << half;
    ASSERT_EQ(std::signbit(value), sign < 0) << half;
  }
}

// A file may hold what nobody reads; who does is told.
TEST_F(Safetensors, OtherDTypesMayLieInAFile) {
  const auto file = SafetensorsFile::open(
      write(file_bytes(R"({"flag":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]},)"
                       R"("w":{"dtype":"F8_E4M3","shape":[5],"data_offsets":[3,8]},)"
                       R"("x":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
                       16)));
  EXPECT_EQ(file.names(), (std::vector<std::string>{"flag", "w", "x"}));
  EXPECT_EQ(file.shape_of("flag"), (Shape{3}));
  EXPECT_EQ(file.get("x").numel(), 2);
  const std::string path = file.path().string();
  EXPECT_TRUE(throws_with([&] { file.get("flag"); },
                          {path, "tensor flag: dtype must be F64, F32, F16", "got \"BOOL\""}));
  EXPECT_TRUE(throws_with([&] { file.dtype_of("w"); },
                          {path, "tensor w: dtype must be", "got \"F8_E4M3\"; quantized weights"}));
  EXPECT_TRUE(refused_entry(R"({"dtype":"I16","shape":[2],"data_offsets":[0,2]})", 2,
                            {"data_offsets must span I16 [2], got 2 bytes"}));
}

TEST_F(Safetensors, OtherFormatsAreNamedWithTheWayOut) {
  const auto opened = [&](std::initializer_list<std::string_view> parts) {
    return throws_with([&] { SafetensorsFolder::open(folder_.path()); }, parts);
  };
  EXPECT_TRUE(opened({"must have model.safetensors or model.safetensors.index.json, got neither"}));
  write_file(folder_.path() / "pytorch_model.bin", "PK");
  write_file(folder_.path() / "training_args.bin", "PK");
  EXPECT_TRUE(opened({folder_.path().string(), "weights must be in model.safetensors",
                      "got pytorch_model.bin", "python3 -c", "save_file"}));
  EXPECT_TRUE(throws_with(
      [&] { SafetensorsFolder::open(folder_.path() / "pytorch_model.bin"); },
      {"weights must be in a .safetensors file", "got pytorch_model.bin", "save_file"}));
  write_file(folder_.path() / "adapter_model.safetensors", "");
  EXPECT_TRUE(opened({"got adapter_model.safetensors", "merge"}));
  save_safetensors(folder_.path() / "model.safetensors", {{"a", Tensor::zeros({1})}});
  EXPECT_TRUE(SafetensorsFolder::open(folder_.path()).contains("a"));
  EXPECT_TRUE(refused("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n",
                      {"got a Git LFS pointer", "git lfs pull"}));
}

TEST_F(Safetensors, HostileHeaders) {
  EXPECT_TRUE(refused("", {"header length must be 8 bytes, got a file of 0 bytes"}));
  EXPECT_TRUE(refused("1234567", {"got a file of 7 bytes"}));
  const std::string good =
      file_bytes(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2);
  EXPECT_EQ(SafetensorsFile::open(write(good)).get("a").numel(), 2);
  EXPECT_TRUE(refused(good.substr(0, 30), {"header length must fit the file of 30 bytes"}));
  std::string lie = good;
  std::memset(lie.data(), 0xff, 8);
  EXPECT_TRUE(refused(lie, {"header length must fit", "got 18446744073709551615"}));
  EXPECT_TRUE(refused(good + "x", {"data must be 2 bytes as the header says, got 3"}));
  EXPECT_TRUE(refused(good.substr(0, good.size() - 1), {"tensor a: data_offsets", "within 1"}));
  EXPECT_TRUE(refused(file_bytes("[]", 0), {"header must be a JSON object"}));
  EXPECT_TRUE(refused(file_bytes("{", 0), {"not valid JSON"}));
  EXPECT_TRUE(refused(file_bytes("{\"a\":\xff}", 0), {"not valid JSON"}));
  EXPECT_TRUE(refused(file_bytes(std::string(5000, '['), 0), {"nest at most"}));
  EXPECT_TRUE(refused(file_bytes(R"({"__metadata__":{"a":1}})", 0), {"__metadata__.a"}));
  EXPECT_TRUE(refused(file_bytes(R"({"__metadata__":[]})", 0), {"__metadata__ must be"}));
}

TEST_F(Safetensors, HostileEntries) {
  EXPECT_TRUE(refused_entry("3", 0, {"tensor a: needs dtype"}));
  EXPECT_TRUE(refused_entry(R"({"dtype":"F32","shape":[1]})", 4, {"tensor a: needs dtype"}));
  EXPECT_TRUE(refused_entry(R"({"dtype":"F4","shape":[1],"data_offsets":[0,1]})", 1,
                            {"tensor a: dtype must be F64, F32, F16, BF16", "got \"F4\"",
                             "quantized weights are not read"}));
  const auto shape = [&](const std::string& sizes, std::initializer_list<std::string_view> parts) {
    return refused_entry(R"({"dtype":"F32","shape":)" + sizes + R"(,"data_offsets":[0,4]})", 4,
                         parts);
  };
  EXPECT_TRUE(shape("[-1]", {"shape must hold sizes of 0 or more, got -1"}));
  EXPECT_TRUE(shape("[1.0]", {"shape must hold"}));
  EXPECT_TRUE(shape("[\"1\"]", {"shape must hold"}));
  EXPECT_TRUE(shape("[NaN]", {"not valid JSON"}));
  EXPECT_TRUE(shape("[1e400]", {"not valid JSON"}));
  EXPECT_TRUE(shape("[18446744073709551615]", {"shape must hold"}));
  EXPECT_TRUE(shape("[1,1,1,1,1,1,1,1,1]", {"at most 8 dimensions, got 9"}));
  EXPECT_TRUE(shape("[2]", {"data_offsets must span f32 [2], got 4 bytes"}));
  // 2^62 * 4 = 2^64, which would wrap to 0; 2^31 * 2^31 * 4 as well.
  EXPECT_TRUE(shape("[4611686018427387904]", {"data_offsets must span"}));
  EXPECT_TRUE(shape("[2147483648,2147483648]", {"data_offsets must span"}));
  const auto offsets = [&](const std::string& pair, std::initializer_list<std::string_view> parts) {
    return refused_entry(R"({"dtype":"F32","shape":[1],"data_offsets":)" + pair + "}", 4, parts);
  };
  EXPECT_TRUE(offsets("[4,8]", {"must follow on byte 0 and end within 4, got [4, 8]"}));
  EXPECT_TRUE(offsets("[0,18446744073709551615]", {"must follow on byte 0"}));
  EXPECT_TRUE(offsets("[4,0]", {"must follow on byte 0"}));
  EXPECT_TRUE(offsets("[0]", {"data_offsets must be [begin, end]"}));
  EXPECT_TRUE(offsets("[-4,0]", {"data_offsets must be [begin, end]"}));
}

TEST_F(Safetensors, OverlapGapAndDuplicate) {
  const auto two = [](const std::string& second_name, const std::string& second) {
    return file_bytes(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},")" + second_name +
                          R"(":{"dtype":"F32","shape":[1],"data_offsets":)" + second + "}}",
                      8);
  };
  EXPECT_TRUE(SafetensorsFile::open(write(two("b", "[4,8]"))).contains("b"));
  EXPECT_TRUE(refused(two("b", "[0,4]"), {"tensor b: data_offsets must follow on byte 4"}));
  EXPECT_TRUE(refused(two("b", "[2,6]"), {"tensor b: data_offsets must follow on byte 4"}));
  EXPECT_TRUE(refused(two("b", "[5,9]"), {"must follow on byte 4"}));
  EXPECT_TRUE(refused(two("a", "[4,8]"), {"key \"a\" must be given once"}));
}

TEST_F(Safetensors, EmptyTensorsOfAbsurdShape) {
  const auto path = write(file_bytes(
      R"({"a":{"dtype":"U8","shape":[0,4611686018427387904,1],"data_offsets":[0,0]}})", 0));
  EXPECT_EQ(SafetensorsFile::open(path).get("a").numel(), 0);
}

TEST_F(Safetensors, FolderOfShards) {
  const Tensor a = random_tensor({2}, 1), b = random_tensor({3}, 2);
  save_safetensors(folder_.path() / "model-1.safetensors", {{"a", a}});
  save_safetensors(folder_.path() / "model-2.safetensors", {{"b", b}});
  const auto index = folder_.path() / "model.safetensors.index.json";
  const auto write_index = [&](const std::string& map) {
    write_file(index, "{\"weight_map\":" + map + "}");
  };
  write_index(R"({"a":"model-1.safetensors","b":"model-2.safetensors"})");
  const auto shards = SafetensorsFolder::open(folder_.path());
  EXPECT_EQ(shards.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(near(shards.get("b"), b, 0));
  const auto refused_index = [&](const std::string& map, std::string_view part) {
    write_index(map);
    return throws_with([&] { SafetensorsFolder::open(folder_.path()); }, {part});
  };
  EXPECT_TRUE(refused_index(R"({"b":"model-1.safetensors"})", "which has no such tensor"));
  EXPECT_TRUE(refused_index(R"({"a":"model-3.safetensors"})", "cannot open"));
  EXPECT_TRUE(refused_index(R"({"a":"../model-1.safetensors"})", "must be a file name"));
  EXPECT_TRUE(refused_index(R"({"a":1})", "must be a file name"));
  EXPECT_TRUE(refused_index("[]", "weight_map must be an object"));
  EXPECT_TRUE(throws_with([&] { SafetensorsFolder::open(folder_.path() / "none"); },
                          {"must have model.safetensors", "got neither"}));
}

TEST_F(Safetensors, SavingTheSameNameTwiceLeavesNoFile) {
  const auto path = folder_.path() / "twice.safetensors";
  const Tensor a = Tensor::zeros({2});
  EXPECT_TRUE(throws_with(
      [&] {
        save_safetensors(path, {{"a", a}, {"a", a}});
      },
      {"tensor a is given twice"}));
  EXPECT_TRUE(throws_with([&] { save_safetensors(path, {{"\xff", a}}); }, {"UTF-8"}));
  EXPECT_TRUE(throws_with(
      [&] {
        save_safetensors(path, {{"__metadata__", a}});
      },
      {"__metadata__"}));
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(Safetensors, NeighboursAreJoinedWithoutACopy) {
  const auto path = folder_.path() / "joined.safetensors";
  const Tensor whole = random_tensor({6, 4}, 1);
  const auto rows = [&](std::int64_t a, std::int64_t b) { return whole.slice(0, a, b); };
  save_safetensors(path, {{"q", rows(0, 3)},
                          {"k", rows(3, 4)},
                          {"v", rows(4, 6)},
                          {"half", rows(0, 2).to(DType::bf16)},
                          {"last", rows(2, 6)}});
  Tensor joined;
  {
    const auto file = SafetensorsFile::open(path);
    joined = *file.get_joined({"q", "k", "v"}, {6, 4});
    EXPECT_EQ(joined.raw(), file.get("q").raw());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(joined.raw()) % 64, 0u) << "our writer aligns";
    EXPECT_TRUE(file.get_joined({"k", "v"}, {12}).has_value());
    EXPECT_FALSE(file.get_joined({"k", "q", "v"}, {6, 4}).has_value()) << "another order";
    EXPECT_FALSE(file.get_joined({"q", "v"}, {5, 4}).has_value()) << "a gap";
    EXPECT_FALSE(file.get_joined({"v", "half"}, {4, 4}).has_value()) << "two dtypes";
    EXPECT_FALSE(file.get_joined({"q", "k"}, {5, 4}).has_value()) << "too few";
    EXPECT_FALSE(file.get_joined({}, {0}).has_value());
    EXPECT_FALSE(file.get_joined({"q"}, {std::int64_t{1} << 40, std::int64_t{1} << 40}));
    EXPECT_TRUE(throws_with([&] { file.get_joined({"q", "x"}, {6, 4}); }, {"has no tensor x"}));
  }
  EXPECT_TRUE(near(joined, whole, 0)) << "the mapping outlives the file object";
}

TEST_F(Safetensors, UnalignedNeighboursAreNotJoined) {
  std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  while (header.size() % 8 != 7) header += ' ';
  EXPECT_FALSE(SafetensorsFile::open(write(file_bytes(header, 4))).get_joined({"a"}, {1}));
}

TEST_F(Safetensors, ReleasedPagesAreReadAgain) {
  const auto path = folder_.path() / "released.safetensors";
  const Tensor value = random_tensor({5000}, 1);
  save_safetensors(path, {{"a", value}, {"b", value}, {"none", Tensor::zeros({0})}});
  const auto folder = SafetensorsFolder::open(folder_.path(), "released");
  const Tensor before = folder.get("a");
  for (const char* name : {"a", "b", "none"}) folder.release(name);
  EXPECT_TRUE(near(before, value, 0));
  EXPECT_TRUE(near(folder.get("b"), value, 0));
}

TEST_F(Safetensors, TensorsOfTwoShardsAreNotJoined) {
  const Tensor value = random_tensor({4}, 1);
  save_safetensors(folder_.path() / "m-1.safetensors", {{"a", value}, {"b", value}});
  save_safetensors(folder_.path() / "m-2.safetensors", {{"c", value}});
  write_file(folder_.path() / "m.safetensors.index.json",
             R"({"weight_map":{"a":"m-1.safetensors","b":"m-1.safetensors",)"
             R"("c":"m-2.safetensors"}})");
  const auto folder = SafetensorsFolder::open(folder_.path(), "m");
  EXPECT_TRUE(folder.get_joined({"a", "b"}, {8}).has_value());
  EXPECT_FALSE(folder.get_joined({"b", "c"}, {8}).has_value());
  EXPECT_EQ(folder.shape_of("c"), (Shape{4}));
  EXPECT_EQ(folder.dtype_of("c"), DType::f32);
}

TEST_F(Safetensors, WrittenOneTensorAtATime) {
  const auto path = folder_.path() / "stream.safetensors";
  const Tensor a = random_tensor({3, 2}, 1), b = random_tensor({5}, 2).to(DType::bf16);
  const std::vector<SafetensorsWriter::Entry> entries = {{"a", DType::f32, {3, 2}},
                                                         {"b", DType::bf16, {5}}};
  {
    SafetensorsWriter writer(path, entries);
    writer.write(a);
    EXPECT_TRUE(throws_with([&] { writer.commit(); }, {path.string(), "b was not written"}));
  }
  EXPECT_FALSE(std::filesystem::exists(path)) << "nothing until it is whole";
  SafetensorsWriter writer(path, entries);
  writer.write(a);
  EXPECT_TRUE(throws_with([&] { writer.write(a); }, {"tensor b must be bf16 [5], got f32 [3, 2]"}));
  SafetensorsWriter again(path, entries);
  again.write(a);
  again.write(b);
  EXPECT_TRUE(throws_with([&] { again.write(b); }, {"all 2 tensors are written"}));
  again.commit();
  const auto file = SafetensorsFile::open(path);
  EXPECT_TRUE(near(file.get("a"), a, 0));
  EXPECT_TRUE(near(file.get("b"), b, 0));
}

/// A sparse file: five gigabytes of zeros that the disk never stores, and one value behind them.
TEST_F(Safetensors, OffsetsBeyondThirtyTwoBits) {
  constexpr std::uint64_t kZeros = std::uint64_t{5} << 30;
  const std::string header =
      fmt::format(R"({{"zeros":{{"dtype":"BF16","shape":[{0}],"data_offsets":[0,{1}]}},)"
                  R"("last":{{"dtype":"F32","shape":[2],"data_offsets":[{1},{2}]}}}})",
                  kZeros / 2, kZeros, kZeros + 8);
  const auto path = write(file_bytes(header, 0));
  std::filesystem::resize_file(path, 8 + header.size() + kZeros + 8);
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const float values[2] = {1.5F, -2.5F};
    file.seekp(static_cast<std::streamoff>(8 + header.size() + kZeros));
    file.write(reinterpret_cast<const char*>(values), sizeof values);
  }
  const auto file = SafetensorsFile::open(path);
  EXPECT_EQ(file.get("last").data<float>()[1], -2.5F);
  const Tensor zeros = file.get("zeros");
  EXPECT_EQ(zeros.numel(), static_cast<std::int64_t>(kZeros / 2));
  const std::int64_t end = zeros.numel();
  EXPECT_EQ(zeros.slice(0, end - 1, end).item(), 0);
}

}  // namespace
}  // namespace lectern
