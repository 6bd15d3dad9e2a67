// The methods of the class Lane that follow the parts from photo-eye 1 to the gate. lane.cpp has the other methods.
#include <string.h>

#include "lane.h"

namespace castline {

namespace {

const uint32_t kMaxPart = 99999999UL;

}  // namespace

// If a change at a photo-eye has lasted for `debounce_us`, stores the change as an edge and returns true. Also ends the command SERVO at
// all gates of the belt, because a casting has come.
bool Lane::take_edge(uint8_t index, uint32_t now_us, uint16_t debounce_us) {
  const Eye& eye = eyes_[index];
  if (!eye.pending() || !eyes_[index].settle(now_us, debounce_us)) return false;
  edge_logs_[index].add(eye.is_blocked(), shared_->clock.at(eye.at_us()).ms, eye.steps());
  for (uint8_t gate = 0; gate < kLanes; ++gate) {
    Lane& other = shared_->lanes[gate];
    if (&other.belt() == this) other.gate_.hold_pulse(0, now_us);
  }
  return true;
}

void Lane::settle_eye(uint8_t index, uint32_t now_us) {
  if (!take_edge(index, now_us, settings_[kDebounceUs])) return;
  if (!is_committed_ || is_further_gate_ || faults_.has(kHoldsGate)) return;
  if (eyes_[index].is_blocked() && settings_[kUseBelt] && stands() && edges_at_rest_ < 255) ++edges_at_rest_;
  if (index == 0) {
    handle_edge1();
  } else {
    handle_edge2();
  }
}

void Lane::handle_edge1() {
  const Place place = eyes_[0].place();
  if (eyes_[0].is_blocked()) {
    if (has_end1_ && is_short(past(place, ends_[0]))) {
      blocks_eye1_ = is_counted1_ = true;
      return;
    }
    edge1_ = {place, shared_->clock.at(eyes_[0].at_us())};
    blocks_eye1_ = true;
    is_counted1_ = false;
    return;
  }
  if (blocks_eye1_) {
    const int32_t length = past(place, edge1_.place);
    if (!is_counted1_ && !is_short(length)) count_part();
    has_end1_ = is_counted1_;
    ends_[0] = place;
    Part* part = is_counted1_ ? tracker_.find(tracker_.counted()) : nullptr;
    if (part != nullptr && part->basis == kUndecided && length > static_cast<int32_t>(settings_.travel(kPartMaxMm))) part->touching = 1;
  }
  blocks_eye1_ = is_counted1_ = false;
}

void Lane::handle_edge2() {
  const Place place = eyes_[1].place();
  if (eyes_[1].is_blocked()) {
    if (has_end2_ && is_short(past(place, ends_[1]))) return;
    edge2_ = {place, shared_->clock.at(eyes_[1].at_us())};
    blocks_eye2_ = true;
    return;
  }
  const bool is_undecided = blocks_eye2_, is_part = !is_undecided || !is_short(past(place, edge2_.place));
  if (is_undecided && is_part) decide_part();
  blocks_eye2_ = false;
  has_end2_ = is_part;
  ends_[1] = place;
}

// Counts a part when the belt has moved by part_min_mm while the part blocked photo-eye 1. Decides about the part when the belt has moved
// by part_min_mm while the part blocked photo-eye 2.
void Lane::check_lengths(Place here) {
  if (has_end1_ && !is_short(past(here, ends_[0]))) has_end1_ = false;
  if (has_end2_ && !is_short(past(here, ends_[1]))) has_end2_ = false;
  if (blocks_eye1_) {
    const int32_t length = past(here, edge1_.place);
    if (!is_counted1_) {
      if (!is_short(length)) count_part();
    } else if (length > static_cast<int32_t>(settings_.travel(kPartMaxMm))) {
      Part* part = tracker_.find(tracker_.counted());
      if (part != nullptr && part->basis == kUndecided) part->touching = 1;
    }
  }
  if (blocks_eye2_ && !is_short(past(here, edge2_.place))) {
    blocks_eye2_ = false;
    decide_part();
  }
  // An object blocks photo-eye 2, and its length is still less than part_min_mm. The object may be a late part, so no part is reported as
  // missing yet.
  if (blocks_eye2_) return;
  while (!faults_.has(kHoldsGate) && tracker_.is_front_overdue(here, missing_after_)) report_missing_front(shared_->clock.now());
}

void Lane::count_part() {
  if (faults_.has(kHoldsGate)) return;
  if (tracker_.counted() >= kMaxPart) {
    raise(kPartsExhausted, 0);
    return;
  }
  if (!tracker_.add(edge1_)) {
    raise(kTrackerFull, tracker_.size());
    return;
  }
  is_counted1_ = true;
  if (settings_[kTriggerMm] > 0) {
    camera_.add(edge1_.place + settings_.travel(kTriggerMm));
    return;
  }
  // The camera is triggered trigger_ms after the leading edge. If more time has passed already, the camera is triggered at once.
  const Stamp& now = shared_->clock.now();
  const uint32_t ago_ms = now.ms - edge1_.at.ms;
  const uint32_t ago_us = ago_ms > 2000 ? 2000000UL : ago_ms * 1000 + now.us - edge1_.at.us;
  const uint32_t delay_us = settings_[kTriggerMs] * 1000UL;
  camera_.add(places_of_us(shared_->clock.us() + (delay_us > ago_us ? delay_us - ago_us : 0)));
}

Place Lane::camera_position() const { return settings_[kTriggerMm] > 0 ? place() : places_of_us(shared_->clock.us()); }

void Lane::tick_camera() {
  camera_.tick(camera_position(), places_of_us(shared_->clock.us()), places_of_us(settings_[kTriggerPulseMs] * 1000UL) + 1);
  if (camera_.has_lost() && !faults_.is_in_force(kTriggerLost)) raise(kTriggerLost, camera_.take_lost());
}

// Decides what to do with the part at photo-eye 2. Reports earlier parts that have not arrived as missing.
void Lane::decide_part() {
  int16_t index = tracker_.nearest(edge2_.place, settings_);
  Armed armed;
  armed.at_ms = edge2_.at.ms;
  armed.travel_ms = 0;
  uint32_t number = 0;
  Decision decision;
  bool is_unjudged = true;
  if (index < 0) {
    decision = tracker_.take_unmatched(edge2_.place, settings_);
    ++counters_.unmatched;
    if (unmatched_in_a_row_ < 255) ++unmatched_in_a_row_;
  } else {
    for (; index > 0 && !faults_.has(kHoldsGate); --index) report_missing_front(edge2_.at);
    // A missing part can raise a fault that holds the gate. When such a fault begins, raise() removes all parts from the tracker, so there
    // is no part to decide about.
    if (faults_.has(kHoldsGate)) return;
    tracker_.decide_front(settings_, faults_.has(kSilentHost));
    const Part& part = tracker_[0];
    is_unjudged = part.verdict < kKeep;
    number = tracker_.front();
    armed.travel_ms = Tracker::travel_ms(part, edge2_.at.ms);
    if (is_unjudged) ++counters_.no_verdict;
    decision = tracker_.take(edge2_.place, settings_);
    missing_in_a_row_ = unmatched_in_a_row_ = 0;
    ignores_missing_ = false;
  }
  if (is_bypassed()) {
    decision = {kPass, kSafe};
    tracker_.forget_last_part();
  }
  armed.part = number & 0x7FFFFFFUL;
  armed.action = decision.action & 3;
  armed.reason = decision.reason & 7;
  Lane& gate = decision.gate > 0 ? shared_->lanes[decision.gate - 1] : *this;
  armed.moment = (edge2_.place + settings_.places(gate.settings_[kGateMm])) & kPlaceMask;
  if (decision.action == kStop) {
    report(number, decision, false, armed.at_ms, armed.travel_ms);
    raise(kStopped, number);
  } else if (!gate.arm(armed)) {
    raise(kTrackerFull, tracker_.size() + kArmed + 1);
    report(number, {held_action(), kSafe}, false, armed.at_ms, armed.travel_ms);
  }
  count_reject(is_unjudged || decision.action == kDivert);
  check_eyes();
}

// Raises fault 57 if reject_limit parts in a row were diverted or had no verdict. During the bypass, the count stays 0.
void Lane::count_reject(bool is_reject) {
  if (!is_reject || is_bypassed()) {
    rejects_in_a_row_ = 0;
  } else if (rejects_in_a_row_ < 255) {
    ++rejects_in_a_row_;
  }
  if (settings_[kRejectLimit] > 0 && rejects_in_a_row_ >= settings_[kRejectLimit]) raise(kRejectsInARow, rejects_in_a_row_);
}

bool Lane::arm(const Armed& requested) {
  if (armed_count_ == (is_further_gate_ ? kFurtherGateArmed : kArmed)) return false;
  armed()[armed_count_++] = requested;
  return true;
}

void Lane::report_missing_front(const Stamp& at) {
  const uint32_t number = tracker_.front();
  const uint16_t travel_ms = Tracker::travel_ms(tracker_[0], at.ms);
  tracker_.drop_front();
  ++counters_.missing;
  if (missing_in_a_row_ < 255) ++missing_in_a_row_;
  report(number, {kNone, kMissing}, false, at.ms, travel_ms);
  check_eyes();
}

// Raises a fault if a photo-eye seems defective:
// - Photo-eye 2 has not seen lost_limit parts in a row: these parts are missing.
// - Photo-eye 1 has not counted lost_limit parts in a row: these parts are unmatched.
void Lane::check_eyes() {
  if (ignores_missing_) {
    if (past(place(), ignore_missing_until_) < 0) {
      missing_in_a_row_ = unmatched_in_a_row_ = 0;
      return;
    }
    ignores_missing_ = false;
  }
  if (missing_in_a_row_ >= settings_[kLostLimit]) {
    raise(kEye2Stuck, 2);
  } else if (unmatched_in_a_row_ >= settings_[kLostLimit]) {
    raise(kEye1Stuck, 2);
  }
}

void Lane::act_on_moments(Place here) {
  while (armed_count_ > 0) {
    if (past(here, next_armed().moment) < 0) return;
    const Armed next = next_armed();
    --armed_count_;
    memmove(armed(), armed() + 1, armed_count_ * sizeof(Armed));
    const Place until = next.moment + belt().settings_.places(settings_[kDwellMm]);
    const bool is_diverted = next.action == kDivert;
    const bool moved = is_diverted && gate_.divert(until, settings_, shared_->clock.us());
    // The event names an additional gate only if this gate diverts the part. During the bypass, the gate lets the part pass, so the event
    // names no additional gate.
    const uint8_t further_gate = is_further_gate_ && is_diverted ? number_ : uint8_t{0};
    const Decision decision = {static_cast<Action>(next.action), static_cast<Reason>(next.reason), further_gate};
    const uint16_t event = report(next.part, decision, moved, next.at_ms, next.travel_ms, true);
    if (is_diverted && has_chute_eye()) follow_into_chute(event, next.moment);
    Lane& belt = this->belt();
    if (!belt.uses_plant() || belt.is_bypassed() || belt.plant_.add_result(is_diverted)) continue;
    belt.raise(kTrackerFull, kWaitingResults);
  }
}

bool Lane::is_divert_near(Place here) const {
  if (armed_count_ == 0 || next_armed().action != kDivert) return false;
  const Lane& belt = this->belt();
  // On a belt that stands still, no part reaches its gate soon, even if the part is close to the gate.
  if (belt.settings_[kEncoder] ? belt.is_encoder_silent_ || shared_->clock.us() - belt.stepped_us_ > 2 * kServoQuietUs : belt.stands()) {
    return false;
  }
  const int32_t left = -past(here, next_armed().moment);
  if (left <= 0) return true;
  if (left >= 65536) return false;
  if (!belt.settings_[kEncoder]) return left < kServoQuietUs >> kMicrosPerPlaceLog2;
  // The part reaches the gate after left / 16 steps. A step takes measured_duration_us_ / measured_steps_ microseconds. To avoid slow
  // divisions, both sides of the comparison are multiplied by 16 * measured_steps_.
  const uint32_t quiet = (uint32_t{kServoQuietUs} << kPlacesPerStepLog2) * belt.measured_steps_;
  return static_cast<uint32_t>(left) * belt.measured_duration_us_ < quiet;
}

// Stores the event GATE. The event names the lane of the belt. Its field `moves` counts the movements of this lane's gate.
// If `awaits_chute` is true and the chute has an eye, the event of a diverted part waits. It is sent when the eye has seen the part, or
// when the part is overdue.
uint16_t Lane::report(uint32_t number, Decision decision, bool moved, uint32_t at_ms, uint16_t travel_ms, bool awaits_chute) {
  Lane& belt = this->belt();
  if (decision.action == kDivert) ++belt.counters_.diverted;
  if (decision.action == kPass) ++belt.counters_.passed;
  const bool is_watched = decision.action == kDivert && has_chute_eye();
  const Confirmation confirmation = !is_watched ? kNotEquipped : awaits_chute ? kAwaited : kUnseen;
  return shared_->events.gate(belt.number_, number, decision, moved, gate_.moves(), at_ms, travel_ms, confirmation);
}

void Lane::remove_armed(Decision safe) {
  for (uint8_t index = 0; index < armed_count_; ++index) {
    const Armed each = armed()[index];
    report(each.part, safe, false, each.at_ms, each.travel_ms);
  }
  armed_count_ = 0;
}

// Removes all parts from the belt when a fault begins to hold the gates. Reports each part with the action of the held gates: divert, pass
// or stop.
void Lane::remove_parts() {
  const Decision safe = {held_action(), kSafe};
  remove_armed(safe);
  give_up_chute();
  for (uint8_t index = 0; index < kLanes; ++index) {
    Lane& other = shared_->lanes[index];
    if (!other.is_gate_of(number_)) continue;
    other.remove_armed(safe);
    other.give_up_chute();
  }
  const uint32_t now_ms = shared_->clock.now().ms;
  while (tracker_.size() > 0) {
    const uint32_t number = tracker_.front();
    const uint16_t travel_ms = Tracker::travel_ms(tracker_[0], now_ms);
    tracker_.drop_front();
    report(number, safe, false, now_ms, travel_ms);
  }
  tracker_.forget_last_part();
}

}  // namespace castline
