#include "models/interchange/folder_reader.h"

#include <cstring>

#include <ATen/ATen.h>

#include "cluster/base/mapped_pages.h"

namespace echelon {

namespace {

/// The part `slice` of a stored tensor [rows, columns] or [columns], whose pages are given back.
at::Tensor read_box(const std::byte* data, at::ScalarType dtype, const std::vector<int64_t>& stored,
                    const Slice& slice) {
  at::Tensor out = at::empty(slice.sizes, dtype);
  bool is_matrix = stored.size() == 2;
  size_t item = out.element_size();
  size_t columns = stored.back() * item, first_column = slice.offsets.back() * item, width = slice.sizes.back() * item;
  size_t rows = is_matrix ? slice.sizes[0] : 1, first_row = is_matrix ? slice.offsets[0] : 0;
  auto* to = static_cast<std::byte*>(out.data_ptr());
  const std::byte* from = data + first_row * columns + first_column;
  if (width == columns) {
    std::memcpy(to, from, rows * width);
  } else {
    for (size_t row = 0; row < rows; ++row) std::memcpy(to + row * width, from + row * columns, width);
  }
  forget_pages(from, rows == 0 ? 0 : (rows - 1) * columns + width);
  return out;
}

}  // namespace

at::ScalarType weight_type(const TensorEntry& entry, const std::string& place) {
  switch (entry.dtype) {
    case DType::F16:
      return at::kHalf;
    case DType::BF16:
      return at::kBFloat16;
    case DType::F32:
      return at::kFloat;
    case DType::F64:
      return at::kDouble;
    default:
      throw Error::input(place, fmt::format("tensor \"{}\" is no weight", entry.name))
          .got(dtype_name(entry.dtype))
          .expected("F16, BF16, F32 or F64");
  }
}

at::Tensor FolderReader::read(const std::string& name, const Slice& slice) {
  auto found = tensors_.find(name);
  if (found == tensors_.end()) throw Error::internal(name, "no such tensor in " + folder_.path());
  const StoredTensor& tensor = found->second;
  Slice stored = slice;
  if (tensor.place.transposed) {
    std::swap(stored.offsets[0], stored.offsets[1]);
    std::swap(stored.sizes[0], stored.sizes[1]);
  }
  std::vector<int64_t> stored_sizes = tensor.place.stored_sizes(tensor.sizes);
  stored.offsets.back() += stored_sizes.back() / tensor.place.parts * tensor.place.part;
  at::Tensor box =
      read_box(folder_.tensors().data(*tensor.entry), weight_type(*tensor.entry, folder_.path()), stored_sizes, stored);
  return tensor.place.transposed ? box.t() : box;
}

}  // namespace echelon
