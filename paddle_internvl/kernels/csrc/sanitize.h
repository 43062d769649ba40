// Buffers and comparisons of the sanitizer's program.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "linear_arguments.h"

// `count` numbers on the heap and not one more; of std::vector a sanitizer sees the capacity only.
template <class T>
class Exact {
 public:
  explicit Exact(int64_t count = 0) : memory_(static_cast<T*>(std::malloc(count * sizeof(T))), std::free) {}
  T* at() const { return memory_.get(); }
  T& operator[](int64_t i) const { return memory_.get()[i]; }

 private:
  std::shared_ptr<T> memory_;
};

inline Exact<float> random_floats(int64_t count, std::mt19937& numbers) {
  Exact<float> made(count);
  for (int64_t i = 0; i < count; i++) made[i] = float(int(numbers() % 2001) - 1000) / 1000;
  return made;
}

// Whether the kernels with arithmetic in bfloat16 are under test, rows that are multiplied exactly there with weights that
// are integers, rows whose integers are exact, and a number as a product takes it.
inline bool in_bfloat16 = false;
inline int64_t exact_rows = kExactRows, exact_integers = kExactRows;
inline double taken(double x, bool exact) {
  if (exact) return x;
  float y = float(x);
  uint32_t bits;
  memcpy(&bits, &y, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  memcpy(&y, &bits, 4);
  return y;
}

// A product of M rows with a residual and, of all but kSwiglu, a bias.
inline Linear linear_of(const Weight& weight, const Weight& up, int64_t M, Activation activation, const Exact<float>& x,
                        const Exact<float>& bias, const Exact<float>& residual, const Exact<float>& out) {
  Linear a;
  a.weight = weight;
  a.x = x.at();
  a.out = out.at();
  a.M = M;
  a.x_stride = weight.K;
  a.out_stride = weight.N;
  a.activation = activation;
  a.residual = residual.at();
  if (activation == Activation::kSwiglu) a.up = up;
  else a.bias = bias.at();
  return a;
}

// Ends the program where two numbers differ by more than `most`.
inline void same(double ours, double exact, double most, const char* what) {
  if (std::fabs(ours - exact) <= most) return;
  std::printf("%s: %g, not %g\n", what, ours, exact);
  std::exit(1);
}
