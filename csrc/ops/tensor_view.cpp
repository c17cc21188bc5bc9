#include "rubriscope/ops/tensor_view.h"

namespace rubriscope {

std::string TensorView::describe() const {
  std::string text = "tensor(shape=(";
  for (int axis = 0; axis < rank; ++axis) {
    if (axis != 0) text += ", ";
    text += std::to_string(shape[static_cast<std::size_t>(axis)]);
  }
  text += rank == 1 ? ",)" : ")";
  text += dtype == Dtype::float32 ? ", dtype=torch.float32" : ", dtype=torch.float64";
  return text + ", device=cpu)";
}

void CaptureTraits<TensorViews>::describe(const TensorViews& tensors, CapturedValue& out) {
  const bool one = tensors.items.size() == 1;
  out.owned = one ? "" : "(";
  for (std::size_t i = 0; i < tensors.items.size(); ++i) {
    if (i != 0) out.owned += ", ";
    out.owned += tensors.items[i].describe();
  }
  if (!one) out.owned += ")";
  out.text = out.owned;
  out.form = CaptureForm::repr;
}

}  // namespace rubriscope
