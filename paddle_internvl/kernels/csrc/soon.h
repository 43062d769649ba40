// Rows of a weight that are fetched while others are multiplied.

namespace ISA {

// Rows of a weight that will be packed soon, `lines` cache lines of each: fetched a row at a time while others are used.
struct Soon {
  const char *at = nullptr, *end = nullptr;
  long pitch = 0, lines = 0;

  Soon() = default;
  Soon(const Weight& w, long column, long columns, long k, long rows) {
    const long shared = rows_in_a_byte(w.kind), left = w.K - k < rows ? w.K - k : rows;
    pitch = row_bytes(w.kind, w.N);
    at = (const char*)w.data + row_bytes(w.kind, column) + k / shared * pitch;
    end = at + left / shared * pitch;
    lines = (row_bytes(w.kind, columns) + 63) / 64;
  }
  void fetch() {
    if (at >= end) return;
    for (long i = 0; i < lines; i++) prefetch(at + 64 * i);
    at += pitch;
  }
};

}  // namespace ISA
