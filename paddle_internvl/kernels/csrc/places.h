// Where the heads of tensors lie, for operators: strides of views, blocks of a cache.
#pragma once
#include "attention_arguments.h"
#include "border.h"

// A tensor [B, L, H, E], which may be a view; the numbers of a head are side by side.
inline Heads heads_of(const Tensor& x, const std::string& name) {
  require_plain(x, name, paddle::DataType::FLOAT32);
  require(x.dims().size() == 4, name + " must be [B, L, H, E]");
  const auto& apart = x.strides();
  require(x.dims()[3] == 1 || apart[3] == 1, name + ": the numbers of a head must lie side by side");
  return {const_cast<float*>(x.data<float>()), apart[0], apart[1], apart[2]};
}

// Memory of keys or values: a tensor [B, M, K, E], or the blocks of a paged cache [blocks * K * block, E] and which of
// them are whose.
inline Places places_of(const Tensor& memory, const Optional& table, int64_t kv_heads, int64_t block,
                        const std::string& name) {
  Places places;
  if (memory.dims().size() == 4) {
    require(!table, name + ": a table belongs to blocks [blocks * K * block, E]");
    const Heads heads = heads_of(memory, name);
    places.base = heads.base;
    places.block = memory.dims()[1];
    places.block_stride = heads.row;
    places.position_stride = heads.position;
    places.head_stride = heads.head;
    return places;
  }
  require_plain(memory, name, paddle::DataType::FLOAT32);
  require(memory.dims().size() == 2 && memory.is_contiguous(), name + " must be [B, M, K, E] or [blocks * K * block, E]");
  require(table && block > 0 && kv_heads > 0 && memory.dims()[0] % (kv_heads * block) == 0,
          name + ": blocks need a table, their size and the number of heads");
  require_plain(*table, "table", paddle::DataType::INT64);
  require(table->dims().size() == 2, "table must be [B, blocks]");
  const int64_t e = memory.dims()[1], blocks = memory.dims()[0] / (kv_heads * block);
  places.base = const_cast<float*>(memory.data<float>());
  places.table = table->data<int64_t>();
  places.width = table->dims()[1];
  places.block = block;
  places.block_stride = kv_heads * block * e;
  places.head_stride = block * e;
  places.position_stride = e;
  for (int64_t i = 0; i < table->numel(); i++)
    require(places.table[i] >= 0 && places.table[i] < blocks, "table names a block that there is not");
  return places;
}

// Keys of every row: what `totals` says, else `total` of all; none more than there is room for.
inline std::vector<int64_t> totals_of(const Optional& totals, int64_t total, int64_t rows, int64_t length, int64_t room) {
  std::vector<int64_t> each(rows, total);
  if (totals) {
    require_plain(*totals, "totals", paddle::DataType::INT64);
    require(totals->numel() == rows, "totals must be one number for each row");
    each.assign(totals->data<int64_t>(), totals->data<int64_t>() + rows);
  }
  for (int64_t n : each)
    require(n >= length && n <= room, "a row of " + std::to_string(n) + " keys does not fit " + std::to_string(length) +
                                          " queries and room for " + std::to_string(room));
  return each;
}

// A bool mask [B, at least the longest row].
inline const uint8_t* mask_of(const Optional& mask, const std::vector<int64_t>& totals, int64_t& width) {
  if (!mask) return nullptr;
  require_plain(*mask, "mask", paddle::DataType::BOOL);
  require(mask->dims().size() == 2 && mask->dims()[0] == int64_t(totals.size()) && mask->is_contiguous(),
          "mask must be [B, M]");
  width = mask->dims()[1];
  for (int64_t n : totals) require(n <= width, "mask is shorter than a row of keys");
  return reinterpret_cast<const uint8_t*>(mask->data<bool>());
}
