#include "data/shards/shard.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/files.h"
#include "data/shards/shard_set.h"
#include "tests/data/synthetic_pages.h"
#include "tests/testing.h"

#include <hdf5.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <set>

namespace lectern {
namespace {

using testing::shard_page;
using testing::synthetic_page;
using testing::TemporaryFolder;
using testing::throws_with;

void expect_equal(const TextUnits& got, const TextUnits& want) {
  EXPECT_EQ(got.texts.values, want.texts.values);
  EXPECT_EQ(got.texts.offsets, want.texts.offsets);
  EXPECT_EQ(got.ids.values, want.ids.values);
  EXPECT_EQ(got.ids.offsets, want.ids.offsets);
  EXPECT_EQ(got.boxes, want.boxes);
}

void expect_equal(const ShardPage& got, const ShardPage& want) {
  EXPECT_EQ(got.id, want.id);
  EXPECT_EQ(got.document, want.document);
  EXPECT_EQ(got.source, want.source);
  EXPECT_EQ(got.number, want.number);
  EXPECT_EQ(got.width, want.width);
  EXPECT_EQ(got.height, want.height);
  EXPECT_EQ(got.dots_per_inch, want.dots_per_inch);
  EXPECT_EQ(got.picture, want.picture);
  EXPECT_EQ(got.text, want.text);
  EXPECT_EQ(got.ids, want.ids);
  expect_equal(got.lines, want.lines);
  expect_equal(got.words, want.words);
  EXPECT_EQ(got.blocks, want.blocks);
  EXPECT_EQ(got.first_word, want.first_word);
  EXPECT_EQ(got.kind, want.kind);
  EXPECT_EQ(got.prompt, want.prompt);
  EXPECT_EQ(got.prompt_ids, want.prompt_ids);
  EXPECT_EQ(got.boxes, want.boxes);
}

/// Pages of several shapes: one without lines, one in colour with boxes and a prompt of its own,
/// one large enough for many chunks.
std::vector<ShardPage> sample_pages() {
  std::vector<ShardPage> pages{
      shard_page(synthetic_page("a", 1)), shard_page(synthetic_page("a", 2, 0, 3)),
      shard_page(synthetic_page("b", 1, 3, 2, true)), shard_page(synthetic_page("c", 9, 40, 6))};
  pages[0].text += "é漢";
  pages[2].kind = "table";
  pages[2].prompt = "<image>\nParse the figure.";
  pages[2].prompt_ids = {5, 7, 11};
  pages[2].boxes = {{"title", {0, 0, 20, 10}}, {"表", {3.5, 4, 3.5, 90}}};
  return pages;
}

std::filesystem::path write_sample(const TemporaryFolder& folder) {
  ShardWriter writer;
  for (const ShardPage& page : sample_pages()) writer.add(page);
  writer.write(folder.path() / "shard-00000.h5", "abc");
  return folder.path() / "shard-00000.h5";
}

void read_everything(const std::filesystem::path& path) {
  const Shard shard(path);
  for (std::int64_t i = 0; i < shard.pages(); ++i) shard.read(i);
  shard.line_table();
  shard.word_table();
}

TEST(Shard, GivesBackWhatWasWritten) {
  const TemporaryFolder folder;
  const std::vector<ShardPage> pages = sample_pages();
  const Shard shard(write_sample(folder));
  ASSERT_EQ(shard.pages(), 4);
  EXPECT_EQ(shard.lines(), 5 + 0 + 3 + 40);
  EXPECT_EQ(shard.words(), 15 + 0 + 6 + 240);
  EXPECT_EQ(shard.tokenizer_sha256(), "abc");
  for (const std::int64_t i : {3, 0, 2, 1}) {
    const auto at = static_cast<std::size_t>(i);
    SCOPED_TRACE(i);
    expect_equal(shard.read(i), pages[at]);
    EXPECT_TRUE(shard.read(i, false).picture.empty());
    EXPECT_EQ(shard.token_count(i), static_cast<std::int64_t>(pages[at].ids.size()));
    EXPECT_EQ(shard.picture_bytes(i), static_cast<std::int64_t>(pages[at].picture.size()));
    EXPECT_EQ(shard.size(i)[0], pages[at].width);
    EXPECT_EQ(shard.size(i)[1], pages[at].height);
    EXPECT_EQ(shard.describe(i).id, pages[at].id);
    EXPECT_EQ(shard.describe(i).picture_sha256,
              sha256_of({reinterpret_cast<const char*>(pages[at].picture.data()),
                         pages[at].picture.size()}));
    EXPECT_EQ(shard.prompt_tokens(i).value_or(-1), i == 2 ? 3 : -1);
  }
  EXPECT_TRUE(throws_with([&] { shard.read(4); }, {"shard-00000.h5", "page must be in 0 .. 3"}));
  EXPECT_TRUE(throws_with([&] { shard.describe(-1); }, {"page must be in 0 .. 3", "got -1"}));
}

TEST(Shard, TablesListAllUnitsWithTheirPages) {
  const TemporaryFolder folder;
  const std::vector<ShardPage> pages = sample_pages();
  const Shard shard(write_sample(folder));
  const UnitTable words = shard.word_table(), lines = shard.line_table();
  EXPECT_EQ(words.first_unit, (std::vector<std::int64_t>{0, 15, 15, 21, 261}));
  EXPECT_EQ(lines.first_unit, (std::vector<std::int64_t>{0, 5, 5, 8, 48}));
  EXPECT_EQ(lines.blocks.size(), 48u);
  EXPECT_EQ(lines.blocks[47], 9);
  EXPECT_EQ(words.units.text(15), pages[2].words.text(0));
  EXPECT_EQ(words.units.ids.length(260), pages[3].words.ids.length(239));
  EXPECT_EQ(lines.units.box(47).top, pages[3].lines.box(39).top);
}

TEST(Shard, EmptyFileAndSameBytesEachTime) {
  const TemporaryFolder folder, other;
  ShardWriter writer;
  writer.write(folder.path() / "empty.h5", "");
  EXPECT_EQ(Shard(folder.path() / "empty.h5").pages(), 0);
  EXPECT_EQ(read_file(write_sample(folder)), read_file(write_sample(other)));
}

TEST(Shard, TruncatedAtAnyPlaceIsAnError) {
  const TemporaryFolder folder;
  const std::filesystem::path path = write_sample(folder), cut = folder.path() / "cut.h5";
  const std::string whole = read_file(path);
  std::vector<std::size_t> places{0, 1, 8, 9, 40, 48, 96, whole.size() - 1};
  for (std::size_t place = 100; place < whole.size(); place += whole.size() / 150)
    places.push_back(place);
  for (const std::size_t place : places) {
    write_file(cut, std::string_view(whole).substr(0, place));
    EXPECT_TRUE(throws_with([&] { read_everything(cut); }, {"cut.h5"})) << place;
  }
}

TEST(Shard, FlippedByteIsAnErrorOrHarmless) {
  const TemporaryFolder folder;
  const std::vector<ShardPage> pages = sample_pages();
  const std::filesystem::path path = write_sample(folder), bad = folder.path() / "bad.h5";
  const std::string whole = read_file(path);
  std::mt19937 random(7);
  int errors = 0;
  constexpr int kTries = 400;
  for (int i = 0; i < kTries; ++i) {
    std::string bytes = whole;
    // Every byte of the head is tried, then places all over the file.
    const std::size_t place = i < 100 ? static_cast<std::size_t>(i) : random() % bytes.size();
    bytes[place] = static_cast<char>(bytes[place] ^ (1 << (random() % 8)));
    write_file(bad, bytes);
    try {
      const Shard shard(bad);
      std::vector<ShardPage> got;
      for (std::int64_t p = 0; p < shard.pages(); ++p) got.push_back(shard.read(p));
      ASSERT_EQ(got.size(), pages.size()) << place;
      for (std::size_t p = 0; p < got.size(); ++p) expect_equal(got[p], pages[p]);
      ASSERT_FALSE(HasFailure()) << place;
    } catch (const IoError& error) {
      EXPECT_NE(std::string(error.what()).find("bad.h5"), std::string::npos);
      ++errors;
    }
  }
  EXPECT_GT(errors, kTries / 2);
}

/// Changes a good file with HDF5 itself, so that all checksums are right.
void alter(const std::filesystem::path& path, const std::function<void(hid_t)>& change) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  change(file);
  ASSERT_GE(H5Fclose(file), 0);
}

/// Sets flat element `index` of a dataset.
template <typename T>
std::function<void(hid_t)> set_value(const char* name, hsize_t index, T value) {
  return [=](hid_t file) {
    const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    const hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    std::vector<T> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    EXPECT_GE(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
    values.at(index) = value;
    EXPECT_GE(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(dataset);
  };
}

std::function<void(hid_t)> set_attribute(const char* name, std::int64_t value) {
  return [=](hid_t file) {
    const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    EXPECT_GE(H5Awrite(attribute, H5T_NATIVE_INT64, &value), 0);
    H5Aclose(attribute);
  };
}

/// Puts another dataset in the place of one.
std::function<void(hid_t)> replace(const char* name, hid_t type, hsize_t rows, hsize_t chunk,
                                   bool checksum, bool deflate) {
  return [=](hid_t file) {
    H5Ldelete(file, name, H5P_DEFAULT);
    const hid_t space = H5Screate_simple(1, &rows, nullptr);
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk > 0) H5Pset_chunk(properties, 1, &chunk);
    if (deflate) H5Pset_deflate(properties, 1);
    if (checksum) H5Pset_fletcher32(properties);
    const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    EXPECT_GE(dataset, 0);
    H5Dclose(dataset);
    H5Pclose(properties);
    H5Sclose(space);
  };
}

// Over 60 lines: a case a line.
TEST(Shard, HostileContentIsAnErrorThatNamesFileAndField) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 60;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  struct Case {
    std::function<void(hid_t)> change;
    std::vector<std::string> parts;
  };
  const std::vector<Case> cases{
      {set_attribute("format_version", 3), {"format_version must be in 1 .. 2, got 3"}},
      {set_attribute("format_version", 0), {"format_version must be in 1 .. 2, got 0"}},
      {set_attribute("format_version", 1), {"/page/png must be in the file"}},
      {set_attribute("pages", kHuge), {"attribute pages", "got 1152921504606846976"}},
      {set_attribute("pages", -1), {"attribute pages", "got -1"}},
      {set_attribute("pages", 3), {"/page/id_offset must have 4 rows, got 5"}},
      {set_attribute("lines", 7), {"/page/first_line"}},
      {set_attribute("words", kHuge), {"attribute words"}},
      {set_attribute("boxes", 1), {"/box/label_offset must have 2 rows, got 3"}},
      {set_value<std::int64_t>("/page/prompt_offset", 3, kHuge), {"/page/prompt_offset[3]"}},
      {set_value<std::int64_t>("/page/prompt_ids_offset", 4, 2), {"/page/prompt_ids_offset[4]"}},
      {set_value<std::int64_t>("/page/kind_offset", 1, -1), {"/page/kind_offset[1]"}},
      {set_value<std::int64_t>("/page/first_box", 3, 3), {"/page/first_box[3]"}},
      {set_value<std::int64_t>("/box/label_offset", 1, kHuge), {"/box/label_offset[1]"}},
      {set_value<float>("/box/box", 2, -1), {"/box/box[0] must be left <= right"}},
      {set_value<float>("/box/box", 2, 9999), {"/box/box[0] must lie in the picture of 164 x 90"}},
      {[](hid_t file) { H5Ldelete(file, "/page/picture_sha256", H5P_DEFAULT); },
       {"/page/picture_sha256 must be in the file"}},
      {set_value<std::int64_t>("/page/picture_offset", 1, -5),
       {"/page/picture_offset[1]", "got -5"}},
      {set_value<std::int64_t>("/page/picture_offset", 2, kHuge), {"/page/picture_offset[2]"}},
      {set_value<std::int64_t>("/page/picture_offset", 4, 10),
       {"/page/picture_offset[4]", "got 10"}},
      {set_value<std::int64_t>("/page/text_offset", 0, 1), {"/page/text_offset must run from 0"}},
      {set_value<std::int64_t>("/page/ids_offset", 1, kHuge), {"/page/ids_offset[1]"}},
      {set_value<std::int64_t>("/page/first_line", 2, 1), {"/page/first_line[2]"}},
      {set_value<std::int64_t>("/page/first_line", 4, 47), {"/page/first_line must run from 0"}},
      {set_value<std::int64_t>("/line/first_word", 48, kHuge), {"/line/first_word[48]"}},
      {set_value<std::int64_t>("/line/text_offset", 7, kHuge), {"/line/text_offset[7]"}},
      {set_value<std::int64_t>("/word/text_offset", 3, -1), {"/word/text_offset[3]"}},
      {set_value<std::int64_t>("/word/text_offset", 0, -1), {"/word/text_offset", "got -1"}},
      {set_value<std::int64_t>("/word/ids_offset", 9, 0), {"/word/ids_offset[9]"}},
      {set_value<float>("/word/box", 4, kNan), {"/word/box[1]", "nan"}},
      {set_value<float>("/line/box", 2, -1e30f), {"/line/box[0]"}},
      {set_value<std::int32_t>("/page/size", 2, 0), {"/page/size[1]", "got 0"}},
      {set_value<std::int32_t>("/page/size", 1, 1 << 30), {"/page/size[0]"}},
      {[](hid_t file) { H5Ldelete(file, "/page/picture", H5P_DEFAULT); }, {"/page/picture"}},
      {[](hid_t file) { H5Ldelete(file, "/word", H5P_DEFAULT); }, {"/word must be in the file"}},
      {[](hid_t file) { H5Adelete(file, "format"); }, {"attribute format must exist"}},
      {[](hid_t file) {
         H5Ldelete(file, "/word/ids", H5P_DEFAULT);
         H5Lcreate_external("/etc/passwd", "/x", file, "/word/ids", H5P_DEFAULT, H5P_DEFAULT);
       },
       {"/word/ids must be in the file"}},
      {[](hid_t file) {
         H5Ldelete(file, "/word/ids", H5P_DEFAULT);
         H5Lcreate_soft("/word/ids", file, "/word/ids", H5P_DEFAULT, H5P_DEFAULT);
       },
       {"/word/ids must be in the file"}},
      {replace("/word/ids", H5T_STD_I64LE, 4, 4, true, false), {"/word/ids must hold i32 values"}},
      {replace("/word/ids", H5T_STD_I32LE, 4, 0, false, false), {"/word/ids must have chunks"}},
      {replace("/word/ids", H5T_STD_I32LE, 4, 4, false, false), {"/word/ids must have checksums"}},
      {replace("/word/ids", H5T_STD_I32LE, hsize_t{1} << 40, hsize_t{1} << 28, true, false),
       {"/word/ids must have chunks of at most"}},
      {replace("/word/ids", H5T_STD_I32LE, hsize_t{1} << 40, 1024, true, true),
       {"/word/ids claims 4398046511104 bytes, got 0 stored"}},
  };
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    const TemporaryFolder folder;
    const std::filesystem::path path = write_sample(folder);
    alter(path, cases[i].change);
    try {
      read_everything(path);
      ADD_FAILURE() << "no error; expected " << cases[i].parts[0];
    } catch (const IoError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("shard-00000.h5"), std::string::npos) << message;
      for (const std::string& part : cases[i].parts)
        EXPECT_NE(message.find(part), std::string::npos) << message;
    }
  }
}

