#include "lane.h"

namespace castline {

const char kStateWords[] PROGMEM = "waiting running safe stopped";
const char kLampWords[] PROGMEM = "green yellow red off";
const char kTestWords[] PROGMEM = "gate trigger lamp relay";

Lane::Lane()
    : has_stored_settings_(false),
      is_committed_(false),
      blocks_eye1_(false),
      is_counted1_(false),
      blocks_eye2_(false),
      has_end1_(false),
      has_end2_(false),
      is_encoder_silent_(true),
      has_unstepped_edge_(false),
      ignores_missing_(false),
      is_relay_closed_(false),
      is_divert_near_(false),
      is_further_gate_(false),
      has_chute_end_(false),
      is_chute_light_on_(false) {}

void Lane::start(uint8_t number, const StoredLane& stored, BoardShared& common) {
  number_ = number;
  settings_ = stored.settings;
  has_stored_settings_ = stored.state == kStored;
  is_further_gate_ = has_stored_settings_ && settings_[kLaneOf] != 0;
  shared_ = &common;
  for (uint8_t index = 0; index < kFaultCodes; ++index) {
    const Fault code = static_cast<Fault>(kFirstFault + index);
    if (!is_kept(code) || !(stored.faults & bit_of(code))) continue;
    faults_.add(code);
    common.events.fault(number_, code, true, 0, common.clock.now().ms);
  }
  // After a reset, the program assumes that the inputs of both photo-eyes are high, which usually means free. If `eye_light_on` is set,
  // high means blocked, so the stored levels are inverted.
  if (settings_[kEyeLightOn]) invert_eyes();
  gate_.start(settings_, has_stored_settings_);
  if (has_stored_settings_) gate_.hold(held_action(), settings_, common.clock.us());
  restart_plant_inputs();
  switch_relay();
}

// ---- state and outputs

State Lane::state() const {
  if (!is_committed_) return kWaiting;
  if (is_further_gate_) return belt().state();
  if (faults_.has(kHoldsGate) || is_bypassed()) return kSafeState;
  if (faults_.has(kSilentHost)) return kSafeState;
  return faults_.has(kStopsLine) ? kStoppedState : kRunning;
}

Lamp Lane::lamp() const {
  if (is_further_gate_ && is_committed_) return belt().lamp();
  if (faults_.has(kHoldsGate) || faults_.has(kStopsLine)) return kRed;
  if (!is_committed_ || is_bypassed() || faults_.has(kSilentHost) || faults_.has(kWarning)) return kYellow;
  return kGreen;
}

Lamp Lane::shown_lamp() const {
  const bool is_dark = is_further_gate_ || (is_bypassed() && shared_->clock.now().ms & 512);
  if (test_ != kTestLamp) return is_dark ? kDark : lamp();
  const uint32_t left_us = test_until_us_ - shared_->clock.us();
  return left_us > 2 * kTestMs * 1000UL ? kGreen : left_us > kTestMs * 1000UL ? kYellow : kRed;
}

void Lane::switch_relay() {
  const bool stops = settings_.action(kSafeAction) == kStop;
  if (is_bypassed()) {
    is_relay_closed_ = test_ != kTestRelay && !faults_.is_in_force(kEmergencyStop);
    return;
  }
  is_relay_closed_ = !is_further_gate_ && test_ != kTestRelay && !faults_.has(kStopsLine) &&
                  (is_committed_ ? !(faults_.has(kHoldsGate) && stops) : has_stored_settings_ && !stops);
}

Place Lane::place() const {
  return settings_[kEncoder] ? steps_ * kPlacesPerStep : places_of_us(travelled_us_);
}

// ---- inputs and time

// Adds encoder steps. Also measures the belt's speed over 16 steps or 30 ms, because a measurement over two or three steps could be wrong
// by 50 %.
void Lane::add_steps(int16_t count) {
  if (count == 0) return;
  steps_ += static_cast<uint32_t>(static_cast<int32_t>(count));
  if (!settings_[kEncoder]) return;
  if (steps_ - turned_steps_ + (kLeastSteps - 1) <= 2 * (kLeastSteps - 1)) return;
  turned_steps_ = steps_;
  stepped_us_ = shared_->clock.us();
  const uint16_t duration_us = static_cast<uint16_t>(stepped_us_ - measuring_since_us_);
  if (is_encoder_silent_ || count < 0 || count > 200) {
    measured_steps_ = new_steps_ = 0;
    measuring_since_us_ = static_cast<uint16_t>(stepped_us_);
  } else {
    new_steps_ = static_cast<uint8_t>(new_steps_ + count);
    if (new_steps_ >= kSpeedSteps || duration_us > kSpeedUs) {
      measured_steps_ = new_steps_;
      measured_duration_us_ = duration_us;
      new_steps_ = 0;
      measuring_since_us_ = static_cast<uint16_t>(stepped_us_);
    }
  }
  is_encoder_silent_ = has_unstepped_edge_ = false;
}

Place Lane::place_at(uint32_t at_us) const {
  const uint32_t now_us = shared_->clock.us();
  if (settings_[kEncoder] || reached(at_us, now_us)) return place();
  const uint32_t ago_us = now_us - at_us;
  return places_of_us(travelled_us_ - drive_.travel(ago_us < 65535 ? static_cast<uint16_t>(ago_us) : 65535));
}

void Lane::change_eye(uint8_t which, bool is_low, uint32_t at_us) {
  settle_eye(static_cast<uint8_t>(which - 1), at_us);
  eyes_[which - 1].change(is_low != (settings_[kEyeLightOn] != 0), place_at(at_us), at_us, steps_);
  if (is_committed_ && settings_[kEncoder] && !has_unstepped_edge_ &&
      (is_encoder_silent_ || !reached(stepped_us_ + uint32_t{settings_[kEncoderTimeoutMs]} * 1000, at_us))) {
    has_unstepped_edge_ = true;
    unstepped_edge_us_ = at_us;
  }
}

// Forgets the former levels of the plant interface's inputs. A press of the reset button that has already begun does not count.
void Lane::restart_plant_inputs() {
  reset_pressed_.assume_on(kKeyMs * 1000U);
  bypass_on_ = Contact();
}

void Lane::set_plant_inputs(bool reset_pressed, bool bypass_on) {
  if (!uses_plant()) return;
  const bool was_pressed = is_reset_pressed();
  reset_pressed_.sample(reset_pressed, unsampled_us_, kKeyMs * 1000U);
  bypass_on_.sample(bypass_on, unsampled_us_, kKeyMs * 1000U);
  if (was_pressed || !is_reset_pressed()) return;
  plant_.silence();
  acknowledge();
}

void Lane::set_inputs(bool estop_open, bool servo_power, bool belt_runs) {
  const uint16_t passed_us = unsampled_us_, hold_us = static_cast<uint16_t>(settings_[kContactMs] * 1000);
  unsampled_us_ = 0;
  estop_open_.sample(estop_open, passed_us, hold_us);
  servo_power_missing_.sample(!servo_power, passed_us, hold_us);
  const bool ran = runs();
  if (!belt_off_.sample(!belt_runs, passed_us, hold_us) || runs() == ran) return;
  // The belt was switched on or off `hold_us` ago. The lane has waited this long, because it ignores short pulses. During the wait, the
  // lane computed the belt's travel as if nothing had changed. This travel is corrected here.
  travelled_us_ -= drive_.travel(hold_us);
  drive_belt(hold_us);
}

void Lane::advance(uint32_t passed_us) {
  unsampled_us_ = passed_us < 10000 ? static_cast<uint16_t>(unsampled_us_ + passed_us) : 10000;
  if (!settings_[kEncoder]) drive_belt(passed_us);
}

void Lane::drive_belt(uint32_t passed_us) {
  const bool runs = this->runs();
  // While a belt speeds up or slows down evenly, its average speed is half of the full speed. So the time for run_up_mm or run_down_mm is
  // twice the time that this distance takes at full speed.
  const Key ramp = runs ? kRunUpMm : kRunDownMm;
  const bool is_ramp = settings_[ramp] > 0 && !drive_.is_steady(runs);
  travelled_us_ += drive_.advance(runs, passed_us, is_ramp ? 2 * settings_.steps(settings_[ramp]) : 0);
  if (!drive_.is_standing()) edges_at_rest_ = 0;
}

void Lane::update() {
  const uint32_t now_us = shared_->clock.us();
  if (test_ != kNoTest && reached(now_us, test_until_us_)) {
    test_ = kNoTest;
    gate_.end_test();
    switch_relay();
  }
  gate_.tick_held_pulse(now_us);
  if (camera_.is_busy() || camera_.has_lost()) tick_camera();
  settle_eye(0, now_us);
  settle_eye(1, now_us);
  if (now_us - stepped_us_ > settings_[kEncoderTimeoutMs] * 1000UL) is_encoder_silent_ = true;
  if (uses_plant() || is_bypassed()) update_plant();
  if (!is_committed_) return;
  const Place here = belt().place();
  check_gate(here);
  if (is_further_gate_) {
    if (lacks_servo_power()) belt().raise(kServoPower, 0);
    return;
  }
  check_inputs(here);
  if (!faults_.has(kHoldsGate)) check_lengths(here);
  tracker_.age(here, shared_->clock.now().ms);
  if (ignores_missing_ && past(here, ignore_missing_until_) >= 0) ignores_missing_ = false;
}

void Lane::update_plant() {
  if ((uses_plant() && bypass_on_.is_on()) != is_bypassed()) switch_bypass();
  plant_.tick(static_cast<uint16_t>(shared_->clock.now().ms), settings_[kResultMs]);
  const bool has_fault = faults_.has(kHoldsGate) || faults_.has(kStopsLine);
  plant_signals_ = plant_.signals(is_committed_ && !faults_.has(kSilentHost), has_fault);
  if (state() == kRunning) plant_signals_ |= kReadySignal;
  if (!is_empty()) plant_signals_ |= kBusySignal;
}

// Begins or ends the bypass after a person has turned the bypass key. When the bypass begins, the gates let waiting parts pass.
void Lane::switch_bypass() {
  if (is_bypassed()) {
    end_fault(kBypass);
  } else {
    raise(kBypass, 0);
  }
  for (uint8_t index = 0; index < kLanes; ++index) {
    Lane& other = shared_->lanes[index];
    if (&other.belt() != this) continue;
    for (uint8_t at = 0; is_bypassed() && at < other.armed_count_; ++at) {
      other.armed()[at].action = kPass;
      other.armed()[at].reason = kSafe;
    }
  }
  hold_gates();
}

void Lane::move_gate() {
  if (armed_count_ == 0 && !gate_.is_busy()) {
    is_divert_near_ = false;
    return;
  }
  const Place here = belt().place();
  // act_on_moments() moves the gate for waiting parts. When a fault begins to hold the gate, the lane removes all waiting parts, so the
  // gate does not move during the fault.
  act_on_moments(here);
  is_divert_near_ = is_divert_near(here);
  gate_.tick(here, settings_, shared_->clock.us(), is_divert_near_);
}

void Lane::check_inputs(Place here) {
  const uint32_t now_us = shared_->clock.us();
  if (is_estop_open() && settings_[kUseEstop]) raise(kEmergencyStop, 0);
  if (lacks_servo_power()) raise(kServoPower, 0);
  if (edges_at_rest_ >= settings_[kLostLimit]) {
    edges_at_rest_ = 0;
    raise(kEncoderStopped, 0);
  }
  if (settings_[kEncoder]) {
    const uint32_t timeout_us = settings_[kEncoderTimeoutMs] * 1000UL;
    // The sensors are read after the clock, so the time of an edge can be later than `now_us`. reached() also works in this case.
    if (has_unstepped_edge_ && reached(now_us, unstepped_edge_us_ + timeout_us)) {
      has_unstepped_edge_ = false;
      raise(kEncoderStopped, (now_us - unstepped_edge_us_) / 1000);
    }
  }
  for (uint8_t index = 0; index < 2; ++index) {
    if (!eyes_[index].is_blocked()) continue;
    if (past(here, eyes_[index].since()) > static_cast<int32_t>(settings_.travel(kStuckMm))) {
      raise(index == 0 ? kEye1Stuck : kEye2Stuck, 1);
    }
  }
}

// ---- commands of the host, and faults

void Lane::commit(const Settings& settings) {
  const bool first = !is_committed_, was_further = is_further_gate_;
  // A camera pulse waits until its time or, with trigger_mm, until its belt position. If the new settings switch between the two, the
  // waiting pulses are deleted.
  if ((settings.value[kTriggerMm] == 0) != (settings_[kTriggerMm] == 0)) camera_.clear();
  const bool inverts = settings.value[kEyeLightOn] != settings_[kEyeLightOn];
  const bool switches_button = settings.value[kUseButton] != settings_[kUseButton];
  const bool switches_plant = settings.value[kUsePlant] != settings_[kUsePlant];
  settings_ = settings;
  if (inverts) invert_eyes();
  if (switches_plant) restart_plant_inputs();
  if (switches_button) button_ = Button();
  missing_after_ = settings_.travel(kEyeGapMm) + settings_.travel(kWindowMm);
  has_stored_settings_ = is_committed_ = true;
  is_further_gate_ = settings_[kLaneOf] != 0;
  gate_.configure(settings_);
  end_switch_.restart(gate_.is_out(), shared_->clock.us());
  forget_chute_ends();
  chute_had_room_ms_ = shared_->clock.now().ms;
  plant_signals_ = 0;
  switch_relay();
  if (is_further_gate_) {
    // This lane is now an additional gate, and an additional gate has no faults of its own. So the old faults of this lane end.
    while (faults_.oldest() != 0) end_fault(static_cast<Fault>(faults_.oldest()));
    gate_.hold(held_action(), settings_, shared_->clock.us());
    return;
  }
  if (first && !settings_[kAutostart]) raise(kAwaitingStart, 0);
  if (faults_.has(kHoldsGate)) {
    hold_gates();
  } else if (first || was_further || inverts) {
    begin_counting();
  }
}

void Lane::raise(Fault code, uint32_t detail) {
  if (faults_.is_in_force(code)) return;
  const bool held_before = faults_.has(kHoldsGate);
  faults_.add(code);
  switch_relay();
  shared_->events.fault(number_, code, true, detail, shared_->clock.now().ms);
  if (effect(code) >= kStopsLine) plant_.begin_fault();
  if (effect(code) == kHoldsGate && !held_before) {
    remove_parts();
    hold_gates();
  }
}

Action Lane::held_action() const {
  if (belt().is_bypassed()) return kPass;
  return !is_committed_ || belt().faults_.has(kHoldsGate) ? (is_committed_ ? belt() : *this).settings_.action(kSafeAction) : kNone;
}

// Holds or releases all gates of the belt. All gates are held, because a part that passes the first gate reaches the next one.
void Lane::hold_gates() {
  for (uint8_t index = 0; index < kLanes; ++index) {
    Lane& other = shared_->lanes[index];
    if (other.has_stored_settings_ && &other.belt() == this) other.gate_.hold(other.held_action(), other.settings_, shared_->clock.us());
  }
}

bool Lane::end_fault(Fault code, EndedBy by) {
  const bool held_before = faults_.has(kHoldsGate);
  if (!faults_.remove(code)) return false;
  switch_relay();
  if (code == kRejectsInARow) rejects_in_a_row_ = 0;
  shared_->events.fault(number_, code, false, by, shared_->clock.now().ms);
  if (held_before && !faults_.has(kHoldsGate) && is_committed_ && !is_further_gate_) begin_counting();
  return true;
}

bool Lane::is_empty() const {
  const Lane& belt = this->belt();
  bool none = belt.tracker_.size() == 0 && belt.armed_count_ == 0 && belt.chute_.is_empty();
  for (uint8_t index = 0; index < kLanes; ++index) {
    const Lane& other = shared_->lanes[index];
    none = none && ((other.armed_count_ == 0 && other.chute_.is_empty()) || !other.is_gate_of(belt.number_));
  }
  return none;
}

bool Lane::has_fault_cause(Fault code) const {
  for (uint8_t index = 0; index < kLanes; ++index) {
    const Lane& other = shared_->lanes[index];
    if (other.is_gate_of(number_) && other.has_gate_fault_cause(code)) return true;
  }
  if (code == kEye1Stuck) return eyes_[0].is_blocked();
  if (code == kEye2Stuck) return eyes_[1].is_blocked();
  if (code == kEmergencyStop) return is_estop_open();
  return has_gate_fault_cause(code);
}

// Returns whether this lane's own gate still causes the fault `code` of the belt.
bool Lane::has_gate_fault_cause(Fault code) const {
  if (code == kServoPower) return lacks_servo_power();
  if (code == kGateStuck) return settings_[kUseEndSwitch] && !is_gate_at_end();
  return code == kChuteFull && settings_[kChuteFullMs] > 0 && is_chute_full();
}

void Lane::invert_eyes() {
  for (Eye& eye : eyes_) eye.invert(place(), shared_->clock.us(), steps_);
}

void Lane::begin_counting() {
  // A part that blocks an eye now is not counted, because the position of its leading edge is not known.
  blocks_eye1_ = blocks_eye2_ = is_counted1_ = has_end1_ = has_end2_ = false;
  edges_at_rest_ = 0;
  take_edge(0, shared_->clock.us(), 0);
  take_edge(1, shared_->clock.us(), 0);
  // Positions have 24 bits and then begin at 0 again, so the position of a very old leading edge would seem to be ahead of the present one.
  // So each eye now stores the present position of the belt as its leading edge.
  eyes_[0].restart(place());
  eyes_[1].restart(place());
  missing_in_a_row_ = unmatched_in_a_row_ = 0;
  ignore_missing_until_ = place() + missing_after_;
  ignores_missing_ = true;
  has_unstepped_edge_ = false;
  hold_gates();
}

void Lane::test(Test what) {
  if (what == kTestTrigger) {
    camera_.add(camera_position());
    return;
  }
  test_ = what;
  test_until_us_ = shared_->clock.us() + uint32_t{kTestMs} * (what == kTestLamp ? 3000 : 1000);
  if (what == kTestGate) gate_.test(settings_, shared_->clock.us());
  switch_relay();
}

}  // namespace castline
