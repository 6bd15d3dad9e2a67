#include "lane.h"

namespace castline {

const char kStateWords[] PROGMEM = "waiting running safe stopped";
const char kLampWords[] PROGMEM = "green yellow red off";
const char kTestWords[] PROGMEM = "gate trigger lamp relay";

namespace {

const uint32_t kLastPart = 99999999UL;
const uint8_t kTriggerLog2 = 6;  // triggers are kept in 64 us

}  // namespace

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

void Lane::settle_eye(uint8_t index, uint32_t now_us) {
  if (!eyes_[index].pending() || !eyes_[index].settle(now_us, settings_[kDebounceUs])) return;
  if (!committed_ || faults_.has(kHoldsGate)) return;
  if (index == 0) {
    at_eye1();
  } else {
    at_eye2();
  }
}

void Lane::at_eye1() {
  const Place place = eyes_[0].place();
  if (eyes_[0].blocked()) {
    edge1_ = {place, clock_->at(eyes_[0].at_us())};
    before1_ = true;
    counted1_ = false;
    return;
  }
  if (before1_) {
    const int32_t length = past(place, edge1_.place);
    if (!counted1_ && length >= static_cast<int32_t>(settings_.travel(kPartMinMm))) count();
    Part* part = counted1_ ? tracker_.find(tracker_.counted()) : nullptr;
    if (part != nullptr && part->decided == kNone && length > static_cast<int32_t>(settings_.travel(kPartMaxMm))) part->touching = 1;
  }
  before1_ = counted1_ = false;
}

void Lane::at_eye2() {
  if (eyes_[1].blocked()) {
    edge2_ = {eyes_[1].place(), clock_->at(eyes_[1].at_us())};
    before2_ = true;
    return;
  }
  if (before2_ && past(eyes_[1].place(), edge2_.place) >= static_cast<int32_t>(settings_.travel(kPartMinMm))) decide();
  before2_ = false;
}

// Parts that still stand before an eye are known as soon as they are long enough.
void Lane::lengths(Place here) {
  if (before1_) {
    const int32_t length = past(here, edge1_.place);
    if (!counted1_) {
      if (length >= static_cast<int32_t>(settings_.travel(kPartMinMm))) count();
    } else if (length > static_cast<int32_t>(settings_.travel(kPartMaxMm))) {
      Part* part = tracker_.find(tracker_.counted());
      if (part != nullptr && part->decided == kNone) part->touching = 1;
    }
  }
  if (before2_ && past(here, edge2_.place) >= static_cast<int32_t>(settings_.travel(kPartMinMm))) {
    before2_ = false;
    decide();
  }
  if (before2_) return;  // what stands there may yet be the one whose window would close
  while (!faults_.has(kHoldsGate) && tracker_.overdue(here, reach_)) miss_front(clock_->now());
}

void Lane::count() {
  if (faults_.has(kHoldsGate)) return;
  if (tracker_.counted() >= kLastPart) {
    raise(kPartsExhausted, 0);
    return;
  }
  if (!tracker_.add(edge1_)) {
    raise(kTrackerFull, tracker_.size());
    return;
  }
  counted1_ = true;
  // The trigger's delay runs from the leading edge, but a camera is not fired before the part is known to be one.
  const Stamp& now = clock_->now();
  const uint32_t ago_ms = now.ms - edge1_.at.ms;
  const uint32_t ago_us = ago_ms > 2000 ? 2000000UL : ago_ms * 1000 + now.us - edge1_.at.us;
  const uint32_t delay_us = settings_[kTriggerMs] * 1000UL;
  const uint32_t wait_us = delay_us > ago_us ? delay_us - ago_us : 0;
  if (triggers_waiting_ == kTriggers) return;  // so many parts within trigger_ms: no camera takes that
  triggers_[triggers_waiting_++] = static_cast<uint16_t>((clock_->us() + wait_us) >> kTriggerLog2);
}

void Lane::fire_triggers() {
  const uint32_t now_us = clock_->us();
  if (pulsing_) {
    if (!reached(now_us, pulse_until_us_)) return;
    pulsing_ = false;
  }
  if (triggers_waiting_ == 0) return;
  const uint16_t now = static_cast<uint16_t>(now_us >> kTriggerLog2);
  if (static_cast<int16_t>(now - triggers_[0]) < 0) return;
  --triggers_waiting_;
  for (uint8_t index = 0; index < triggers_waiting_; ++index) triggers_[index] = triggers_[index + 1];
  pulsing_ = true;
  pulse_until_us_ = now_us + uint32_t{settings_[kTriggerPulseMs]} * 1000;
}

// The part whose leading edge at photo-eye 2 was edge2_ is decided; those that should have come before it are missing.
void Lane::decide() {
  int16_t index = tracker_.nearest(edge2_.place, settings_);
  Armed armed;
  armed.moment = (edge2_.place + settings_.travel(kGateMm)) & kPlaceMask;
  armed.at_ms = edge2_.at.ms;
  armed.travel_ms = 0;
  uint32_t number = 0;
  Decision decision;
  if (index < 0) {
    decision = tracker_.take_unmatched(edge2_.place, settings_);
    ++counts_.unmatched;
    if (unmatched_row_ < 255) ++unmatched_row_;
  } else {
    for (; index > 0 && !faults_.has(kHoldsGate); --index) miss_front(edge2_.at);
    if (faults_.has(kHoldsGate)) return;  // the flush has reported this part too
    tracker_.decide_front(settings_, faults_.has(kSilentHost));
    const Part& part = tracker_[0];
    number = tracker_.front();
    armed.travel_ms = Tracker::travel_ms(part, edge2_.at.ms);
    if (part.told < kKeep) ++counts_.no_verdict;
    decision = tracker_.take(edge2_.place, settings_);
    missing_row_ = unmatched_row_ = 0;
    grace_ = false;
  }
  armed.part = number & 0x7FFFFFFUL;
  armed.action = decision.action & 3;
  armed.reason = decision.reason & 7;
  if (decision.action == kStop) {
    report(number, decision, false, armed.at_ms, armed.travel_ms);
    raise(kStopped, number);
  } else if (armed_count_ < kArmed) {
    armed_[armed_count_++] = armed;
  } else {
    raise(kTrackerFull, tracker_.size() + kArmed + 1);
    report(number, {settings_.action(kSafeAction), kSafe}, false, armed.at_ms, armed.travel_ms);
  }
  suspect_eyes();
}

void Lane::miss_front(const Stamp& at) {
  const uint32_t number = tracker_.front();
  const uint16_t travel_ms = Tracker::travel_ms(tracker_[0], at.ms);
  tracker_.drop_front();
  ++counts_.missing;
  if (missing_row_ < 255) ++missing_row_;
  report(number, {kNone, kMissing}, false, at.ms, travel_ms);
  suspect_eyes();
}

// That an eye is never blocked is concluded from the other one.
void Lane::suspect_eyes() {
  if (grace_) {
    if (past(place(), grace_until_) < 0) {
      missing_row_ = unmatched_row_ = 0;
      return;
    }
    grace_ = false;
  }
  if (missing_row_ >= settings_[kLostLimit]) {
    raise(kEye2Stuck, 2);
  } else if (unmatched_row_ >= settings_[kLostLimit]) {
    raise(kEye1Stuck, 2);
  }
}

void Lane::moments(Place here) {
  while (armed_count_ > 0) {
    const Armed armed = armed_[0];
    if (past(here, armed.moment) < 0) return;
    --armed_count_;
    for (uint8_t index = 0; index < armed_count_; ++index) armed_[index] = armed_[index + 1];
    const bool moved = armed.action == kDivert && gate_.divert(armed.moment, settings_, clock_->us());
    const Decision decision = {static_cast<Action>(armed.action), static_cast<Reason>(armed.reason)};
    report(armed.part, decision, moved, armed.at_ms, armed.travel_ms);
  }
}

bool Lane::divert_is_near(Place here) const {
  if (armed_count_ == 0 || armed_[0].action != kDivert) return false;
  // A belt that stands still may stand still for long.
  if (settings_[kEncoder] ? clock_->us() - stepped_us_ > 2 * kServoQuietUs : !relay_closed_) return false;
  const int32_t left = -past(here, armed_[0].moment);
  if (left <= 0) return true;
  const uint16_t us_per_step = settings_[kEncoder] ? us_per_step_ : 1U << kMicrosPerPlaceLog2 << kPlacesPerStepLog2;
  return us_per_step > 0 && left < 65536 && static_cast<uint32_t>(left) * us_per_step >> kPlacesPerStepLog2 < kServoQuietUs;
}

void Lane::report(uint32_t number, Decision decision, bool moved, uint32_t at_ms, uint16_t travel_ms) {
  if (decision.action == kDivert) ++counts_.diverted;
  if (decision.action == kPass) ++counts_.passed;
  events_->gate(number_, number, decision, moved, gate_.moves(), at_ms, travel_ms);
}

// A fault holds the gate: what is on its way is treated as the lane's owner wants it, reported, and forgotten.
void Lane::flush() {
  const Decision safe = {settings_.action(kSafeAction), kSafe};
  for (uint8_t index = 0; index < armed_count_; ++index) {
    report(armed_[index].part, safe, false, armed_[index].at_ms, armed_[index].travel_ms);
  }
  armed_count_ = 0;
  const uint32_t now_ms = clock_->now().ms;
  while (tracker_.size() > 0) {
    const uint32_t number = tracker_.front();
    const uint16_t travel_ms = Tracker::travel_ms(tracker_[0], now_ms);
    tracker_.drop_front();
    report(number, safe, false, now_ms, travel_ms);
  }
  tracker_.forget_last();
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
