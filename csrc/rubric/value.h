// An action or an observation, whatever its type: a reference that knows how to describe itself for a record.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>

#include "rubriscope/core/errors.h"
#include "rubriscope/core/record.h"

namespace rubriscope {

/// A type's name as a person writes it.
std::string readable_type_name(const std::type_info& type);

/// What a record keeps of a value. `text` may borrow from the value, from `digits` or from `owned`.
struct CapturedValue {
  std::string_view text;
  CaptureForm form{CaptureForm::text};
  std::string owned;
  char digits[32];
};

/// How values of a type are captured. Specialise it for own types: describe(const T&, CapturedValue&).
template <class T>
struct CaptureTraits {
  static void describe(const T& value, CapturedValue& out) {
    if constexpr (std::is_convertible_v<const T&, std::string_view>) {
      out.text = value;
      out.form = CaptureForm::text;
    } else if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
      const auto end = std::to_chars(out.digits, out.digits + sizeof out.digits, value).ptr;
      out.text = {out.digits, static_cast<std::size_t>(end - out.digits)};
      out.form = std::is_integral_v<T> ? CaptureForm::integer : CaptureForm::real;
    } else {
      out.owned = "<" + readable_type_name(typeid(T)) + ">";
      out.text = out.owned;
      out.form = CaptureForm::repr;
    }
  }
};

/// A non-owning reference: valid while the object it was made from is.
class Value {
 public:
  template <class T>
    requires(!std::is_same_v<T, Value>)
  Value(const T& object)  // NOLINT(google-explicit-constructor): passing any object is the point
      : data_(&object), type_(&typeid(T)), describe_([](const void* data, CapturedValue& out) {
          CaptureTraits<T>::describe(*static_cast<const T*>(data), out);
        }) {}

  /// The object, or nullptr when it is of another type.
  template <class T>
  const T* get() const {
    return *type_ == typeid(T) ? static_cast<const T*>(data_) : nullptr;
  }

  /// The object. Throws TypeError that names both types.
  template <class T>
  const T& as() const {
    const T* const object = get<T>();
    if (object == nullptr) {
      throw TypeError("a rubric expected " + readable_type_name(typeid(T)) + " and got " +
                      readable_type_name(*type_));
    }
    return *object;
  }

  /// The text of a std::string, std::string_view or const char*. Throws TypeError for anything else.
  std::string_view text() const;

  void capture(CapturedValue& out) const { describe_(data_, out); }

 private:
  const void* data_;
  const std::type_info* type_;
  void (*describe_)(const void*, CapturedValue&);
};

}  // namespace rubriscope
