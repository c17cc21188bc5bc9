// The single-track model of a car with Pacejka's magic formula, and its adjoint, at one sample. T is float or
// double. The equations are in docs/ops/vehicle.md and python/rubriscope/ops/physics/vehicle.py.
#pragma once

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

constexpr int kVehicleStates = 8;    ///< x, y, yaw, vx, vy, yaw rate, front and rear wheel speed
constexpr int kVehicleControls = 3;  ///< steering angle, front and rear axle torque
constexpr int kTyreParameters = 8;   ///< B, C, E, μ longitudinal, then lateral
constexpr int kVehicleParameters = 6 + 2 * kTyreParameters;  ///< the vehicle's, the front and the rear tyre's

constexpr double kGravity = 9.81;
/// Slips divide by √(u² + this²), in m/s, so that they stay bounded and smooth at standstill.
constexpr double kSlipSpeed = 0.5;
/// The combined slip is √(sx² + sy² + this²), smooth at zero.
constexpr double kSlipSmoothing = 1e-4;

/// μ sin(C atan(B s − E (B s − atan(B s)))): p holds B, C, E, μ.
template <class T>
RUBRISCOPE_HD T magic_formula(const T* p, T s) {
  using std::atan;
  using std::sin;
  const T k = p[0] * s;
  return p[3] * sin(p[1] * atan(k - p[2] * (k - atan(k))));
}

/// Adds to p_bar and returns the slip's cotangent.
template <class T>
RUBRISCOPE_HD T magic_formula_adjoint(const T* p, T s, T bar, T* p_bar) {
  using std::atan;
  using std::cos;
  using std::sin;
  const T k = p[0] * s, bend = k - atan(k), phi = k - p[2] * bend, angle = atan(phi);
  const T slope = bar * p[3] * cos(p[1] * angle);
  const T phi_bar = slope * p[1] / (1 + phi * phi);
  const T k_bar = phi_bar * (1 - p[2] + p[2] / (1 + k * k));
  p_bar[0] += k_bar * s;
  p_bar[1] += slope * angle;
  p_bar[2] -= phi_bar * bend;
  p_bar[3] += bar * sin(p[1] * angle);
  return k_bar * p[0];
}

/// An axle's tyre: u, w the velocity along and across the wheel, `spin` its circumferential speed.
template <class T>
struct AxleForce {
  T guard, sx, sy, slip, mx, my, along, across;
};

template <class T>
RUBRISCOPE_HD AxleForce<T> axle_force(const T* tyre, T load, T u, T w, T spin) {
  using std::sqrt;
  AxleForce<T> f;
  f.guard = sqrt(u * u + T(kSlipSpeed * kSlipSpeed));
  f.sx = (spin - u) / f.guard;
  f.sy = -w / f.guard;
  f.slip = sqrt(f.sx * f.sx + f.sy * f.sy + T(kSlipSmoothing * kSlipSmoothing));
  f.mx = magic_formula(tyre, f.slip);
  f.my = magic_formula(tyre + 4, f.slip);
  f.along = load * f.mx * f.sx / f.slip;
  f.across = load * f.my * f.sy / f.slip;
  return f;
}

template <class T>
struct AxleAdjoint {
  T load, u, w, spin;
};

template <class T>
RUBRISCOPE_HD AxleAdjoint<T> axle_adjoint(const T* tyre, T load, T u, const AxleForce<T>& f, T along_bar,
                                          T across_bar, T* tyre_bar) {
  const T cx = f.sx / f.slip, cy = f.sy / f.slip;
  AxleAdjoint<T> bar;
  bar.load = along_bar * f.mx * cx + across_bar * f.my * cy;
  T slip_bar = -(load * bar.load) / f.slip;
  slip_bar += magic_formula_adjoint(tyre, f.slip, along_bar * load * cx, tyre_bar);
  slip_bar += magic_formula_adjoint(tyre + 4, f.slip, across_bar * load * cy, tyre_bar + 4);
  const T sx_bar = along_bar * load * f.mx / f.slip + slip_bar * cx;
  const T sy_bar = across_bar * load * f.my / f.slip + slip_bar * cy;
  const T guard_bar = -(sx_bar * f.sx + sy_bar * f.sy) / f.guard;
  bar.spin = sx_bar / f.guard;
  bar.u = -sx_bar / f.guard + guard_bar * u / f.guard;
  bar.w = -sy_bar / f.guard;
  return bar;
}

