#include "tracker.h"

namespace castline {

const char kReasonWords[] PROGMEM = "verdict no-verdict cancelled spacing touching safe missing unmatched";

namespace {

// The last part is forgotten when the belt has moved this far. Positions have 24 bits and then begin at 0 again. If the belt moved much
// farther, the last part would seem to be before the photo-eye.
const int32_t kForgotten = 1L << 22;

}  // namespace

bool Tracker::add(const Edge& edge) {
  if (size_ == kParts) return false;
  Part& part = (*this)[size_];
  ++size_;
  ++counted_;
  ++unannounced_;
  part = Part();
  part.place = edge.place & kPlaceMask;
  part.at_ms = static_cast<uint16_t>(edge.at.ms);
  return true;
}

Part* Tracker::find(uint32_t number) {
  const uint32_t index = number - front();
  return number >= front() && index < size_ ? &(*this)[static_cast<uint8_t>(index)] : nullptr;
}

int16_t Tracker::nearest(Place place, const Settings& settings) {
  const Place gap = settings.travel(kEyeGapMm);
  int32_t closest = static_cast<int32_t>(settings.travel(kWindowMm)) + 1;
  int16_t found = -1;
  for (uint8_t index = 0; index < size_; ++index) {
    int32_t distance = past(place, (*this)[index].place + gap);
    if (distance < 0) distance = -distance;
    if (distance < closest) {
      closest = distance;
      found = index;
    }
  }
  return found;
}

Decision Tracker::own_decision(const Part& part, const Settings& settings, bool host_silent) const {
  const Action otherwise = settings.action(kNoVerdictAction);
  if (part.touching) return {otherwise, kTouching};
  if (part.verdict == kKeep) return {kPass, kVerdict};
  if (part.verdict >= kReject) return {kDivert, kVerdict, static_cast<uint8_t>(part.verdict - kReject)};
  if (host_silent) return {settings.action(kSafeAction), kSafe};
  return {otherwise, part.verdict == kVerdictCancelled ? kCancelled : kNoVerdict};
}

// Decides about the oldest part, and about the parts that follow it so closely that the gate cannot move between them. All these parts get
// the same action.
void Tracker::decide_front(const Settings& settings, bool host_silent) {
  if ((*this)[0].basis != kUndecided) return;
  const int32_t spacing = static_cast<int32_t>(settings.travel(kSpacingMm));
  uint8_t cluster = 1;
  while (cluster < size_ && past((*this)[cluster].place, (*this)[cluster - 1].place) < spacing) ++cluster;

  const Decision first = own_decision((*this)[0], settings, host_silent);
  bool united = true;
  for (uint8_t index = 1; index < cluster; ++index) {
    united = united && own_decision((*this)[index], settings, host_silent).is_same_movement(first);
  }
  const Decision divided = {settings.action(kNoVerdictAction), kSpacing};
  for (uint8_t index = 0; index < cluster; ++index) {
    Part& part = (*this)[index];
    const bool own = united || own_decision(part, settings, host_silent).is_same_movement(divided);
    part.basis = own ? host_silent ? kOwnDecisionHostSilent : kOwnDecision : kClusterDecision;
  }
}

Decision Tracker::take(Place place, const Settings& settings) {
  const Part& part = (*this)[0];
  Decision decision = {settings.action(kNoVerdictAction), kSpacing};
  if (part.basis != kClusterDecision) decision = own_decision(part, settings, part.basis == kOwnDecisionHostSilent);
  drop_front();
  return keep_spacing(place, settings, decision);
}

Decision Tracker::take_unmatched(Place place, const Settings& settings) {
  return keep_spacing(place, settings, {settings.action(kNoVerdictAction), kUnmatched});
}

// Returns the decision for a part at photo-eye 2. A part less than spacing_mm behind another part gets the other part's decision.
Decision Tracker::keep_spacing(Place place, const Settings& settings, Decision decision) {
  const Decision last = {static_cast<Action>(last_action_), kSpacing, last_gate_};
  if (has_last_ && past(place, last_until_) < 0 && !decision.is_same_movement(last)) decision = last;
  has_last_ = true;
  last_until_ = place + settings.travel(kSpacingMm);
  last_action_ = decision.action & 3;
  last_gate_ = decision.gate & 7;
  return decision;
}

void Tracker::drop_front() {
  first_ = static_cast<uint8_t>((first_ + 1) % kParts);
  --size_;
  if (unannounced_ > size_) unannounced_ = size_;
  if (round_ != kRoundOver && round_ > 0) --round_;
}

const Part* Tracker::next_to_announce(uint32_t& number) {
  while (unannounced_ > 0 || round_ < size_) {
    const uint8_t index = unannounced_ > 0 ? static_cast<uint8_t>(size_ - unannounced_--) : round_++;
    const Part& part = (*this)[index];
    number = front() + index;
    if (!part.seen && part.basis == kUndecided) return &part;
  }
  round_ = kRoundOver;
  return nullptr;
}

void Tracker::age(Place place, uint32_t now_ms) {
  // The decision about the next part can depend on the last part, so the last part stays stored. It stays stored even after the belt has
  // moved spacing_mm, because the next part can already be at photo-eye 2 and wait for its decision.
  if (has_last_ && past(place, last_until_) >= kForgotten) has_last_ = false;
  if (size_ == 0) return;
  // To save time, each call of age() checks the age of one part. There are at most 64 parts, so 64 calls check them all.
  if (++last_aged_ >= size_) last_aged_ = 0;
  Part& part = (*this)[last_aged_];
  if (age_ms(part, now_ms) > kMaxAgeMs) part.at_ms = static_cast<uint16_t>(now_ms - kMaxAgeMs);
}

}  // namespace castline
