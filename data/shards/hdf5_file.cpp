#include "data/shards/hdf5_file.h"

#include "core/allocator.h"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <mutex>
#include <utility>

namespace lectern::detail {
namespace {

static_assert(sizeof(hid_t) == sizeof(std::int64_t));

constexpr hsize_t kTableChunkBytes = hsize_t{1} << 16;
constexpr hsize_t kPackedChunkBytes = hsize_t{1} << 18;
constexpr hsize_t kMaxChunkBytes = hsize_t{1} << 22;
constexpr std::uint64_t kBestDeflateRatio = 1032;  // zlib's limit
constexpr std::size_t kMaxAttributeBytes = 4096;

/// The library, silent and held by this thread.
class Locked {
 public:
  Locked() : lock_(mutex()) {
    // A file that could not be written (a full disk) stays open in the library, for its close
    // fails, too; at exit 1.10 tries again and crashes. Everything that could be written is closed
    // by then.
    static const herr_t at_exit = H5dont_atexit();
    static_cast<void>(at_exit);
    // It crashes when its own first allocations fail.
    static const bool has_memory = (require_memory(std::size_t{4} << 20, "HDF5"), true);
    static_cast<void>(has_memory);
    H5open();
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5Eclear2(H5E_DEFAULT);
  }

 private:
  static std::recursive_mutex& mutex() {
    static std::recursive_mutex instance;
    return instance;
  }
  std::lock_guard<std::recursive_mutex> lock_;
};

/// An identifier of the library, closed at the end of the scope.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }
  hid_t release() { return std::exchange(id_, -1); }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

herr_t keep_first(unsigned index, const H5E_error2_t* error, void* out) {
  if (index == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
  return 0;
}

/// What the library says was wrong, innermost first; of its account of a read or write only what
/// the system said.
std::string reason() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &text);
  constexpr std::string_view kBegin = "error message = '";
  if (const std::size_t at = text.find(kBegin); at != std::string::npos) {
    text.erase(0, at + kBegin.size());
    text.resize(std::min(text.find('\''), text.size()));
  }
  return text.empty() ? "no reason given" : text;
}

[[noreturn]] void fail_hdf5(const std::string& file, const std::string& what,
                            SourceLocation where = {}) {
  fail<IoError>(fmt::format("{}: {}: {}", file, what, reason()), where);
}

hid_t type_of(DType dtype) {
  switch (dtype) {
    case DType::u8:
      return H5T_STD_U8LE;
    case DType::i32:
      return H5T_STD_I32LE;
    case DType::i64:
      return H5T_STD_I64LE;
    case DType::f32:
      return H5T_IEEE_F32LE;
    default:
      fail<DTypeError>(
          fmt::format("hdf5: dtype must be u8, i32, i64 or f32, got {}", name_of(dtype)));
  }
}

/// Creation properties of a dataset: chunks, checksums, no time stamps.
hid_t creation_properties(std::int64_t rows, std::int64_t columns, DType dtype, bool compress) {
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t row_bytes = static_cast<hsize_t>(columns) * size_of(dtype);
  const hsize_t wanted = (compress ? kTableChunkBytes : kPackedChunkBytes) / row_bytes;
  const std::array<hsize_t, 2> chunk{
      std::clamp<hsize_t>(wanted, 1, std::max<hsize_t>(static_cast<hsize_t>(rows), 1)),
      static_cast<hsize_t>(columns)};
  H5Pset_obj_track_times(properties, false);
  H5Pset_chunk(properties, columns == 1 ? 1 : 2, chunk.data());
  if (compress) {
    H5Pset_shuffle(properties);
    H5Pset_deflate(properties, 4);
  }
  H5Pset_fletcher32(properties);
  return properties;
}

void check_signature(const std::string& name) {
  std::ifstream in(name, std::ios::binary);
  if (!in) fail<IoError>(fmt::format("{}: cannot be opened", name));
  constexpr std::string_view kSignature("\x89HDF\r\n\x1a\n", 8);
  std::array<char, 9> head{};
  in.read(head.data(), head.size());
  if (in.gcount() != head.size() || std::string_view(head.data(), 8) != kSignature)
    fail<IoError>(fmt::format("{}: must be an HDF5 file, got another signature", name));
  if (head[8] < 2 || head[8] > 3)
    fail<IoError>(fmt::format(
        "{}: superblock version must be 2 or 3 (checksummed metadata), got {}", name, head[8] + 0));
}

}  // namespace

Hdf5Writer::Hdf5Writer(const std::filesystem::path& path) : name_(path.string()) {
  const Locked locked;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);
  file_ = H5Fcreate(name_.c_str(), H5F_ACC_TRUNC, creation, access);
  if (file_ < 0) fail_hdf5(name_, "cannot be created");
}

Hdf5Writer::~Hdf5Writer() {
  const Locked locked;
  if (file_ >= 0) H5Fclose(file_);
}

void Hdf5Writer::group(const std::string& name) {
  const Locked locked;
  const Handle creation(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);
  const Handle group(H5Gcreate2(file_, name.c_str(), H5P_DEFAULT, creation, H5P_DEFAULT), H5Gclose);
  if (group < 0) fail_hdf5(name_, fmt::format("group {} cannot be written", name));
}

