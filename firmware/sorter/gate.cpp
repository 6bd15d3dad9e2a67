#include "gate.h"

#include "config.h"

namespace castline {

const char kPositionWords[] PROGMEM = "rest out moving";

void Gate::start(const Settings& settings, bool stored) {
  pulse_us_ = kNeutralUs;
  if (stored) send(settings);
}

bool Gate::divert(Place until, const Settings& settings, uint32_t now_us) {
  if (!dwelling_ || past(until, out_until_) > 0) out_until_ = until;
  dwelling_ = true;
  return go(true, settings, now_us);
}

void Gate::hold(Action action, const Settings& settings, uint32_t now_us) {
  held_ = action != kNone;
  dwelling_ = testing_ = false;
  if (action == kDivert) go(true, settings, now_us);
  if (action == kPass) go(false, settings, now_us);
}

void Gate::test(const Settings& settings, uint32_t now_us) {
  testing_ = true;
  go(true, settings, now_us);
}

void Gate::tick(Place place, const Settings& settings, uint32_t now_us, bool near) {
  if (moving_ && reached(now_us, arrives_us_)) moving_ = false;
  if (held_ || testing_) return;
  if (dwelling_ && past(place, out_until_) >= 0) dwelling_ = false;
  if (out_ && !dwelling_ && !moving_ && !near) go(false, settings, now_us);
}

bool Gate::go(bool out, const Settings& settings, uint32_t now_us) {
  if (out_ == out) return false;
  out_ = out;
  send(settings);
  moving_ = true;
  arrives_us_ = now_us + uint32_t{settings[kServoMs]} * 1000;
  if (out) ++moves_;
  return out;
}

}  // namespace castline
