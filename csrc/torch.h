// Tensors as actions, observations and scores of C++ rubrics. Header only: include it where LibTorch is
// there.
#pragma once

#include <ATen/ATen.h>

#include <sstream>

#include "rubriscope/core/errors.h"
#include "rubriscope/rubric/rubric.h"

namespace rubriscope {

/// A tensor is captured as shape, dtype and device, in the words Python uses; its contents are not read.
template <>
struct CaptureTraits<at::Tensor> {
  static void describe(const at::Tensor& tensor, CapturedValue& out) {
    std::ostringstream text;
    text << "tensor(shape=(";
    for (std::int64_t i = 0; i < tensor.dim(); ++i) text << (i != 0 ? ", " : "") << tensor.size(i);
    text << (tensor.dim() == 1 ? ",)" : ")") << ", dtype=torch."
         << c10::getDtypeNames(tensor.scalar_type()).first << ", device=" << tensor.device().str() << ")";
    out.owned = text.str();
    out.text = out.owned;
    out.form = CaptureForm::repr;
  }
};

/// The single number of a tensor as a score; waits for the tensor's device. Throws ValueError for any other
/// number of elements.
inline Score score_of(const at::Tensor& tensor) {
  if (tensor.numel() != 1) {
    throw ValueError("a score is one number, got a tensor of " + std::to_string(tensor.numel()) +
                     " elements");
  }
  return tensor.item<double>();
}

}  // namespace rubriscope
