// How much surface crosses a cell of 2 × 2 (× 2) voxels: marching cubes and squares with the vertices in the
// middle of the edges.
#pragma once

namespace rubriscope::ops {

/// Area per code of a cell. Voxel (i, j, k) of the cell is bit 7 − (4 i + 2 j + k). Spacings are of z, y, x.
///
/// Contours on the cell's faces are joined into polygons. On a face whose diagonal corners are inside, up to
/// four inside corners are cut off each for itself; of more, the outside corners are. A polygon that is not
/// planar is split by the fan of triangles that has the largest area at unit spacing: that is what
/// reproduces the areas that DeepMind's surface-distance weighs with.
void surfel_areas(const double spacing[3], double areas[256]);

/// Length per code of a cell of 2 × 2. Pixel (j, k) is bit 3 − (2 j + k). Spacings are of y, x.
void surfel_lengths(const double spacing[2], double lengths[16]);

}  // namespace rubriscope::ops
