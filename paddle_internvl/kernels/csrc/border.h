// What operators' borders to Paddle share: checks of tensors, and tensors for results.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "linear_arguments.h"
#include "paddle/common/enforce.h"
#include "paddle/phi/api/ext/op_meta_info.h"
#include "paddle/phi/api/include/api.h"

using paddle::Tensor;
using Optional = paddle::optional<Tensor>;

// Throws what Python sees as a ValueError. Paddle lets no exception through but its own: another ends the process.
inline void require(bool holds, const std::string& message) {
  if (!holds) PADDLE_THROW(::common::errors::InvalidArgument("%s", message.c_str()));
}

inline void require_plain(const Tensor& x, const std::string& name, paddle::DataType dtype) {
  require(x.is_cpu(), name + " must lie on the CPU");
  require(x.dtype() == dtype, name + " has another dtype than is needed");
}

inline const float* floats(const Tensor& x, const std::string& name) {
  require_plain(x, name, paddle::DataType::FLOAT32);
  return x.data<float>();
}

// The floats of a tensor that may be left out, of which there must be `count`.
inline const float* floats(const Optional& x, const std::string& name, int64_t count) {
  if (!x) return nullptr;
  require(x->numel() == count,
          name + " has " + std::to_string(x->numel()) + " numbers, " + std::to_string(count) + " are needed");
  return floats(*x, name);
}

// A weight [inputs, N] from tensors, checked; see linear_arguments.h. group: rows that share a scale, -1 for all.
Weight weight_of(const Tensor& weight, const Optional& scales, const Optional& offsets, int64_t inputs, int64_t group);

// The same of weights [inputs, N] one after the other, [E, inputs, N]; the first of them.
Weight stacked_weight_of(const Tensor& weight, const Optional& scales, const Optional& offsets, int64_t inputs,
                         int64_t group);

inline Tensor empty(const std::vector<int64_t>& shape) {
  return paddle::experimental::empty(shape, paddle::DataType::FLOAT32, paddle::CPUPlace());
}
