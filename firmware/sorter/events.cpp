#include "events.h"

namespace castline {

namespace {
// Time is divided into phases of 256 ms, which have the numbers 1 to 7 again and again. To save RAM, an event stores only the number of the
// phase in which it was sent. Four phases later, the event is sent again.
const uint8_t kPhaseMsLog2 = 8;
const uint8_t kPhases = 7;
const uint8_t kRepeatAfter = (kRepeatEveryMs + 24) >> kPhaseMsLog2;

}  // namespace

// Returns the number (1..7) of the phase at the time `now_ms`. A phase lasts 256 ms.
uint8_t Events::phase(uint32_t now_ms) {
  for (const uint8_t now = static_cast<uint8_t>(now_ms >> kPhaseMsLog2); phase_until_ != now; ++phase_until_) {
    if (++phase_ > kPhases) phase_ = 1;
  }
  return phase_;
}

// Returns memory for a new event, or nullptr if the memory is full. Then the event is lost. Its number is not used for another event, so
// the host sees a gap in the numbers.
Event* Events::add() {
  const uint16_t number = next_++;
  if (is_full()) {
    ++lost_;
    ++unreported_;
    return nullptr;
  }
  Event* event = &at(size_);
  ++size_;
  *event = Event();
  event->number = number;
  return event;
}

uint16_t Events::gate(uint8_t lane, uint32_t part, Decision decision, bool moved, uint16_t moves, uint32_t at_ms, uint16_t travel_ms,
                      Confirmation confirmation) {
  const uint16_t number = next_;
  Event* event = add();
  if (event == nullptr) return number;
  event->part = part & 0x7FFFFFFUL;
  event->lane = (lane - 1) & 3;
  event->moved = moved;
  event->at_ms = at_ms;
  event->travel_ms = travel_ms;
  event->moves = moves;
  event->outcome = (decision.gate > 0 ? kFurther + decision.gate : decision.action) & 7;
  event->reason = decision.reason & 7;
  event->confirmation = confirmation;
  return number;
}

uint32_t Events::confirm(uint16_t number, bool seen) {
  for (uint8_t index = 0; index < size_; ++index) {
    Event& event = at(index);
    if (event.number != number) continue;
    event.confirmation = seen ? kSeenInChute : kUnseen;
    return event.part;
  }
  return 0;
}

void Events::fault(uint8_t lane, Fault code, bool raised, uint32_t detail, uint32_t at_ms) {
  Event* event = add();
  if (event == nullptr) return;
  event->fault = 1;
  event->part = code;
  event->outcome = lane & 7;
  event->moved = raised;
  event->at_ms = at_ms;
  event->travel_ms = static_cast<uint16_t>(detail & 0xFFFF);
  event->moves = static_cast<uint16_t>(detail >> 16);
}

void Events::acknowledge(uint16_t number) {
  uint8_t index = 0;
  while (index < size_ && at(index).number != number) ++index;
  if (index == size_) return;
  // Moves each event that is older than the deleted event by one index. Usually, the deleted event is the oldest, so no event moves.
  for (; index > 0; --index) at(index) = at(static_cast<uint8_t>(index - 1));
  first_ = static_cast<uint8_t>((first_ + 1) % kEvents);
  --size_;
}

void Events::send_all_again() {
  for (uint8_t index = 0; index < size_; ++index) at(index).sent = 0;
}

uint32_t Events::take_unreported() {
  if (is_full()) return 0;
  const uint32_t lost = unreported_;
  unreported_ = 0;
  return lost;
}

const Event* Events::take_due(uint32_t now_ms) {
  if (size_ == 0) return nullptr;
  const uint16_t since_sent_ms = static_cast<uint16_t>(now_ms - sent_ms_);
  if (since_sent_ms < kEventIntervalMs) return nullptr;
  const uint8_t now = phase(now_ms);
  Event* next = nullptr;
  uint8_t older = 0;
  for (uint8_t index = 0; index < size_; ++index) {
    Event& event = at(index);
    if (event.confirmation == kAwaited) continue;
    if (event.sent == 0) {
      // New events are sent before repeated events.
      next = &event;
      break;
    }
    const uint8_t since = static_cast<uint8_t>(now >= event.sent ? now - event.sent : now + kPhases - event.sent);
    const bool due = since >= kRepeatAfter;
    if (due && older < kMaxRepeatedEvents && next == nullptr) next = &event;
    ++older;
  }
  if (next == nullptr) return nullptr;
  next->sent = now & 7;
  sent_ms_ = static_cast<uint16_t>(now_ms);
  return next;
}

}  // namespace castline
