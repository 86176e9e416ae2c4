#include "recipes/log/tensorboard.h"

#include "core/error.h"
#include "core/io/file.h"
#include "recipes/log/crc32c.h"
#include "tests/testing.h"

#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

namespace lectern {
namespace {

using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

// RFC 3720 appendix B.4, and the check value of the CRC catalogue.
TEST(Crc32c, PublishedVectors) {
  std::string rising, falling;
  for (int i = 0; i < 32; ++i) {
    rising += static_cast<char>(i);
    falling += static_cast<char>(31 - i);
  }
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(rising), 0x46dd794eu);
  EXPECT_EQ(crc32c(falling), 0x113fdb5cu);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

/// A message parsed by protobuf's own schema-less parser.
class Message {
 public:
  explicit Message(const std::string& bytes) : fields_(std::make_shared<UnknownFieldSet>()) {
    EXPECT_TRUE(fields_->ParseFromString(bytes));
  }
  int count() const { return fields_->field_count(); }
  const UnknownField& at(int index) const { return fields_->field(index); }
  const UnknownField& field(int number) const {
    for (int i = 0; i < count(); ++i)
      if (at(i).number() == number) return at(i);
    throw Error("no field " + std::to_string(number));
  }
  Message below(int number) const { return Message(field(number).length_delimited()); }

 private:
  std::shared_ptr<UnknownFieldSet> fields_;
};

std::vector<std::string> records(const std::string& file) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < file.size();) {
    std::uint64_t length = 0;
    std::uint32_t length_crc = 0, crc = 0;
    EXPECT_LE(at + 12, file.size());
    std::memcpy(&length, file.data() + at, 8);
    std::memcpy(&length_crc, file.data() + at + 8, 4);
    EXPECT_EQ(length_crc, masked_crc32c(file.substr(at, 8)));
    out.push_back(file.substr(at + 12, length));
    std::memcpy(&crc, file.data() + at + 12 + length, 4);
    EXPECT_EQ(crc, masked_crc32c(out.back()));
    at += 16 + length;
  }
  return out;
}

TEST(TensorBoard, ScalarsParseBack) {
  const Message event(scalar_event(12.5, 300, {{"loss", 2.25}, {"lr", 1e-4}}));
  EXPECT_EQ(std::bit_cast<double>(event.field(1).fixed64()), 12.5);
  EXPECT_EQ(event.field(2).varint(), 300u);
  const Message summary = event.below(5);
  ASSERT_EQ(summary.count(), 2);
  const Message loss(summary.at(0).length_delimited());
  EXPECT_EQ(loss.field(1).length_delimited(), "loss");
  EXPECT_EQ(std::bit_cast<float>(loss.field(2).fixed32()), 2.25f);
  const Message rate(summary.at(1).length_delimited());
  EXPECT_EQ(std::bit_cast<float>(rate.field(2).fixed32()), 1e-4f);
}

TEST(TensorBoard, TextParsesBack) {
  const Message value = Message(text_event(1, 2, "config", "**bold**")).below(5).below(1);
  EXPECT_EQ(value.field(1).length_delimited(), "config");
  EXPECT_EQ(value.below(9).below(1).field(1).length_delimited(), "text");
  const Message tensor = value.below(8);
  EXPECT_EQ(tensor.field(1).varint(), 7u);
  EXPECT_EQ(tensor.field(8).length_delimited(), "**bold**");
  EXPECT_EQ(tensor.below(2).below(2).field(1).varint(), 1u);
}

TEST(TensorBoard, FileIsFramedAndStartsWithItsVersion) {
  testing::TemporaryFolder folder;
  std::filesystem::path first, second;
  {
    EventWriter writer(folder.path());
    first = writer.path();
    writer.scalars(1, {{"loss", 3}});
    writer.text(1, "note", std::string(100000, 'x'));
    const auto before = records(read_file(first));  // flushed record by record
    EXPECT_EQ(before.size(), 3u);
    EventWriter resumed(folder.path(), 7);
    second = resumed.path();
  }
  EXPECT_NE(first, second);
  EXPECT_EQ(first.filename().string().substr(0, 20), "events.out.tfevents.");
  const auto all = records(read_file(first));
  EXPECT_EQ(Message(all.at(0)).field(3).length_delimited(), "brain.Event:2");
  const Message restart(records(read_file(second)).at(1));
  EXPECT_EQ(restart.field(2).varint(), 8u);
  EXPECT_EQ(restart.below(7).field(1).varint(), 1u);
  EXPECT_THROW(EventWriter(folder.path() / "missing"), IoError);
}

/// TensorBoard reads files in the order of their names, and takes points of an earlier one for
/// lost.
TEST(TensorBoard, AClockThatWasSetBackKeepsFilesAndTimesInOrder) {
  testing::TemporaryFolder folder;
  double now = 2e9;
  const auto clock = [&] { return now; };
  std::vector<std::string> names;
  const auto run = [&](std::int64_t resume_step) {
    EventWriter writer(folder.path(), resume_step, clock);
    names.push_back(writer.path().filename().string());
    writer.scalars(resume_step + 1, {{"loss", 3}});
    now -= 7200;
    writer.scalars(resume_step + 2, {{"loss", 2}});
    double last = 0;
    for (const std::string& record : records(read_file(writer.path()))) {
      const double time = std::bit_cast<double>(Message(record).field(1).fixed64());
      EXPECT_GE(time, last);
      last = time;
    }
  };
  for (const std::int64_t step : {0, 2, 4}) run(step);
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end())) << names[0] << " " << names[1];
  EXPECT_LT(names[0], names[1]);
  EXPECT_LT(names[1], names[2]);
}

}  // namespace
}  // namespace lectern
