// How a product of many rows is shared out: chunks of blocks of rows, each times groups of panels. Of shallow weights a chunk,
// or a group, stays in the second-level cache while the other passes by; of deep ones the sums do.
#pragma once

namespace ISA {

struct Shares {
  long chunks, panels, groups, depth;  // panels: of a group, at most; depth: blocks of rows of W that are packed at a time

  // The first of `all` panels of a group; of group `groups`, their end.
  long first(long group, long all) const { return all * group / groups; }
};

// Blocks of rows of x, panels, and `deep` blocks of rows of W, which are shallow if they are at most `shallow`: of these
// chunks have `tall` blocks of rows, and groups `wide` panels. A panel here may be `size` of them.
static Shares shares_of(long rows, long panels, long deep, long shallow, long tall, long wide, long size) {
  constexpr long packed = 16, tallest = 16;  // of deep weights: sums of 1 MiB
  const auto parts = [](long n, long of) { return (n + of - 1) / of; };
  const bool all = deep <= shallow;
  Shares s;
  s.depth = all ? deep : packed;
  s.panels = (all ? wide : 16) / size;
  s.chunks = parts(rows, all ? tall : tallest);
  const long wanted = parts(2 * threads(), s.chunks);  // groups that let all threads end together
  if (parts(panels, s.panels) < wanted) s.panels = parts(panels, wanted);
  s.groups = parts(panels, s.panels);
  const long even = parts(s.groups, threads()) * threads();  // as many for each thread
  if (s.groups > threads() && even <= panels) s.groups = even;
  return s;
}

}  // namespace ISA
