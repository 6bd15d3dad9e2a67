#include "board.h"

namespace castline {

const char kCauseWords[] PROGMEM = "power button brown-out watchdog unknown";

namespace {
const char kEventNames[] PROGMEM = "BOOT BEAT PART GATE FAULT";
enum EventName : uint8_t { kBoot, kBeat, kPart, kGate, kFault };
}  // namespace

void Board::start(uint32_t now_us, uint16_t run, Cause cause, const StoredLane* stored) {
  shared_.clock.start(now_us);
  shared_.lanes = lanes_;
  run_ = run;
  cause_ = cause;
  uncommitted_.lane = 0;
  bool damaged = false;
  for (uint8_t index = 0; index < kLanes; ++index) {
    damaged = damaged || stored[index].state == kDamaged;
    lanes_[index].start(static_cast<uint8_t>(index + 1), stored[index], shared_);
  }
  if (cause == kBrownOut) raise_board_fault(kAbnormalReset, 1);
  if (cause == kWatchdog) raise_board_fault(kAbnormalReset, 2);
  if (cause == kUnknownCause) raise_board_fault(kAbnormalReset, 3);
  if (damaged) raise_board_fault(kSettingsLost, 0);
}

void Board::advance(uint32_t now_us) {
  // While the hardware timer overflows, `now_us` can be less than in the previous call. Such a time is ignored.
  if (!reached(now_us, shared_.clock.us())) return;
  const uint32_t passed_us = now_us - shared_.clock.us();
  shared_.clock.advance(now_us);
  for (uint8_t index = 0; index < kLanes; ++index) lanes_[index].advance(passed_us);
}

uint8_t Board::take_committed() {
  const uint8_t lanes = committed_lanes_;
  committed_lanes_ = 0;
  return lanes;
}

uint16_t Board::take_raised_run() {
  const uint16_t run = raised_run_;
  raised_run_ = 0;
  return run;
}

void Board::move_gates() {
  for (uint8_t index = 0; index < kLanes; ++index) lanes_[index].move_gate();
}

void Board::tick() {
  const uint32_t silence_ms = shared_.clock.now().ms - received_ms_;
  // Each call updates only one lane that has received COMMIT. If each call updated all lanes, the rounds of the main loop would be longer,
  // and the times at which the gates move would have twice the error.
  for (uint8_t index = 0; index < kLanes; ++index) {
    last_updated_ = static_cast<uint8_t>((last_updated_ + 1) & (kLanes - 1));
    Lane& lane = lanes_[last_updated_];
    lane.update();
    if (lane.is_committed() && !lane.is_further_gate() && silence_ms > lane.settings()[kHostTimeoutMs]) lane.raise(kHostSilent, silence_ms);
    if (lane.is_committed()) return;
  }
}

State Board::state() const {
  State worst = kWaiting;
  for (uint8_t index = 0; index < kLanes; ++index) {
    if (lanes_[index].is_committed() && lanes_[index].state() > worst) worst = lanes_[index].state();
  }
  return worst;
}

Lamp Board::lamp() const {
  bool any = false;
  Lamp worst = faults_.has(kWarning) ? kYellow : kGreen;
  for (uint8_t index = 0; index < kLanes; ++index) {
    if (!lanes_[index].is_committed()) continue;
    any = true;
    if (lanes_[index].lamp() > worst) worst = lanes_[index].lamp();
  }
  return any ? worst : kYellow;
}

void Board::raise_board_fault(Fault code, uint32_t detail) {
  faults_.add(code);
  shared_.events.fault(0, code, true, detail, shared_.clock.now().ms);
}

bool Board::end_board_fault(Fault code) {
  if (!faults_.remove(code)) return false;
  shared_.events.fault(0, code, false, 0, shared_.clock.now().ms);
  return true;
}

// ---- bytes and frames

void Board::receive(uint8_t byte) {
  if (deframer_.feed(byte)) {
    is_answer_due_ = true;
    received_ms_ = shared_.clock.now().ms;
  }
}

uint8_t Board::next_frame(char* buffer) {
  if (is_answer_due_) {
    is_answer_due_ = false;
    return write_answer(buffer);
  }
  const uint8_t length = write_event(buffer);
  if (length > 0) ++seq_;
  return length;
}

uint8_t Board::write_event(char* buffer) {
  const uint32_t now_ms = shared_.clock.now().ms;
  if (!is_greeted_) {
    if (is_boot_sent_ && now_ms - beat_sent_ms_ < kBootEveryMs) return 0;
    is_boot_sent_ = true;
    beat_sent_ms_ = now_ms;
    return write_boot(buffer);
  }
  if (now_ms - beat_sent_ms_ >= kBeatEveryMs) {
    beat_sent_ms_ = now_ms;
    return write_beat(buffer);
  }
  const uint8_t length = write_part(buffer);
  if (length > 0) return length;
  const Event* event = shared_.events.take_due(now_ms);
  return event == nullptr ? 0 : write_stored(buffer, *event);
}

uint8_t Board::write_boot(char* buffer) {
  FrameWriter frame(buffer, '!', seq_);
  frame.word(kEventNames, kBoot).number(kVersion).number(run_).word(kCauseWords, cause_);
  return frame.close();
}

uint8_t Board::write_beat(char* buffer) {
  FrameWriter frame(buffer, '!', seq_);
  frame.word(kEventNames, kBeat);
  write_heartbeat(frame);
  return frame.close();
}

// Writes the next PART event. A part is reported again every kAnnounceEveryMs until the host answers SEEN.
uint8_t Board::write_part(char* buffer) {
  const uint32_t now_ms = shared_.clock.now().ms;
  const bool new_round = static_cast<uint16_t>(now_ms - announced_ms_) >= kAnnounceEveryMs;
  if (new_round) announced_ms_ = static_cast<uint16_t>(now_ms);
  for (uint8_t index = 0; index < kLanes; ++index) {
    Tracker& tracker = lanes_[index].tracker();
    if (new_round) tracker.announce_all_again();
  }
  for (uint8_t index = 0; index < kLanes; ++index) {
    uint32_t number;
    const Part* part = lanes_[index].tracker().next_to_announce(number);
    if (part == nullptr) continue;
    FrameWriter frame(buffer, '!', seq_);
    frame.word(kEventNames, kPart).number(index + 1U).number(run_).number(number).number(Tracker::at_ms(*part, now_ms));
    return frame.close();
  }
  return 0;
}

uint8_t Board::write_stored(char* buffer, const Event& event) {
  FrameWriter frame(buffer, '!', seq_);
  frame.word(kEventNames, event.fault ? kFault : kGate).number(event.number);
  if (event.fault) {
    frame.number(event.outcome).number(event.part).number(event.moved);
    frame.number(static_cast<uint32_t>(event.moves) << 16 | event.travel_ms).number(event.at_ms);
  } else {
    const uint8_t gate = event.outcome > kFurther ? static_cast<uint8_t>(event.outcome - kFurther) : 0;
    frame.number(event.lane + 1U).number(run_).number(event.part).word(kActionWords, gate > 0 ? uint8_t{kDivert} : event.outcome);
    frame.word(kReasonWords, event.reason).number(event.moved).number(event.moves).number(event.at_ms).number(event.travel_ms);
    // An older host does not read the field `confirmed`, and could drop the longer frame. So the field is left out for this host.
    const bool is_confirmation_sent = sends_confirmed_ && event.confirmation != kNotEquipped;
    if (gate > 0 || is_confirmation_sent) frame.number(gate);
    if (is_confirmation_sent) frame.number(event.confirmation == kSeenInChute);
  }
  return frame.close();
}

}  // namespace castline
