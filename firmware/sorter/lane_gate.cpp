// Checks the moves of a lane's gate: end switch, eye in the reject chute, and input "chute full". Also handles the push-button.
#include "lane.h"

namespace castline {

void Lane::set_gate_inputs(const GateInputs& inputs) {
  const uint16_t now_us = static_cast<uint16_t>(shared_->clock.us()), hold_us = static_cast<uint16_t>(settings_[kContactMs] * 1000);
  const uint16_t passed_us = static_cast<uint16_t>(now_us - gate_sampled_us_);
  gate_sampled_us_ = now_us;
  gate_at_end_.sample(inputs.at_end, passed_us, hold_us, kGateSampleUs);
  chute_full_.sample(inputs.chute_full, passed_us, hold_us, kGateSampleUs);
  watch_chute(inputs.is_chute_low, passed_us, hold_us);
  if (button_.sample(inputs.button_pressed, passed_us, shared_->clock.now().ms) && settings_[kUseButton]) acknowledge();
}

// Handles the present level of the chute's eye, and ignores short pulses. `passed_us` is the time since the last call.
void Lane::watch_chute(bool is_low, uint16_t passed_us, uint16_t hold_us) {
  const bool is_light_on = belt().settings_[kEyeLightOn] != 0;
  if (is_light_on != is_chute_light_on_) {
    // The setting `eye_light_on` has changed, so each level of the input now has the opposite meaning. The stored level is inverted too,
    // because the board would otherwise count a casting that does not exist.
    is_chute_light_on_ = is_light_on;
    chute_eye_.invert(hold_us);
  }
  const bool blocked = is_low != is_light_on;
  if (blocked != chute_eye_.level()) chute_place_ = belt().place() & kPlaceMask;
  if (!chute_eye_.sample(blocked, passed_us, hold_us, kGateSampleUs)) return;
  if (!chute_eye_.is_on()) {
    chute_end_ = chute_place_;
    has_chute_end_ = true;
  } else if (!has_chute_end_ || !belt().is_short(past(chute_place_, chute_end_))) {
    see_in_chute(chute_place_);
  }
}

void Lane::see_in_chute(Place place) {
  if (!is_committed_ || !has_chute_eye()) return;
  ++chute_counters_.seen;
  const Lane& belt = this->belt();
  uint16_t event;
  if (chute_.take_nearest(place, belt.settings_.places(settings_[kChuteWindowMm]), event)) {
    shared_->events.confirm(event, true);
  } else if (!belt.faults_.has(kHoldsGate) && !belt.ignores_missing_) {
    // No gate has diverted this casting, so it is unexpected in the chute. Such castings are not counted during a fault and shortly after
    // it: a fault can hold the gate out, and then all castings fall into the chute.
    ++chute_counters_.unexpected;
  }
}

// Adds a diverted part to the parts that the eye in the chute must see. The gate moved for this part at the belt position `moment`.
void Lane::follow_into_chute(uint16_t event, Place moment) {
  if (chute_.add(event, moment + belt().settings_.places(settings_[kChuteMm]))) return;
  shared_->events.confirm(event, false);
  ++chute_counters_.unconfirmed;
  belt().raise(kTrackerFull, kChuteParts + 1);
}

// Reports the parts between the gate and the eye in the chute as not confirmed. Called when a fault begins to hold the gate.
void Lane::give_up_chute() {
  uint16_t event;
  while (chute_.take_oldest(event)) shared_->events.confirm(event, false);
}

// Forgets the belt positions at which castings left the eyes in the chutes, because new settings can change the unit of these positions.
void Lane::forget_chute_ends() {
  for (uint8_t index = 0; index < kLanes; ++index) {
    Lane& other = shared_->lanes[index];
    if (&other.belt() == &belt()) other.has_chute_end_ = false;
  }
}

// Raises the faults of this lane's own gate. `here` is the present position of the belt.
void Lane::check_gate(Place here) {
  const uint32_t now_ms = shared_->clock.now().ms;
  if (settings_[kUseEndSwitch]) {
    const uint32_t limit_us = (2 * uint32_t{settings_[kServoMs]} + kEndMarginMs) * 1000;
    const uint16_t leave_ms = static_cast<uint16_t>(settings_[kServoMs] / 2 + settings_[kContactMs] + kLeaveMarginMs);
    // The command SERVO can hold the gate between its two ends. So the time limit for reaching an end starts when SERVO has ended.
    if (is_servo_held()) end_switch_.restart(gate_.is_out(), shared_->clock.us());
    const GateTrouble trouble = end_switch_.check(is_gate_at_end(), gate_.is_out(), shared_->clock.us(), limit_us, leave_ms);
    if (trouble != kNoTrouble) belt().raise(kGateStuck, trouble);
  }
  if (!is_chute_full()) chute_had_room_ms_ = now_ms;
  if (settings_[kChuteFullMs] > 0 && now_ms - chute_had_room_ms_ >= settings_[kChuteFullMs]) belt().raise(kChuteFull, 0);
  if (has_chute_end_ && !belt().is_short(past(here, chute_end_))) has_chute_end_ = false;
  if (chute_.is_empty()) return;
  const Place window = belt().settings_.places(settings_[kChuteWindowMm]);
  uint16_t event;
  while (chute_.take_overdue(here, window, event)) {
    ++chute_counters_.unconfirmed;
    belt().raise(kChuteMissed, shared_->events.confirm(event, false));
  }
}

// Called when a person has pressed the push-button or the reset button. Ends the belt's faults that CLEAR can end. A fault whose cause is
// still present does not end.
void Lane::acknowledge() {
  Lane& belt = this->belt();
  for (uint8_t index = 0; index < kFaultCodes; ++index) {
    const Fault code = static_cast<Fault>(kFirstFault + index);
    if (belt.faults_.is_in_force(code) && end(code) == kByClear && !belt.has_fault_cause(code)) belt.end_fault(code, kEndedByButton);
  }
}

}  // namespace castline
