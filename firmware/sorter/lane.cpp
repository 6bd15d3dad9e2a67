#include "lane.h"

namespace castline {

const char kStateWords[] PROGMEM = "waiting running safe stopped";
const char kLampWords[] PROGMEM = "green yellow red off";
const char kTestWords[] PROGMEM = "gate trigger lamp relay";

Lane::Lane()
    : stored_(false),
      committed_(false),
      estop_open_(false),
      servo_power_(true),
      before1_(false),
      counted1_(false),
      before2_(false),
      stale_(true),
      suspect_(false),
      grace_(false),
      pulsing_(false),
      relay_closed_(false),
      divert_near_(false),
      further_(false) {}

void Lane::start(uint8_t number, const Settings& settings, bool stored, Common& common) {
  number_ = number;
  settings_ = settings;
  stored_ = stored;
  further_ = stored && settings_[kLaneOf] != 0;
  common_ = &common;
  gate_.start(settings_, stored_);
  if (stored_) gate_.hold(settings_.action(kSafeAction), settings_, common.clock.us());
  switch_relay();
}

// ---- what others ask

State Lane::state() const {
  if (!committed_) return kWaiting;
  if (further_) return belt().state();
  if (faults_.has(kHoldsGate)) return kSafeState;
  if (faults_.has(kSilentHost)) return kSafeState;
  return faults_.has(kStopsLine) ? kStoppedState : kRunning;
}

Lamp Lane::lamp() const {
  if (further_ && committed_) return belt().lamp();
  if (faults_.has(kHoldsGate) || faults_.has(kStopsLine)) return kRed;
  if (!committed_ || faults_.has(kSilentHost) || faults_.has(kWarning)) return kYellow;
  return kGreen;
}

Lamp Lane::lamp_lit() const {
  if (test_ != kTestLamp) return further_ ? kDark : lamp();
  const uint32_t left_us = test_until_us_ - common_->clock.us();
  return left_us > 2 * kTestMs * 1000UL ? kGreen : left_us > kTestMs * 1000UL ? kYellow : kRed;
}

void Lane::switch_relay() {
  const bool stops = settings_.action(kSafeAction) == kStop;
  relay_closed_ = !further_ && test_ != kTestRelay && !faults_.has(kStopsLine) &&
                  (committed_ ? !(faults_.has(kHoldsGate) && stops) : stored_ && !stops);
}

Place Lane::place() const {
  return settings_[kEncoder] ? travelled_ * kPlacesPerStep : places_of_us(travelled_);
}

// ---- what the plant does

// The belt's speed is taken over at least 16 steps: over the two or three of one loop it would be wrong by a half. No division here: four
// belts bring steps in every loop, and the processor cannot divide. divert_is_near() compares without.
void Lane::steps(int16_t count) {
  if (count == 0 || !settings_[kEncoder]) return;
  travelled_ += static_cast<uint32_t>(static_cast<int32_t>(count));
  stepped_us_ = common_->clock.us();
  const uint16_t took_us = static_cast<uint16_t>(stepped_us_ - measured_us_);
  if (stale_ || count < 0 || count > 200) {
    steps_seen_ = steps_new_ = 0;
    measured_us_ = static_cast<uint16_t>(stepped_us_);
  } else {
    steps_new_ = static_cast<uint8_t>(steps_new_ + count);
    if (steps_new_ >= kSpeedSteps || took_us > kSpeedUs) {
      steps_seen_ = steps_new_;
      steps_took_us_ = took_us;
      steps_new_ = 0;
      measured_us_ = static_cast<uint16_t>(stepped_us_);
    }
  }
  stale_ = suspect_ = false;
}

Place Lane::place_at(uint32_t at_us) const {
  if (settings_[kEncoder] || !relay_closed_ || reached(at_us, common_->clock.us())) return place();
  return places_of_us(travelled_ - (common_->clock.us() - at_us));
}

void Lane::eye(uint8_t which, bool blocked, uint32_t at_us) {
  settle_eye(static_cast<uint8_t>(which - 1), at_us);
  eyes_[which - 1].change(blocked, place_at(at_us), at_us);
  if (committed_ && settings_[kEncoder] && !suspect_ &&
      (stale_ || at_us - stepped_us_ > settings_[kEncoderTimeoutMs] * 1000UL)) {
    suspect_ = true;
    suspect_us_ = at_us;
  }
}

void Lane::inputs(bool estop_open, bool servo_power) {
  estop_open_ = estop_open;
  servo_power_ = servo_power;
}

void Lane::advance(uint32_t passed_us) {
  if (relay_closed_ && !settings_[kEncoder]) travelled_ += passed_us;
}

void Lane::look() {
  const uint32_t now_us = common_->clock.us();
  if (test_ != kNoTest && reached(now_us, test_until_us_)) {
    test_ = kNoTest;
    gate_.end_test();
    switch_relay();
  }
  if (triggers_waiting_ > 0 || pulsing_) fire_triggers();
  if (!committed_) return;
  if (further_) {
    if (supply_fails()) belt().raise(kServoPower, 0);
    return;
  }
  const Place here = place();
  watch(here);
  settle_eye(0, now_us);
  settle_eye(1, now_us);
  if (!faults_.has(kHoldsGate)) lengths(here);
  tracker_.age(here, common_->clock.now().ms);
  if (grace_ && past(here, grace_until_) >= 0) grace_ = false;
}

void Lane::act() {
  if (armed_count_ == 0 && !gate_.busy()) {
    divert_near_ = false;
    return;
  }
  const Place here = belt().place();
  moments(here);  // there are none while a fault holds the gate
  divert_near_ = divert_is_near(here);
  gate_.tick(here, settings_, common_->clock.us(), divert_near_);
}

void Lane::watch(Place here) {
  const uint32_t now_us = common_->clock.us();
  if (estop_open_ && settings_[kUseEstop]) raise(kEmergencyStop, 0);
  if (!servo_power_ && settings_[kUseServoPower]) raise(kServoPower, 0);
  if (settings_[kEncoder]) {
    const uint32_t timeout_us = settings_[kEncoderTimeoutMs] * 1000UL;
    if (now_us - stepped_us_ > timeout_us) stale_ = true;
    if (suspect_ && now_us - suspect_us_ >= timeout_us) {
      suspect_ = false;
      raise(kEncoderStopped, (now_us - suspect_us_) / 1000);
    }
  }
  for (uint8_t index = 0; index < 2; ++index) {
    if (!eyes_[index].blocked()) continue;
    if (past(here, eyes_[index].since()) > static_cast<int32_t>(settings_.travel(kStuckMm))) {
      raise(index == 0 ? kEye1Stuck : kEye2Stuck, 1);
    }
  }
}

// ---- what the host does

void Lane::commit(const Settings& settings) {
  const bool first = !committed_, was_further = further_;
  settings_ = settings;
  reach_ = settings_.travel(kEyeGapMm) + settings_.travel(kWindowMm);
  stored_ = committed_ = true;
  further_ = settings_[kLaneOf] != 0;
  gate_.configure(settings_);
  switch_relay();
  if (further_) {
    while (faults_.oldest() != 0) end_fault(static_cast<Fault>(faults_.oldest()));  // it has no belt that they could be of
    gate_.hold(belt().faults_.has(kHoldsGate) ? belt().settings_.action(kSafeAction) : kNone, settings_, common_->clock.us());
  } else if (first || was_further) {
    begin_counting();
  }
}

void Lane::raise(Fault code, uint32_t detail) {
  if (faults_.in_force(code)) return;
  const bool held_before = faults_.has(kHoldsGate);
  faults_.add(code);
  switch_relay();
  common_->events.fault(number_, code, true, detail, common_->clock.now().ms);
  if (effect(code) == kHoldsGate && !held_before) {
    flush();
    hold_gates(settings_.action(kSafeAction));
  }
}

// All gates of the belt do the same: a part that has passed one of them meets the next.
void Lane::hold_gates(Action action) {
  gate_.hold(action, settings_, common_->clock.us());
  for (uint8_t index = 0; index < kLanes; ++index) {
    Lane& other = common_->lanes[index];
    if (other.is_gate_of(number_)) other.gate_.hold(action, other.settings_, common_->clock.us());
  }
}

bool Lane::end_fault(Fault code) {
  const bool held_before = faults_.has(kHoldsGate);
  if (!faults_.remove(code)) return false;
  switch_relay();
  common_->events.fault(number_, code, false, 0, common_->clock.now().ms);
  if (held_before && !faults_.has(kHoldsGate) && committed_ && !further_) begin_counting();
  return true;
}

bool Lane::empty() const {
  const Lane& belt = this->belt();
  bool none = belt.tracker_.size() == 0 && belt.armed_count_ == 0;
  for (uint8_t index = 0; index < kLanes; ++index) {
    const Lane& other = common_->lanes[index];
    none = none && (other.armed_count_ == 0 || !other.is_gate_of(belt.number_));
  }
  return none;
}

bool Lane::cause_persists(Fault code) const {
  for (uint8_t index = 0; code == kServoPower && index < kLanes; ++index) {
    const Lane& other = common_->lanes[index];
    if (other.is_gate_of(number_) && other.supply_fails()) return true;
  }
  switch (code) {
    case kEye1Stuck: return eyes_[0].blocked();
    case kEye2Stuck: return eyes_[1].blocked();
    case kServoPower: return !servo_power_;
    case kEmergencyStop: return estop_open_;
    default: return false;
  }
}

void Lane::begin_counting() {
  // What stands before an eye now was not seen to arrive.
  before1_ = before2_ = counted1_ = false;
  eyes_[0].settle(common_->clock.us(), 0);
  eyes_[1].settle(common_->clock.us(), 0);
  missing_row_ = unmatched_row_ = 0;
  grace_until_ = place() + reach_;
  grace_ = true;
  suspect_ = false;
  hold_gates(kNone);
}

void Lane::test(Test what) {
  if (what == kTestTrigger) {
    triggers_[0] = static_cast<uint16_t>(common_->clock.us() >> kTriggerLog2);
    triggers_waiting_ = 1;
    return;
  }
  test_ = what;
  test_until_us_ = common_->clock.us() + uint32_t{kTestMs} * (what == kTestLamp ? 3000 : 1000);
  if (what == kTestGate) gate_.test(settings_, common_->clock.us());
  switch_relay();
}

}  // namespace castline
