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
      divert_near_(false) {}

void Lane::start(uint8_t number, const Settings& settings, bool stored, Events& events, const Clock& clock) {
  number_ = number;
  settings_ = settings;
  stored_ = stored;
  events_ = &events;
  clock_ = &clock;
  gate_.start(settings_, stored_);
  if (stored_) gate_.hold(settings_.action(kSafeAction), settings_, clock.us());
  switch_relay();
}

// ---- what others ask

State Lane::state() const {
  if (!committed_) return kWaiting;
  if (faults_.has(kHoldsGate)) return kSafeState;
  if (faults_.has(kSilentHost)) return kSafeState;
  return faults_.has(kStopsLine) ? kStoppedState : kRunning;
}

Lamp Lane::lamp() const {
  if (faults_.has(kHoldsGate) || faults_.has(kStopsLine)) return kRed;
  if (!committed_ || faults_.has(kSilentHost) || faults_.has(kWarning)) return kYellow;
  return kGreen;
}

Lamp Lane::lamp_lit() const {
  if (test_ != kTestLamp) return lamp();
  const uint32_t left_us = test_until_us_ - clock_->us();
  return left_us > 2 * kTestMs * 1000UL ? kGreen : left_us > kTestMs * 1000UL ? kYellow : kRed;
}

void Lane::switch_relay() {
  const bool stops = settings_.action(kSafeAction) == kStop;
  relay_closed_ = test_ != kTestRelay && !faults_.has(kStopsLine) &&
                  (committed_ ? !(faults_.has(kHoldsGate) && stops) : stored_ && !stops);
}

Place Lane::place() const {
  return settings_[kEncoder] ? travelled_ * kPlacesPerStep : places_of_us(travelled_);
}

// ---- what the plant does

void Lane::steps(int16_t count) {
  if (count == 0 || !settings_[kEncoder]) return;
  const uint32_t passed_us = clock_->us() - stepped_us_;
  const uint32_t each_us = count > 0 ? passed_us / static_cast<uint16_t>(count) : 0;
  us_per_step_ = stale_ || each_us > 65535 ? 0 : static_cast<uint16_t>(each_us);
  travelled_ += static_cast<uint32_t>(static_cast<int32_t>(count));
  stepped_us_ = clock_->us();
  stale_ = suspect_ = false;
}

Place Lane::place_at(uint32_t at_us) const {
  if (settings_[kEncoder] || !relay_closed_ || reached(at_us, clock_->us())) return place();
  return places_of_us(travelled_ - (clock_->us() - at_us));
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

void Lane::tick() {
  const uint32_t now_us = clock_->us();
  if (test_ != kNoTest && reached(now_us, test_until_us_)) {
    test_ = kNoTest;
    gate_.end_test();
    switch_relay();
  }
  if (triggers_waiting_ > 0 || pulsing_) fire_triggers();
  if (!committed_ && !gate_.busy()) return;
  const Place here = place();
  if (committed_) {
    watch(here);
    settle_eye(0, now_us);
    settle_eye(1, now_us);
    if (!faults_.has(kHoldsGate)) lengths(here);
    if (!faults_.has(kHoldsGate)) moments(here);
    tracker_.age(here, clock_->now().ms);
    if (grace_ && past(here, grace_until_) >= 0) grace_ = false;
  }
  divert_near_ = divert_is_near(here);
  gate_.tick(here, settings_, now_us, divert_near_);
}

void Lane::watch(Place here) {
  const uint32_t now_us = clock_->us();
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
  const bool first = !committed_;
  settings_ = settings;
  reach_ = settings_.travel(kEyeGapMm) + settings_.travel(kWindowMm);
  stored_ = committed_ = true;
  gate_.configure(settings_);
  switch_relay();
  if (first) begin_counting();
}

void Lane::raise(Fault code, uint32_t detail) {
  if (faults_.in_force(code)) return;
  const bool held_before = faults_.has(kHoldsGate);
  faults_.add(code);
  switch_relay();
  events_->fault(number_, code, true, detail, clock_->now().ms);
  if (effect(code) == kHoldsGate && !held_before) {
    flush();
    gate_.hold(settings_.action(kSafeAction), settings_, clock_->us());
  }
}

bool Lane::end_fault(Fault code) {
  const bool held_before = faults_.has(kHoldsGate);
  if (!faults_.remove(code)) return false;
  switch_relay();
  events_->fault(number_, code, false, 0, clock_->now().ms);
  if (held_before && !faults_.has(kHoldsGate) && committed_) begin_counting();
  return true;
}

bool Lane::cause_persists(Fault code) const {
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
  eyes_[0].settle(clock_->us(), 0);
  eyes_[1].settle(clock_->us(), 0);
  missing_row_ = unmatched_row_ = 0;
  grace_until_ = place() + reach_;
  grace_ = true;
  suspect_ = false;
  gate_.hold(kNone, settings_, clock_->us());
}

void Lane::test(Test what) {
  if (what == kTestTrigger) {
    triggers_[0] = static_cast<uint16_t>(clock_->us() >> kTriggerLog2);
    triggers_waiting_ = 1;
    return;
  }
  test_ = what;
  test_until_us_ = clock_->us() + uint32_t{kTestMs} * (what == kTestLamp ? 3000 : 1000);
  if (what == kTestGate) gate_.test(settings_, clock_->us());
  switch_relay();
}

}  // namespace castline