TEST(Shard, OtherFilesAreRefused) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "shard-00000.h5";
  EXPECT_TRUE(throws_with([&] { Shard shard(path); }, {"shard-00000.h5", "regular file"}));
  EXPECT_TRUE(throws_with([&] { Shard shard(folder.path()); }, {"regular file"}));
  write_file(path, "");
  EXPECT_TRUE(throws_with([&] { Shard shard(path); }, {"must be an HDF5 file"}));
  write_file(path, "hello, I am not HDF5 at all");
  EXPECT_TRUE(throws_with([&] { Shard shard(path); }, {"must be an HDF5 file"}));
  // The old format has no checksums on its metadata.
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  H5Fclose(file);
  EXPECT_TRUE(
      throws_with([&] { Shard shard(path); }, {"superblock version must be 2 or 3", "got 0"}));
}

/// tests/fixtures/shards/format1 was written by `lectern data shards` before format 2.
TEST(Shard, FormatOneIsStillRead) {
  const ShardSet set(testing::fixture("shards/format1"));
  EXPECT_EQ(set.tokenizer_sha256(), testing::test_tokenizer_sha256());
  ASSERT_EQ(set.pages(), 2);
  std::set<std::string> texts;
  for (std::int64_t i = 0; i < 2; ++i) {
    const auto got = set.decoded(i);
    const ShardPage& page = got->page;
    texts.insert(page.text);
    EXPECT_EQ(page.id, fmt::format("format1/{:04}", page.number));
    EXPECT_EQ(page.kind, "page");
    EXPECT_EQ(page.prompt, "");
    EXPECT_EQ(page.picture_sha256.size(), 64u) << "the file has none: it is made of the picture";
    EXPECT_EQ(page.picture_sha256, set.read(i)->page.picture_sha256);
    EXPECT_NE(page.picture_sha256, set.read(1 - i)->page.picture_sha256);
    EXPECT_TRUE(page.boxes.empty());
    EXPECT_FALSE(set.prompt_tokens(i).has_value());
    EXPECT_EQ(page.ids, testing::test_tokenizer().encode(page.text));
    ASSERT_EQ(page.lines.size(), 2);
    EXPECT_EQ(page.words.text(0), page.number == 1 ? "old" : "second");
    EXPECT_EQ(page.words.box(0).left, 8);
    const Image picture = got->crop(8, 6, 1, 1);
    EXPECT_EQ(picture.pixels[0], 37 * page.number);
  }
  EXPECT_EQ(texts, (std::set<std::string>{"old page\none two", "second page\nthree"}));
}

