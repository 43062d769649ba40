// Products of many rows (prefill) with bfloat16 weights by AMX tiles, in float32: three products of bfloat16 rows with the
// same panels, see split_rows.h and bfloat16_linear.h.
//
// In: a Linear of rows, not of tiles. Out: its result (linear_split).

namespace ISA {

static void linear_split(const Linear& a) {
  const long depth = blocks_in(a.weight.K), size = blocks_in(a.M) * depth * kSquare;
  Half* at = (Half*)scratch(kLinearDigits, kParts * size / 2);
  const Blocks parts[kParts] = {{at, depth}, {at + size, depth}, {at + 2 * size, depth}};
#pragma omp parallel for schedule(static) num_threads(threads())
  for (long r = 0; r < a.M; r++)
    for (long k = 0; k < depth; k++) {
      __m512i part[kParts];
      split(a.x + r * a.x_stride + k * kSide, a.weight.K - k * kSide, part);
      for (long i = 0; i < kParts; i++) _mm512_store_si512(parts[i].row(r, k), part[i]);
    }
  halved::Product product(a, parts[0]);
  product.lower[0] = parts[1];
  product.lower[1] = parts[2];
  halved::many(product);
}

}  // namespace ISA
