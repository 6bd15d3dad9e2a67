#include "board.h"

namespace castline {

const char kCauseWords[] PROGMEM = "power button brown-out watchdog unknown";

namespace {
const char kEventNames[] PROGMEM = "BOOT BEAT PART GATE FAULT";
enum EventName : uint8_t { kBoot, kBeat, kPart, kGate, kFault };
}  // namespace

void Board::start(uint32_t now_us, uint16_t run, Cause cause, const Settings* settings, const Stored* stored) {
  common_.clock.start(now_us);
  common_.lanes = lanes_;
  run_ = run;
  cause_ = cause;
  aside_.lane = 0;
  bool damaged = false;
  for (uint8_t index = 0; index < kLanes; ++index) {
    damaged = damaged || stored[index] == kDamaged;
    lanes_[index].start(static_cast<uint8_t>(index + 1), settings[index], stored[index] == kStored, common_);
  }
  if (cause == kBrownOut) raise_board(kAbnormalReset, 1);
  if (cause == kWatchdog) raise_board(kAbnormalReset, 2);
  if (damaged) raise_board(kSettingsLost, 0);
}

void Board::advance(uint32_t now_us) {
  if (!reached(now_us, common_.clock.us())) return;  // a counter read in the moment of its overflow: what is not believed costs nothing
  const uint32_t passed_us = now_us - common_.clock.us();
  common_.clock.advance(now_us);
  for (uint8_t index = 0; index < kLanes; ++index) lanes_[index].advance(passed_us);
}

uint8_t Board::take_committed() {
  const uint8_t lanes = committed_;
  committed_ = 0;
  return lanes;
}

void Board::tick() {
  const uint32_t silence_ms = common_.clock.now().ms - heard_ms_;
  for (uint8_t index = 0; index < kLanes; ++index) lanes_[index].act();
  // Of the lanes in force one is looked at in each loop: their gates' moments are met twice as exactly, and eyes have their own time stamps.
  for (uint8_t index = 0; index < kLanes; ++index) {
    turn_ = static_cast<uint8_t>((turn_ + 1) & (kLanes - 1));
    Lane& lane = lanes_[turn_];
    lane.look();
    if (lane.committed() && !lane.further() && silence_ms > lane.settings()[kHostTimeoutMs]) lane.raise(kHostSilent, silence_ms);
    if (lane.committed()) return;
  }
}

State Board::state() const {
  State worst = kWaiting;
  for (uint8_t index = 0; index < kLanes; ++index) {
    if (lanes_[index].committed() && lanes_[index].state() > worst) worst = lanes_[index].state();
  }
  return worst;
}

Lamp Board::lamp() const {
  bool any = false;
  Lamp worst = faults_.has(kWarning) ? kYellow : kGreen;
  for (uint8_t index = 0; index < kLanes; ++index) {
    if (!lanes_[index].committed()) continue;
    any = true;
    if (lanes_[index].lamp() > worst) worst = lanes_[index].lamp();
  }
  return any ? worst : kYellow;
}

void Board::raise_board(Fault code, uint32_t detail) {
  faults_.add(code);
  common_.events.fault(0, code, true, detail, common_.clock.now().ms);
}

bool Board::end_board_fault(Fault code) {
  if (!faults_.remove(code)) return false;
  common_.events.fault(0, code, false, 0, common_.clock.now().ms);
  return true;
}

// ---- the wire

void Board::receive(uint8_t byte) {
  if (deframer_.feed(byte)) {
    answering_ = true;
    heard_ms_ = common_.clock.now().ms;
  }
}

uint8_t Board::next_frame(char* buffer) {
  if (answering_) {
    answering_ = false;
    return write_answer(buffer);
  }
  const uint8_t length = write_event(buffer);
  if (length > 0) ++seq_;
  return length;
}

uint8_t Board::write_event(char* buffer) {
  const uint32_t now_ms = common_.clock.now().ms;
  if (!greeted_) {
    if (booted_ && now_ms - beat_ms_ < kBootEveryMs) return 0;
    booted_ = true;
    beat_ms_ = now_ms;
    return write_boot(buffer);
  }
  if (now_ms - beat_ms_ >= kBeatEveryMs) {
    beat_ms_ = now_ms;
    return write_beat(buffer);
  }
  const uint8_t length = write_part(buffer);
  if (length > 0) return length;
  const Event* event = common_.events.due(now_ms);
  return event == nullptr ? 0 : write_kept(buffer, *event);
}

uint8_t Board::write_boot(char* buffer) {
  FrameWriter frame(buffer, '!', seq_);
  frame.word(kEventNames, kBoot).number(kVersion).number(run_).word(kCauseWords, cause_);
  return frame.close();
}

uint8_t Board::write_beat(char* buffer) {
  FrameWriter frame(buffer, '!', seq_);
  frame.word(kEventNames, kBeat);
  put_beat(frame);
  return frame.close();
}

// New parts at once; every kAnnounceEveryMs a round over all that the host has not yet seen.
uint8_t Board::write_part(char* buffer) {
  const uint32_t now_ms = common_.clock.now().ms;
  const bool new_round = static_cast<uint16_t>(now_ms - announce_ms_) >= kAnnounceEveryMs;
  if (new_round) announce_ms_ = static_cast<uint16_t>(now_ms);
  for (uint8_t index = 0; index < kLanes; ++index) {
    Tracker& tracker = lanes_[index].tracker();
    if (new_round) tracker.tell_all_again();
  }
  for (uint8_t index = 0; index < kLanes; ++index) {
    uint32_t number;
    const Part* part = lanes_[index].tracker().next_to_tell(number);
    if (part == nullptr) continue;
    FrameWriter frame(buffer, '!', seq_);
    frame.word(kEventNames, kPart).number(index + 1U).number(run_).number(number).number(Tracker::at_ms(*part, now_ms));
    return frame.close();
  }
  return 0;
}

uint8_t Board::write_kept(char* buffer, const Event& event) {
  FrameWriter frame(buffer, '!', seq_);
  frame.word(kEventNames, event.fault ? kFault : kGate).number(event.number);
  if (event.fault) {
    frame.number(event.outcome).number(event.part).number(event.moved);
    frame.number(static_cast<uint32_t>(event.moves) << 16 | event.travel_ms).number(event.at_ms);
  } else {
    const uint8_t gate = event.outcome > kFurther ? static_cast<uint8_t>(event.outcome - kFurther) : 0;
    frame.number(event.lane + 1U).number(run_).number(event.part).word(kActionWords, gate > 0 ? uint8_t{kDivert} : event.outcome);
    frame.word(kReasonWords, event.reason).number(event.moved).number(event.moves).number(event.at_ms).number(event.travel_ms);
    if (gate > 0) frame.number(gate);
  }
  return frame.close();
}

}  // namespace castline