void Hdf5Writer::attribute(const std::string& name, std::int64_t value) {
  const Locked locked;
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(
      H5Acreate2(file_, name.c_str(), H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (attribute < 0 || H5Awrite(attribute, H5T_NATIVE_INT64, &value) < 0)
    fail_hdf5(name_, fmt::format("attribute {} cannot be written", name));
}

void Hdf5Writer::attribute(const std::string& name, const std::string& value) {
  const Locked locked;
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, std::max<std::size_t>(value.size(), 1));
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(H5Acreate2(file_, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT),
                         H5Aclose);
  if (attribute < 0 || H5Awrite(attribute, type, value.c_str()) < 0)
    fail_hdf5(name_, fmt::format("attribute {} cannot be written", name));
}

void Hdf5Writer::write(const std::string& name, const void* values, std::int64_t rows,
                       std::int64_t columns, DType dtype, bool compress) {
  const Locked locked;
  const int ndim = columns == 1 ? 1 : 2;
  const std::array<hsize_t, 2> size{static_cast<hsize_t>(rows), static_cast<hsize_t>(columns)};
  // A chunk may not be larger than the dataset can become, so an empty one may become one row.
  const std::array<hsize_t, 2> limit{std::max<hsize_t>(size[0], 1), size[1]};
  const Handle space(H5Screate_simple(ndim, size.data(), limit.data()), H5Sclose);
  const Handle properties(creation_properties(rows, columns, dtype, compress), H5Pclose);
  const hid_t type = type_of(dtype);
  const Handle dataset(
      H5Dcreate2(file_, name.c_str(), type, space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose);
  if (dataset < 0 ||
      (rows > 0 && H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0))
    fail_hdf5(name_, fmt::format("dataset {} cannot be written", name));
}

void Hdf5Writer::close() {
  const Locked locked;
  const bool flushed = H5Fflush(file_, H5F_SCOPE_LOCAL) >= 0;
  const std::string why = flushed ? "" : reason();
  const bool closed = H5Fclose(std::exchange(file_, -1)) >= 0;
  if (!flushed || !closed)
    fail<IoError>(fmt::format("{}: cannot be completed: {}", name_, flushed ? reason() : why));
}

Hdf5Reader::Hdf5Reader(const std::filesystem::path& path) : name_(path.string()) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    fail<IoError>(fmt::format("{}: must be a regular file", name_));
  file_bytes_ = std::filesystem::file_size(path, error);
  check_signature(name_);
  const Locked locked;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  H5Pset_file_locking(access, false, true);
  H5Pset_cache(access, 0, 521, std::size_t{1} << 17, 0.75);  // bytes for each open dataset
  file_ = H5Fopen(name_.c_str(), H5F_ACC_RDONLY, access);
  if (file_ < 0) fail_hdf5(name_, "cannot be opened as HDF5");
}

Hdf5Reader::~Hdf5Reader() {
  const Locked locked;
  if (file_ >= 0) H5Fclose(file_);
}

std::int64_t Hdf5Reader::integer_attribute(const std::string& name) const {
  const Locked locked;
  const Handle attribute(H5Aopen(file_, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (attribute < 0) fail_hdf5(name_, fmt::format("attribute {} must exist", name));
  const Handle type(H5Aget_type(attribute), H5Tclose);
  const Handle space(H5Aget_space(attribute), H5Sclose);
  if (H5Tequal(type, H5T_STD_I64LE) <= 0 || H5Sget_simple_extent_npoints(space) != 1)
    fail<IoError>(fmt::format("{}: attribute {} must be one 64-bit integer", name_, name));
  std::int64_t value = 0;
  if (H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0)
    fail_hdf5(name_, fmt::format("attribute {} cannot be read", name));
  return value;
}

std::string Hdf5Reader::text_attribute(const std::string& name) const {
  const Locked locked;
  const Handle attribute(H5Aopen(file_, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (attribute < 0) fail_hdf5(name_, fmt::format("attribute {} must exist", name));
  const Handle type(H5Aget_type(attribute), H5Tclose);
  const Handle space(H5Aget_space(attribute), H5Sclose);
  const bool fixed_text = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0;
  const std::size_t bytes = fixed_text ? H5Tget_size(type) : 0;
  if (bytes == 0 || bytes > kMaxAttributeBytes || H5Sget_simple_extent_npoints(space) != 1)
    fail<IoError>(fmt::format("{}: attribute {} must be one text of at most {} bytes", name_, name,
                              kMaxAttributeBytes));
  std::string value(bytes, '\0');
  if (H5Aread(attribute, type, value.data()) < 0)
    fail_hdf5(name_, fmt::format("attribute {} cannot be read", name));
  value.resize(std::min(value.find('\0'), value.size()));
  return value;
}

std::int64_t Hdf5Reader::open_dataset(const std::string& dataset, DType dtype,
                                      std::int64_t columns) {
  const Locked locked;
  // A soft or external link would lead into another file.
  const std::string parent = dataset.substr(0, dataset.rfind('/'));
  for (const std::string& part : {parent, dataset}) {
    H5L_info_t link;
    if (!part.empty() &&
        (H5Lget_info(file_, part.c_str(), &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD))
      fail<IoError>(fmt::format("{}: {} must be in the file", name_, part));
  }
  Handle id(H5Dopen2(file_, dataset.c_str(), H5P_DEFAULT), H5Dclose);
  if (id < 0) fail_hdf5(name_, fmt::format("dataset {} cannot be opened", dataset));
  const Handle type(H5Dget_type(id), H5Tclose);
  if (H5Tequal(type, type_of(dtype)) <= 0)
    fail<IoError>(
        fmt::format("{}: dataset {} must hold {} values", name_, dataset, name_of(dtype)));
  const Handle space(H5Dget_space(id), H5Sclose);
  std::array<hsize_t, 2> size{0, 1};
  const int ndim = columns == 1 ? 1 : 2;
  if (H5Sget_simple_extent_ndims(space) != ndim ||
      H5Sget_simple_extent_dims(space, size.data(), nullptr) != ndim ||
      size[1] != static_cast<hsize_t>(columns))
    fail<IoError>(fmt::format("{}: dataset {} must have {} columns", name_, dataset, columns));
  if (size[0] > hsize_t{1} << 48)
    fail<IoError>(fmt::format("{}: dataset {} claims {} rows", name_, dataset, size[0]));
  Dataset opened{id, static_cast<std::int64_t>(size[0]), columns, dtype};
  check_storage(dataset, opened);
  id.release();
  datasets_[dataset] = opened;
  return opened.rows;
}

void Hdf5Reader::check_storage(const std::string& dataset, const Dataset& opened) const {
  const Handle properties(H5Dget_create_plist(opened.id), H5Pclose);
  std::array<hsize_t, 2> chunk{1, 1};
  const int ndim = opened.columns == 1 ? 1 : 2;
  if (H5Pget_layout(properties) != H5D_CHUNKED ||
      H5Pget_chunk(properties, 2, chunk.data()) != ndim || chunk[0] > kMaxChunkBytes ||
      chunk[1] > kMaxChunkBytes || chunk[0] * chunk[1] * size_of(opened.dtype) > kMaxChunkBytes)
    fail<IoError>(fmt::format("{}: dataset {} must have chunks of at most {} bytes", name_, dataset,
                              kMaxChunkBytes));
  bool checked = false, deflated = false;
  for (int i = 0; i < H5Pget_nfilters(properties); ++i) {
    unsigned flags = 0, config = 0;
    std::size_t values = 0;
    const H5Z_filter_t filter = H5Pget_filter2(properties, static_cast<unsigned>(i), &flags,
                                               &values, nullptr, 0, nullptr, &config);
    if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE &&
        filter != H5Z_FILTER_FLETCHER32)
      fail<IoError>(fmt::format("{}: dataset {} uses unknown filter {}", name_, dataset,
                                static_cast<int>(filter)));
    checked |= filter == H5Z_FILTER_FLETCHER32;
    deflated |= filter == H5Z_FILTER_DEFLATE;
  }
  if (!checked) fail<IoError>(fmt::format("{}: dataset {} must have checksums", name_, dataset));
  const std::uint64_t stored = H5Dget_storage_size(opened.id);
  const std::uint64_t claimed =
      static_cast<std::uint64_t>(opened.rows * opened.columns) * size_of(opened.dtype);
  if (stored > file_bytes_ || claimed > stored * (deflated ? kBestDeflateRatio : 1))
    fail<IoError>(fmt::format("{}: dataset {} claims {} bytes, got {} stored in a file of {}",
                              name_, dataset, claimed, stored, file_bytes_));
}

void Hdf5Reader::read_rows(const std::string& dataset, std::int64_t begin, std::int64_t count,
                           DType dtype, void* out) const {
  const auto found = datasets_.find(dataset);
  if (found == datasets_.end() || found->second.dtype != dtype)
    fail<IoError>(fmt::format("{}: dataset {} is not open as {}", name_, dataset, name_of(dtype)));
  const Dataset& source = found->second;
  if (begin < 0 || count < 0 || begin > source.rows || count > source.rows - begin)
    fail<IoError>(fmt::format("{}: dataset {} has {} rows, asked for {} from {}", name_, dataset,
                              source.rows, count, begin));
  if (count == 0) return;
  const Locked locked;
  const int ndim = source.columns == 1 ? 1 : 2;
  const std::array<hsize_t, 2> start{static_cast<hsize_t>(begin), 0};
  const std::array<hsize_t, 2> extent{static_cast<hsize_t>(count),
                                      static_cast<hsize_t>(source.columns)};
  const Handle memory(H5Screate_simple(ndim, extent.data(), nullptr), H5Sclose);
  const Handle space(H5Dget_space(source.id), H5Sclose);
  if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr) <
          0 ||
      H5Dread(source.id, type_of(dtype), memory, space, H5P_DEFAULT, out) < 0)
    fail_hdf5(name_, fmt::format("dataset {} is damaged or truncated", dataset));
}

}  // namespace lectern::detail
