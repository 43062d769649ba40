// Matrix products x W, and what follows them in the same pass (linear_arguments.h).
#include "panels.h"
#include "tiles.h"
#include "linear_stream.h"
#include "linear_digits.h"
#ifdef TILES  // a set with AMX
#include "thread_tiles.h"
#include "split_rows.h"
#include "integer_panels.h"
#include "split_few.h"
#include "digit_tiles.h"
#else
#include "split_none.h"
#endif
#include "linear_few.h"
#include "linear_many.h"

namespace ISA {

static void linear(const Linear& a) {
  if (a.M > kFewRows && a.weight.int8_activations) return int8_kernels().linear(a);
  if (a.M > kFewRows) return fits_split(a) ? linear_split(a) : linear_many(a);
#pragma omp parallel num_threads(threads())
  {
    Tiles tiles(a.M >= kTileRows);
    linear_part(a, omp_get_thread_num(), omp_get_num_threads());
  }
}

}  // namespace ISA
