#include "rubriscope/ops/mask/surface.h"

#include <algorithm>
#include <bit>

namespace rubriscope::ops {

namespace {

using i64 = std::int64_t;
using u64 = std::uint64_t;

// A row moved by one voxel towards higher x; zeros come in.
u64 from_left(const u64* row, i64 word) { return row[word] << 1 | (word > 0 ? row[word - 1] >> 63 : 0); }
u64 from_right(const u64* row, i64 word, i64 words) {
  return row[word] >> 1 | (word + 1 < words ? row[word + 1] << 63 : 0);
}

void find_voxels(const MaskBits& mask, int dimensions, Surface& surface, i64 z, const u64* nothing) {
  const BitGrid grid = mask.grid();
  for (i64 y = 0; y < mask.ny; ++y) {
    const u64* row = grid.row(z, y);
    const u64* before = y > 0 ? grid.row(z, y - 1) : nothing;
    const u64* behind = y + 1 < mask.ny ? grid.row(z, y + 1) : nothing;
    const u64* below = dimensions == 2 ? row : z > 0 ? grid.row(z - 1, y) : nothing;
    const u64* above = dimensions == 2 ? row : z + 1 < mask.nz ? grid.row(z + 1, y) : nothing;
    u64* out = surface.bits.data() + (z * surface.ny + y) * surface.words;
    for (i64 word = 0; word < mask.words; ++word) {
      const u64 here = row[word];
      const u64 inner = before[word] & behind[word] & below[word] & above[word];
      out[word] = here == 0 ? 0 : here & ~(inner & from_left(row, word) & from_right(row, word, mask.words));
    }
  }
}

void find_corners(const MaskBits& mask, int dimensions, Surface& surface, i64 z, const u64* nothing) {
  const BitGrid grid = mask.grid();
  const auto row_at = [&](i64 at_z, i64 at_y) {
    return at_z < 0 || at_z >= mask.nz || at_y < 0 || at_y >= mask.ny ? nothing : grid.row(at_z, at_y);
  };
  for (i64 y = 0; y < surface.ny; ++y) {
    const u64* rows[4] = {row_at(z, y - 1), row_at(z, y), nullptr, nullptr};
    rows[2] = dimensions == 3 ? row_at(z - 1, y - 1) : rows[0];
    rows[3] = dimensions == 3 ? row_at(z - 1, y) : rows[1];
    u64* out = surface.bits.data() + (z * surface.ny + y) * surface.words;
    for (i64 word = 0; word < mask.words; ++word) {
      u64 any = 0, all = ~u64{0};
      for (const u64* row : rows) {
        const u64 here = row[word], left = from_left(row, word);
        any |= here | left;
        all &= here & left;
      }
      out[word] = any & ~all;
    }
  }
}

}  // namespace

MaskBits pack_mask(const std::uint8_t* bytes, const MaskShape& shape, const Parallel& parallel) {
  MaskBits mask{shape.size[0], shape.size[1], shape.size[2], shape.size[2] / 64 + 1, {}};
  const i64 rows = mask.nz * mask.ny;
  mask.bits.resize(static_cast<std::size_t>(rows * mask.words));
  for_pieces(parallel, rows, std::max<i64>(1, (i64{1} << 18) / mask.nx), [&](i64 begin, i64 end) {
    for (i64 row = begin; row < end; ++row) {
      RUBRISCOPE_CALL_ISA(pack_row, bytes + row * mask.nx, mask.nx, mask.bits.data() + row * mask.words);
    }
  });
  return mask;
}

Surface find_surface(const MaskBits& mask, int dimensions, bool corners, const Parallel& parallel) {
  const i64 more = corners ? 1 : 0;
  Surface surface;
  surface.nz = mask.nz + (dimensions == 3 ? more : 0);
  surface.ny = mask.ny + more;
  surface.words = mask.words;
  surface.bits.resize(static_cast<std::size_t>(surface.nz * surface.ny * surface.words));
  const std::vector<u64> nothing(static_cast<std::size_t>(mask.words));
  for_pieces(parallel, surface.nz, std::max<i64>(1, 4096 / (surface.ny * surface.words)),
             [&](i64 begin, i64 end) {
               for (i64 z = begin; z < end; ++z) {
                 if (corners) {
                   find_corners(mask, dimensions, surface, z, nothing.data());
                 } else {
                   find_voxels(mask, dimensions, surface, z, nothing.data());
                 }
               }
             });
  std::vector<u64> columns(static_cast<std::size_t>(surface.words));
  const u64* row = surface.bits.data();
  for (i64 z = 0; z < surface.nz; ++z) {
    for (i64 y = 0; y < surface.ny; ++y, row += surface.words) {
      i64 in_row = 0;
      for (i64 word = 0; word < surface.words; ++word) {
        in_row += std::popcount(row[word]);
        columns[static_cast<std::size_t>(word)] |= row[word];
      }
      if (in_row == 0) continue;
      surface.count += in_row;
      surface.z.cover(z, z + 1);
      surface.y.cover(y, y + 1);
    }
  }
  for (i64 word = 0; word < surface.words; ++word) {
    if (const u64 bits = columns[static_cast<std::size_t>(word)]; bits != 0) {
      surface.x.cover(word * 64 + std::countr_zero(bits), word * 64 + 64 - std::countl_zero(bits));
    }
  }
  return surface;
}

std::vector<std::uint8_t> corner_codes(const MaskBits& mask, const Surface& surface, int dimensions) {
  std::vector<std::uint8_t> codes;
  codes.reserve(static_cast<std::size_t>(surface.count));
  const std::vector<u64> nothing(static_cast<std::size_t>(mask.words));
  const BitGrid grid = mask.grid();
  const auto row_at = [&](i64 z, i64 y) {
    return z < 0 || z >= mask.nz || y < 0 || y >= mask.ny ? nothing.data() : grid.row(z, y);
  };
  for (i64 y = surface.y.begin; y < surface.y.end; ++y) {
    for (i64 z = surface.z.begin; z < surface.z.end; ++z) {
      // The voxels' rows, the one of the highest bits of the code first.
      const u64* rows[4];
      int count = 0;
      for (i64 dz = dimensions == 3 ? -1 : 0; dz <= 0; ++dz) {
        for (i64 dy = -1; dy <= 0; ++dy) rows[count++] = row_at(z + dz, y + dy);
      }
      const u64* surface_row = surface.grid().row(z, y);
      for (i64 word = 0; word < surface.words; ++word) {
        for (u64 rest = surface_row[word]; rest != 0; rest &= rest - 1) {
          const int bit = std::countr_zero(rest);
          unsigned code = 0;
          for (int i = 0; i < count; ++i) {
            const unsigned left = static_cast<unsigned>(from_left(rows[i], word) >> bit) & 1u;
            code = code << 2 | left << 1 | (static_cast<unsigned>(rows[i][word] >> bit) & 1u);
          }
          codes.push_back(static_cast<std::uint8_t>(code));
        }
      }
    }
  }
  return codes;
}

}  // namespace rubriscope::ops
