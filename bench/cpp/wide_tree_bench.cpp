// How much work the CUDA side's trees do, counted on the CPU, where the same code runs a warp's lanes in
// turn: per warp of 32 queries the boxes looked at, the leaves that many lanes scan together, and the queries
// put to a leaf one by one; and from that the warp instructions, by figures read off the compiled kernel,
// about.
//
//   bench_wide_tree_bench [N M]     uniform points in a cube (400000 3600000)
#include <cstdio>
#include <cstdlib>
#include <random>

#include "wide_emulation.h"

namespace {

using namespace rubriscope::ops;

/// Instructions of a warp, as many as the PTX of search<float, Max> (cuda/hausdorff_tree.cu) has for each:
/// what they become on a machine is left open.
struct Costs {
  double packet, box, scan, single;
};
constexpr Costs kMax{1000, 130, 300, 60}, kAll{800, 130, 430, 100};

std::vector<float> uniform(std::int64_t count, std::mt19937_64& random) {
  std::uniform_real_distribution<float> coordinate(0, 1);
  std::vector<float> out(static_cast<std::size_t>(3 * count));
  for (float& c : out) c = coordinate(random);
  return out;
}

void report(const char* what, const Costs& costs, const HostWarp& warp, std::int64_t packets) {
  const auto each = [&](std::int64_t count) {
    return static_cast<double>(count) / static_cast<double>(packets);
  };
  const double instructions = costs.packet + costs.box * each(warp.steps) + costs.scan * each(warp.scans) +
                              costs.single * each(warp.singles);
  std::printf(
      "%-24s %8lld warps: %6.1f boxes, %5.1f leaves scanned, %5.1f queries one by one: %6.0f instructions,"
      " %.3g in all\n",
      what, static_cast<long long>(packets), each(warp.steps), each(warp.scans), each(warp.singles),
      instructions, instructions * static_cast<double>(packets));
}

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t n = argc > 2 ? std::atoll(argv[1]) : 400000,
                     m = argc > 2 ? std::atoll(argv[2]) : 3600000;
  std::mt19937_64 random(20261128);
  Sets<float> sets{uniform(n, random), uniform(m, random), 1, n, m, 3, {}, {}};
  Emulation<float> emulation(sets);
  const char* const names[2][2] = {{"max, x to y", "max, y to x"}, {"all, x to y", "all, y to x"}};
  double known = 0;
  for (int side = 0; side < 2; ++side) {
    emulation.warp = HostWarp{};
    const PointPair pair = emulation.largest(side, 1, known);
    known = std::max(known, pair.squared);
    report(names[0][side], kMax, emulation.warp, emulation.tree(side).leaves());
  }
  for (int side = 0; side < 2; ++side) {
    emulation.warp = HostWarp{};
    std::vector<double> squared;
    std::vector<std::int64_t> near;
    emulation.each(side, &squared, &near);
    report(names[1][side], kAll, emulation.warp, emulation.tree(side).leaves());
  }
  return 0;
}
