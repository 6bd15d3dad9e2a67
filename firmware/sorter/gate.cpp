#include "gate.h"

#include "config.h"

namespace castline {

const char kPositionWords[] PROGMEM = "rest out moving";

void Gate::start(const Settings& settings, bool stored) {
  pulse_us_ = kNeutralUs;
  if (stored) send(settings);
}

bool Gate::divert(Place until, const Settings& settings, uint32_t now_us) {
  if (!is_dwelling_ || past(until, out_until_place_) > 0) out_until_place_ = until;
  is_dwelling_ = true;
  return move(true, settings, now_us);
}

void Gate::hold(Action action, const Settings& settings, uint32_t now_us) {
  is_held_ = action != kNone;
  is_dwelling_ = is_testing_ = false;
  held_us_ = 0;
  if (action == kDivert) move(true, settings, now_us);
  if (action == kPass) move(false, settings, now_us);
}

void Gate::test(const Settings& settings, uint32_t now_us) {
  is_testing_ = true;
  move(true, settings, now_us);
}

void Gate::tick_held_pulse(uint32_t now_us) {
  if (held_us_ != 0 && now_us - held_since_us_ >= kServoHoldMs * 1000UL) held_us_ = 0;
}

void Gate::tick(Place place, const Settings& settings, uint32_t now_us, bool near) {
  if (is_moving_ && reached(now_us, arrives_us_)) is_moving_ = false;
  if (is_held_ || is_testing_) return;
  if (is_dwelling_ && past(place, out_until_place_) >= 0) is_dwelling_ = false;
  if (is_out_ && !is_dwelling_ && !is_moving_ && !near) move(false, settings, now_us);
}

bool Gate::move(bool out, const Settings& settings, uint32_t now_us) {
  if (is_out_ == out) return false;
  is_out_ = out;
  send(settings);
  is_moving_ = true;
  arrives_us_ = now_us + uint32_t{settings[kServoMs]} * 1000;
  if (out) ++moves_;
  return out;
}

}  // namespace castline