/// What the right side and its adjoint both need.
template <class T>
struct SingleTrack {
  T sine, cosine, sine_yaw, cosine_yaw, front_lateral, front_u, load_front, load_rear;
  AxleForce<T> front, rear;
  T along, across;  ///< the front axle's force in the car's axes

  RUBRISCOPE_HD SingleTrack(const T* state, const T* control, const T* p) {
    using std::cos;
    using std::sin;
    const T mass = p[0], a = p[2], b = p[3], radius = p[4];
    const T vx = state[3], vy = state[4], r = state[5];
    sine = sin(control[0]);
    cosine = cos(control[0]);
    sine_yaw = sin(state[2]);
    cosine_yaw = cos(state[2]);
    front_lateral = vy + a * r;
    front_u = vx * cosine + front_lateral * sine;
    const T weight = mass * T(kGravity) / (a + b);
    load_front = weight * b;
    load_rear = weight * a;
    front = axle_force(p + 6, load_front, front_u, front_lateral * cosine - vx * sine, state[6] * radius);
    rear = axle_force(p + 6 + kTyreParameters, load_rear, vx, vy - b * r, state[7] * radius);
    along = front.along * cosine - front.across * sine;
    across = front.along * sine + front.across * cosine;
  }

  RUBRISCOPE_HD void derivative(const T* state, const T* control, const T* p, T* f) const {
    const T vx = state[3], vy = state[4], r = state[5];
    f[0] = vx * cosine_yaw - vy * sine_yaw;
    f[1] = vx * sine_yaw + vy * cosine_yaw;
    f[2] = r;
    f[3] = (along + rear.along) / p[0] + vy * r;
    f[4] = (across + rear.across) / p[0] - vx * r;
    f[5] = (p[2] * across - p[3] * rear.across) / p[1];
    f[6] = (control[1] - p[4] * front.along) / p[5];
    f[7] = (control[2] - p[4] * rear.along) / p[5];
  }

  /// Cotangents of state, control (set) and parameters (added to) for those of f.
  RUBRISCOPE_HD void adjoint(const T* state, const T* control, const T* p, const T* f_bar, T* state_bar,
                             T* control_bar, T* p_bar) const {
    const T mass = p[0], inertia = p[1], a = p[2], b = p[3], radius = p[4], wheel = p[5];
    const T vx = state[3], vy = state[4], r = state[5];
    T vx_bar = f_bar[0] * cosine_yaw + f_bar[1] * sine_yaw - f_bar[4] * r;
    T vy_bar = f_bar[1] * cosine_yaw - f_bar[0] * sine_yaw + f_bar[3] * r;
    T r_bar = f_bar[2] + f_bar[3] * vy - f_bar[4] * vx;
    const T along_bar = f_bar[3] / mass, across_bar = f_bar[4] / mass + f_bar[5] * a / inertia;
    const T rear_along_bar = f_bar[3] / mass - f_bar[7] * radius / wheel;
    const T rear_across_bar = f_bar[4] / mass - f_bar[5] * b / inertia;
    const T front_along_bar = along_bar * cosine + across_bar * sine - f_bar[6] * radius / wheel;
    const T front_across_bar = across_bar * cosine - along_bar * sine;

    const AxleAdjoint<T> one =
        axle_adjoint(p + 6, load_front, front_u, front, front_along_bar, front_across_bar, p_bar + 6);
    const AxleAdjoint<T> two = axle_adjoint(p + 6 + kTyreParameters, load_rear, vx, rear, rear_along_bar,
                                            rear_across_bar, p_bar + 6 + kTyreParameters);

    const T cosine_bar =
        along_bar * front.along + across_bar * front.across + one.u * vx + one.w * front_lateral;
    const T sine_bar =
        across_bar * front.along - along_bar * front.across + one.u * front_lateral - one.w * vx;
    const T front_lateral_bar = one.u * sine + one.w * cosine;
    vx_bar += one.u * cosine - one.w * sine + two.u;
    vy_bar += front_lateral_bar + two.w;
    r_bar += front_lateral_bar * a - two.w * b;

    state_bar[0] = T(0);
    state_bar[1] = T(0);
    state_bar[2] =
        f_bar[1] * (vx * cosine_yaw - vy * sine_yaw) - f_bar[0] * (vx * sine_yaw + vy * cosine_yaw);
    state_bar[3] = vx_bar;
    state_bar[4] = vy_bar;
    state_bar[5] = r_bar;
    state_bar[6] = one.spin * radius;
    state_bar[7] = two.spin * radius;
    control_bar[0] = sine_bar * cosine - cosine_bar * sine;
    control_bar[1] = f_bar[6] / wheel;
    control_bar[2] = f_bar[7] / wheel;

    // The loads are m g b/L in front and m g a/L behind.
    const T base = a + b, share = one.load * b + two.load * a, gravity = T(kGravity);
    p_bar[0] += gravity * share / base -
                (f_bar[3] * (along + rear.along) + f_bar[4] * (across + rear.across)) / (mass * mass);
    p_bar[1] -= f_bar[5] * (a * across - b * rear.across) / (inertia * inertia);
    p_bar[2] += f_bar[5] * across / inertia + front_lateral_bar * r +
                mass * gravity * (two.load - share / base) / base;
    p_bar[3] +=
        -f_bar[5] * rear.across / inertia - two.w * r + mass * gravity * (one.load - share / base) / base;
    p_bar[4] +=
        one.spin * state[6] + two.spin * state[7] - (f_bar[6] * front.along + f_bar[7] * rear.along) / wheel;
    p_bar[5] -=
        (f_bar[6] * (control[1] - radius * front.along) + f_bar[7] * (control[2] - radius * rear.along)) /
        (wheel * wheel);
  }
};