TEST(Shard, TextAloneHasNoPicture) {
  const TemporaryFolder folder;
  ShardPage text;
  text.id = "t/1";
  text.text = "said";
  text.ids = {3};
  ShardWriter writer;
  writer.add(text);
  writer.write(folder.path() / "shard-00000.h5", "");
  const std::filesystem::path path = folder.path() / "shard-00000.h5";
  {
    const Shard shard(path);
    expect_equal(shard.read(0), text);
    EXPECT_FALSE(shard.read(0).has_picture());
    EXPECT_EQ(shard.picture_bytes(0), 0);
    const ShardSet set(folder.path());
    EXPECT_EQ(set.read(0)->page.text, "said");
    EXPECT_TRUE(throws_with([&] { set.decoded(0); }, {"shard-00000.h5", "t/1"}));
  }
  alter(path, set_value<std::int32_t>("/page/size", 1, 4));
  EXPECT_TRUE(throws_with([&] { Shard bad(path); }, {"/page/size[0] must be in 0 .. 0, got 4"}));
}

TEST(Shard, WriterRefusesRecordsThatDoNotHoldTogether) {
  const auto refused = [](const std::function<void(ShardPage&)>& change,
                          std::initializer_list<std::string_view> parts) {
    ShardPage page = shard_page(synthetic_page("d", 1));  // 236 x 130
    change(page);
    ShardWriter writer;
    const bool right = throws_with([&] { writer.add(page); }, parts);
    EXPECT_EQ(writer.pages(), 0);
    return right;
  };
  const auto box = [](const Box& at) {
    return [at](ShardPage& page) { page.boxes = {{"table", at}}; };
  };
  EXPECT_TRUE(refused([](ShardPage& p) { p.id = ""; }, {"id must not be empty"}));
  EXPECT_TRUE(refused([](ShardPage& p) { p.kind = std::string(5000, 'k'); },
                      {"\"d/0001\"", "kind must have at most 4096 bytes, got 5000"}));
  EXPECT_TRUE(refused([](ShardPage& p) { p.width = 0; }, {"of a picture must be in 1 .. 65536"}));
  EXPECT_TRUE(refused([](ShardPage& p) { p.picture.clear(); },
                      {"without a picture must be in 0 .. 0, got 236 x 130"}));
  EXPECT_TRUE(refused([](ShardPage& p) { p.prompt = "Read <image>"; }, {"<image> once at most"}));
  EXPECT_TRUE(refused([](ShardPage& p) { p.prompt = "<image><image>"; }, {"<image> once at most"}));
  EXPECT_TRUE(refused(
      [](ShardPage& p) {
        p.picture.clear();
        p.width = p.height = 0;
        p.prompt = "<image>";
      },
      {"no <image> without a picture"}));
  EXPECT_TRUE(refused(box({-1, 0, 5, 5}), {"box \"table\" must be", "236 x 130", "got -1 0 5 5"}));
  EXPECT_TRUE(refused(box({0, 0, 237, 5}), {"got 0 0 237 5"}));
  EXPECT_TRUE(refused(box({9, 0, 5, 5}), {"got 9 0 5 5"}));
  EXPECT_TRUE(refused(box({0, 0, std::nan(""), 5}), {"got 0 0 nan 5"}));
  EXPECT_TRUE(refused([](ShardPage& p) { p.boxes = {{"", {0, 0, 5, 5}}}; }, {"must have a label"}));
  EXPECT_TRUE(
      refused([](ShardPage& p) { p.blocks.pop_back(); }, {"blocks must be", "5 lines, got 4"}));
  EXPECT_TRUE(refused([](ShardPage& p) { p.first_word.back() = 99; }, {"first_word", "15 words"}));
}

