// Which HDF5 files are read as shards: one shard in every version of the superblock.
#include "core/io/file.h"
#include "data/shards/shard.h"
#include "tests/data/synthetic_pages.h"
#include "tests/testing.h"

#include <hdf5.h>

namespace lectern {
namespace {

herr_t copy_attribute(hid_t from, const char* name, const H5A_info_t* /*info*/, void* to) {
  const hid_t attribute = H5Aopen(from, name, H5P_DEFAULT);
  const hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
  std::string value(H5Tget_size(type), '\0');
  H5Aread(attribute, type, value.data());
  const hid_t copy =
      H5Acreate2(*static_cast<hid_t*>(to), name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  const herr_t status = H5Awrite(copy, type, value.data());
  H5Aclose(copy);
  H5Sclose(space);
  H5Tclose(type);
  H5Aclose(attribute);
  return status;
}

/// `from` with everything in it, written as `to` by the library with these bounds. A size of
/// indices that is not the default needs superblock 1 where 0 would do.
void rewrite(const std::filesystem::path& from, const std::filesystem::path& to, H5F_libver_t low,
             bool odd_indices) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE);
  H5Pset_libver_bounds(access, low, H5F_LIBVER_LATEST);
  if (odd_indices) H5Pset_istore_k(creation, 64);
  const hid_t in = H5Fopen(from.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  hid_t out = H5Fcreate(to.c_str(), H5F_ACC_TRUNC, creation, access);
  ASSERT_GE(out, 0);
  hsize_t at = 0;
  EXPECT_GE(H5Aiterate2(in, H5_INDEX_NAME, H5_ITER_INC, &at, copy_attribute, &out), 0);
  for (const char* group : {"page", "line", "word", "box"})
    EXPECT_GE(H5Ocopy(in, group, out, group, H5P_DEFAULT, H5P_DEFAULT), 0);
  for (const hid_t file : {in, out}) H5Fclose(file);
  for (const hid_t properties : {access, creation}) H5Pclose(properties);
}

TEST(Superblock, VersionsTwoAndThreeAreReadOthersAreRefused) {
  const testing::TemporaryFolder folder;
  const auto written = folder.path() / "shard-00000.h5";
  ShardWriter writer;
  const ShardPage page = testing::shard_page(testing::synthetic_page("doc", 1));
  writer.add(page);
  writer.write(written, "sha");
  constexpr std::size_t kVersionAt = 8;  // after the signature
  EXPECT_EQ(read_file(written)[kVersionAt], 3) << "what lectern writes";
  struct Case {
    int version;
    H5F_libver_t low;
    bool odd_indices;
  };
  for (const auto& [version, low, odd_indices] :
       {Case{0, H5F_LIBVER_EARLIEST, false}, Case{1, H5F_LIBVER_EARLIEST, true},
        Case{2, H5F_LIBVER_V18, false}, Case{3, H5F_LIBVER_V110, false}}) {
    const auto path = folder.path() / fmt::format("version{}.h5", version);
    rewrite(written, path, low, odd_indices);
    ASSERT_EQ(read_file(path)[kVersionAt], version);
    if (version < 2) {
      EXPECT_TRUE(testing::throws_with(
          [&] { Shard shard(path); },
          {path.string(), "superblock version must be 2 or 3", fmt::format("got {}", version)}));
      continue;
    }
    const Shard shard(path);
    ASSERT_EQ(shard.pages(), 1);
    EXPECT_EQ(shard.read(0).text, page.text) << version;
    EXPECT_EQ(shard.read(0).picture, page.picture) << version;
    EXPECT_EQ(shard.tokenizer_sha256(), "sha");
  }
}

}  // namespace
}  // namespace lectern