/// Pointers of one call; strides are 0 where a row serves all samples. `next` is null for the right side
/// alone; else the residual (next − state)/dt − f((1 − theta) state + theta next).
template <class T>
struct VehicleCall {
  const T* state;
  const T* control;
  const T* next;
  const T* dt;
  const T* parameters;
  std::int64_t dt_stride, parameter_stride;
  T theta;
};

template <class T>
RUBRISCOPE_HD void vehicle_sample(const VehicleCall<T>& call, std::int64_t i, T* out) {
  const T* const state = call.state + i * kVehicleStates;
  const T* const control = call.control + i * kVehicleControls;
  const T* const p = call.parameters + i * call.parameter_stride;
  if (call.next == nullptr) {
    SingleTrack<T>(state, control, p).derivative(state, control, p, out);
    return;
  }
  const T* const next = call.next + i * kVehicleStates;
  T between[kVehicleStates];
  for (int s = 0; s < kVehicleStates; ++s) between[s] = state[s] + call.theta * (next[s] - state[s]);
  SingleTrack<T>(between, control, p).derivative(between, control, p, out);
  const T rate = 1 / call.dt[i * call.dt_stride];
  for (int s = 0; s < kVehicleStates; ++s) out[s] = (next[s] - state[s]) * rate - out[s];
}

/// Sets the cotangents of one sample's inputs, adds to p_bar; returns dt's.
template <class T>
RUBRISCOPE_HD T vehicle_sample_adjoint(const VehicleCall<T>& call, std::int64_t i, const T* out_bar,
                                       T* state_bar, T* control_bar, T* next_bar, T* p_bar) {
  const T* const state = call.state + i * kVehicleStates;
  const T* const control = call.control + i * kVehicleControls;
  const T* const p = call.parameters + i * call.parameter_stride;
  if (call.next == nullptr) {
    SingleTrack<T>(state, control, p).adjoint(state, control, p, out_bar, state_bar, control_bar, p_bar);
    return T(0);
  }
  const T* const next = call.next + i * kVehicleStates;
  T between[kVehicleStates], f_bar[kVehicleStates], between_bar[kVehicleStates];
  for (int s = 0; s < kVehicleStates; ++s) {
    between[s] = state[s] + call.theta * (next[s] - state[s]);
    f_bar[s] = -out_bar[s];
  }
  SingleTrack<T>(between, control, p).adjoint(between, control, p, f_bar, between_bar, control_bar, p_bar);
  const T rate = 1 / call.dt[i * call.dt_stride];
  T dt_bar = T(0);
  for (int s = 0; s < kVehicleStates; ++s) {
    state_bar[s] = (1 - call.theta) * between_bar[s] - out_bar[s] * rate;
    next_bar[s] = call.theta * between_bar[s] + out_bar[s] * rate;
    dt_bar -= out_bar[s] * (next[s] - state[s]) * rate * rate;
  }
  return dt_bar;
}

}  // namespace rubriscope::ops