TEST(Shard, WriterReportsWhereItCannotWrite) {
  ShardWriter writer;
  EXPECT_TRUE(throws_with([&] { writer.write("/nonexistent/shard.h5", ""); },
                          {"/nonexistent/shard.h5", "cannot be created"}));
}

TEST(ShardSet, ReadsPagesOfAllFilesAndDecodesThem) {
  const TemporaryFolder folder;
  testing::write_shards(folder.path(), 3, 2);
  const ShardSet set(folder.path(), 1);  // room for one page only
  ASSERT_EQ(set.pages(), 6);
  EXPECT_EQ(set.shards(), 3);
  for (const std::int64_t page : {5, 0, 3, 3, 0}) {
    const testing::SyntheticPage want = synthetic_page("doc", page + 1);
    const auto got = set.decoded(page);
    EXPECT_EQ(got->page.id, fmt::format("doc/{:04}", page + 1));
    EXPECT_TRUE(got->grey);
    EXPECT_EQ(got->crop(0, 0, want.page.width, want.page.height).pixels, want.image.pixels);
    EXPECT_EQ(got->crop(-3, -2, 40, 50).pixels, crop(want.image, -3, -2, 40, 50).pixels);
    EXPECT_EQ(set.read(page)->page.text, want.page.text);
    EXPECT_EQ(set.token_count(page), static_cast<std::int64_t>(got->page.ids.size()));
  }
  EXPECT_TRUE(throws_with([&] { set.decoded(6); }, {"page must be in 0 .. 5, got 6"}));
}

TEST(ShardSet, ColouredPagesKeepTheirColour) {
  const TemporaryFolder folder;
  const testing::SyntheticPage page = synthetic_page("d", 1, 3, 2, true);
  ShardWriter writer;
  writer.add(shard_page(page));
  writer.write(folder.path() / "shard-00000.h5", "");
  const ShardSet set(folder.path());
  EXPECT_FALSE(set.decoded(0)->grey);
  EXPECT_EQ(set.decoded(0)->crop(5, 5, 60, 30).pixels, crop(page.image, 5, 5, 60, 30).pixels);
}

TEST(ShardSet, RefusesFoldersThatDoNotFit) {
  const TemporaryFolder folder;
  EXPECT_TRUE(throws_with([&] { ShardSet set(folder.path()); }, {"must hold shard-*.h5"}));
  EXPECT_TRUE(throws_with([&] { ShardSet set(folder.path() / "none"); }, {"cannot be listed"}));
  const std::filesystem::path train = folder.path() / "train";
  testing::write_shards(train, 2, 1);
  ShardWriter writer;
  writer.add(shard_page(synthetic_page("z", 1)));
  writer.write(train / "shard-00002.h5", "another");
  EXPECT_TRUE(throws_with([&] { ShardSet set(train); },
                          {"shard-00002.h5", "tokenizer_sha256 must be", "got another"}));
  std::filesystem::remove(train / "shard-00002.h5");
  write_file(folder.path() / "manifest.json",
             R"({"splits":{"train":{"shards":[{"file":"shard-00000.h5"},{"file":"shard-00001.h5"},
                 {"file":"shard-00002.h5"}]}}})");
  EXPECT_TRUE(throws_with([&] { ShardSet set(train); }, {"manifest.json", "names 3 shards"}));
}

TEST(ShardSet, WrongPicturesAreErrors) {
  const TemporaryFolder folder;
  ShardPage small = shard_page(synthetic_page("d", 1)), broken = shard_page(synthetic_page("d", 2));
  small.width += 1;
  broken.picture.resize(broken.picture.size() / 2);
  ShardWriter writer;
  writer.add(small);
  writer.add(broken);
  writer.write(folder.path() / "shard-00000.h5", "");
  const ShardSet set(folder.path());
  for (int i = 0; i < 2; ++i)  // a failed page is not kept as if it were there
    EXPECT_TRUE(throws_with([&] { set.decoded(0); }, {"d/0001", "image must be 237 x 130"}));
  EXPECT_TRUE(throws_with([&] { set.decoded(1); }, {"shard-00000.h5", "d/0002"}));
}

}  // namespace
}  // namespace lectern
