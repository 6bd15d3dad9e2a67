// The board's answers to commands, in the order of firmware/PROTOCOL.md, "Commands". All commands first pass check_command().
#include "board.h"

namespace castline {

namespace {

const char kCommandNames[] PROGMEM = "HELLO CONFIGURE COMMIT SHOW PING SYNC VERDICT CANCEL SEEN ACK STATUS TEST CLEAR RAISE SERVO";
enum CommandName : int8_t { kHello, kConfigure, kCommit, kShow, kPing, kSync, kVerdictName, kCancelName, kSeen, kAck, kStatus, kTest, kClear, kRaise, kServo };

// The fields of each command, in the order of kCommandNames. A letter stands for a field. For example, "lkt+" means that CONFIGURE has a
// lane, a key and a value.
// The last sign says which commands must come before this command:
//   -  nothing
//   +  HELLO
//   *  HELLO and COMMIT
const char kShapes[] PROGMEM = "v- lkt+ l+ lk+ m- - lrpdg* lrp* lrp+ e+ lP- leT+ lc+ r+ lu+";
// The letters of the command shapes above (kShapes) that stand for numbers. kNumberBounds has the bounds of these numbers, in the same
// order.
const char kNumberLetters[] PROGMEM = "v l r p g e m c u";
// Shortest servo pulse of the command SERVO, in microseconds. SERVO also accepts 0.
const uint16_t kLeastServoUs = 544;
const uint32_t kNumberBounds[][2] PROGMEM = {{1, 255}, {0, 4}, {1, 65535}, {0, 99999999UL}, {0, 4}, {0, 65535}, {0, 0xFFFFFFFFUL}, {0, 99}, {0, 2400}};
const uint8_t kMaxValues = 5;
// Positions of the fields in a command. The first field has position 0.
enum FieldIndex : uint8_t { kLaneAt = 0, kRunAt = 1, kKeyAt = 1, kPageAt = 1, kTokenAt = 1, kPulseAt = 1, kCodeAt = 1, kPartAt = 2, kTextAt = 2, kWhatAt = 2, kVerdictAt = 3, kGateAt = 4 };

const char kWarningWords[] PROGMEM = "gate-far chute-far";
const char kAnswerNames[] PROGMEM = "OK ERR";
const char kToldWords[] PROGMEM = "accepted same cancelled none cleared done";
const char kVerdictWords[] PROGMEM = "keep divert";
const char kPageWords[] PROGMEM = "line count gate link eyes edge1 edge2 chute plant";
enum Page : int8_t { kLinePage, kCountPage, kGatePage, kLinkPage, kEyesPage, kEdge1Page, kEdge2Page, kChutePage, kPlantPage };

const char kErrorWords[] PROGMEM =
    "- unknown-command wrong-fields version not-greeted not-committed unknown-setting out-of-bounds inconsistent busy not-supported "
    "unknown-lane fault-present not-clearable";
const char kPartErrorWords[] PROGMEM = "late unknown-run unknown-part conflict";
const uint8_t kFirstPartError = 20;

// Reads a field from `text` into `value`. `letter` stands for the field in kShapes. If the field is a word, `value` gets the word's index.
// Returns false if the field is malformed or out of its bounds.
bool read_field(char letter, const char* text, uint32_t& value) {
  value = 0;
  // The letters k and t stand for a setting's key and value. They are not checked here, because configure() and show() check them.
  if (letter == 'k' || letter == 't') return true;
  const WordList words = letter == 'd' ? kVerdictWords : letter == 'P' ? kPageWords : letter == 'T' ? kTestWords : nullptr;
  if (words != nullptr) {
    const int8_t index = find_word(words, text);
    value = static_cast<uint32_t>(index);
    return index >= 0;
  }
  const char name[] = {letter, '\0'};
  const uint32_t* bounds = kNumberBounds[find_word(kNumberLetters, name)];
  return read_number(text, value) && value >= pgm_read_dword(bounds) && value <= pgm_read_dword(bounds + 1);
}

}  // namespace

uint8_t Board::write_answer(char* buffer) {
  FrameWriter answer(buffer, '<', deframer_.seq());
  answer.word(kAnswerNames, 0);
  const Error error = command(answer);
  if (error == kNoError) return answer.close();
  FrameWriter refusal(buffer, '<', deframer_.seq());
  refusal.word(kAnswerNames, 1).number(error);
  if (error < kFirstPartError) {
    refusal.word(kErrorWords, error);
  } else {
    refusal.word(kPartErrorWords, static_cast<uint8_t>(error - kFirstPartError));
  }
  return refusal.close();
}

// Checks a command in this order: Are the fields valid? Has HELLO come? Does the lane exist? Has the lane had its COMMIT?
// Reads the fields into `values`, and sets lane_.
Board::Error Board::check_command(int8_t name, uint32_t* values) {
  WordList shape = kShapes;
  for (; name > 0; ++shape) {
    if (pgm_read_byte(shape) == ' ') --name;
  }
  bool has_lane = false, is_for_board_too = false;
  uint8_t index = 0;
  char letter;
  for (; (letter = static_cast<char>(pgm_read_byte(shape))) > '-'; ++shape, ++index) {
    if (index >= deframer_.fields() || !read_field(letter, deframer_.field(index), values[index])) return kWrongFields;
    has_lane = has_lane || letter == 'l';
    is_for_board_too = is_for_board_too || (letter == 'P' && values[kPageAt] == kLinkPage) || letter == 'c';
  }
  if (letter != '-' && !is_greeted_) return kNotGreeted;
  lane_ = nullptr;
  if (!has_lane) return kNoError;
  const uint32_t lane = values[kLaneAt];
  if (lane > kLanes || (lane == 0 && !is_for_board_too)) return kUnknownLane;
  if (lane > 0) lane_ = &lanes_[lane - 1];
  return letter == '*' && !lane_->is_committed() ? kNotCommitted : kNoError;
}

Board::Error Board::command(FrameWriter& answer) {
  const int8_t name = find_word(kCommandNames, deframer_.name());
  if (name < 0) return kUnknownCommand;
  uint32_t values[kMaxValues];
  const Error error = check_command(name, values);
  if (error != kNoError) return error;
  switch (name) {
    case kHello: return hello(answer);
    case kConfigure: return configure(values, answer);
    case kCommit: return commit(values, answer);
    case kShow: return show(answer);
    case kPing: write_heartbeat(answer); return kNoError;
    case kSync: answer.number(shared_.clock.now().ms).number(shared_.clock.now().us); return kNoError;
    case kVerdictName: return verdict(values, answer);
    case kCancelName: return cancel(values, answer);
    case kSeen: return seen(values);
    case kAck: return acknowledge(values);
    case kStatus: return status(values, answer);
    case kTest: return test(values, answer);
    case kClear: return clear(values, answer);
    case kServo: return servo(values, answer);
    default: return raise_run(values[0], answer);
  }
}

void Board::write_heartbeat(FrameWriter& frame) const {
  uint16_t tracked = 0;
  for (uint8_t index = 0; index < kLanes; ++index) tracked = static_cast<uint16_t>(tracked + lanes_[index].tracked());
  frame.number(shared_.clock.now().ms).word(kStateWords, state()).word(kLampWords, lamp()).number(tracked).number(shared_.events.pending());
}

Board::Error Board::hello(FrameWriter& answer) {
  uint32_t confirms = 0;
  if (deframer_.fields() > 1 && (!read_number(deframer_.field(1), confirms) || confirms > 1)) return kWrongFields;
  sends_confirmed_ = confirms == 1;
  is_greeted_ = true;
  beat_sent_ms_ = shared_.clock.now().ms;
  shared_.events.send_all_again();
  for (uint8_t index = 0; index < kLanes; ++index) lanes_[index].end_fault(kHostSilent);
  answer.number(kVersion).number(run_).word(kCauseWords, cause_).number(kLanes).number(kParts).number(kEvents).number(kWindow).number(kGrades);
  return kNoError;
}

// Sets the run number for all later frames, even for frames about parts and events that are stored already.
Board::Error Board::raise_run(uint32_t run, FrameWriter& answer) {
  if (run > run_) run_ = raised_run_ = static_cast<uint16_t>(run);
  answer.number(run_);
  return kNoError;
}

// Stores a new setting of a lane until COMMIT. To save RAM, the board can store new settings of only one lane at a time.
// So a new setting of another lane deletes the stored settings.
Board::Error Board::configure(const uint32_t* values, FrameWriter& answer) {
  const int8_t key = find_word(kKeyWords, deframer_.field(kKeyAt));
  if (key < 0) return kUnknownSetting;
  uint16_t value;
  if (!read_value(static_cast<uint8_t>(key), deframer_.field(kTextAt), value)) return kOutOfBounds;
  if (uncommitted_.lane != values[kLaneAt]) {
    uncommitted_.settings = lane_->settings();
    uncommitted_.lane = static_cast<uint8_t>(values[kLaneAt]);
  }
  uncommitted_.settings.value[key] = value;
  answer.text(deframer_.field(kKeyAt)).text(deframer_.field(kTextAt));
  return kNoError;
}

Board::Error Board::commit(const uint32_t* values, FrameWriter& answer) {
  const uint8_t number = static_cast<uint8_t>(values[kLaneAt]);
  const bool aside = uncommitted_.lane == number;
  const Settings requested = aside ? uncommitted_.settings : lane_->settings();
  if (!is_consistent(number, requested)) return kInconsistent;
  if (memcmp(&requested, &lane_->settings(), sizeof requested) != 0 && !lane_->is_empty()) return kBusy;
  if (aside) uncommitted_.lane = 0;
  lane_->commit(requested);
  committed_lanes_ = static_cast<uint8_t>(committed_lanes_ | 1 << (number - 1));
  end_board_fault(kAbnormalReset);
  end_board_fault(kSettingsLost);
  answer.digest(requested.digest());
  if (is_gate_far(requested)) {
    answer.word(kWarningWords, 0);
  } else if (is_chute_far(requested)) {
    answer.word(kWarningWords, 1);
  }
  return kNoError;
}

// Returns whether new settings of a lane obey all rules of COMMIT. For example, `lane_of` must name a committed lane with a belt.
bool Board::is_consistent(uint8_t lane, const Settings& requested) const {
  if (!requested.is_consistent() || !are_plant_pins_free(lane, requested)) return false;
  const uint16_t belt = requested[kLaneOf];
  if (belt != 0) {
    if (belt == lane || !lanes_[belt - 1].is_committed() || lanes_[belt - 1].is_further_gate()) return false;
    if (!requested.is_gate_within_reach(lanes_[belt - 1].settings().step_nm())) return false;
  }
  for (uint8_t index = 0; index < kLanes; ++index) {
    const Lane& other = lanes_[index];
    if (other.is_gate_of(lane) && (belt != 0 || !other.settings().is_gate_within_reach(requested.step_nm()))) return false;
  }
  return true;
}

// Returns whether the pins of the lane and of its plant interface are free. Pins that another lane uses are not free.
bool Board::are_plant_pins_free(uint8_t lane, const Settings& requested) const {
  if (lane > kPlantLanes) return !requested[kUsePlant] && !lanes_[lane - 1 - kPlantLanes].uses_plant();
  return !requested[kUsePlant] || !lanes_[lane - 1 + kPlantLanes].is_committed();
}

// Returns whether more castings can be between photo-eye 2 and the gate than the board can store.
bool Board::is_gate_far(const Settings& settings) const {
  const uint32_t spacing_mm = spacing_of(settings);
  return spacing_mm > 0 && settings[kGateMm] > spacing_mm * (settings[kLaneOf] == 0 ? kArmed : kFurtherGateParts);
}

// Returns whether more castings can be between the gate and the chute's eye than the board can store.
bool Board::is_chute_far(const Settings& settings) const {
  const uint32_t spacing_mm = spacing_of(settings), chute_mm = settings[kChuteMm];
  return spacing_mm > 0 && chute_mm > 0 && chute_mm + settings[kChuteWindowMm] > spacing_mm * kChuteParts;
}

// Returns the setting spacing_mm of the belt at which the gate stands.
uint16_t Board::spacing_of(const Settings& settings) const {
  const uint16_t belt = settings[kLaneOf];
  return (belt == 0 ? settings : lanes_[belt - 1].settings())[kSpacingMm];
}

Board::Error Board::show(FrameWriter& answer) {
  const int8_t key = find_word(kKeyWords, deframer_.field(kKeyAt));
  if (key < 0) return kUnknownSetting;
  const uint16_t value = lane_->settings().value[key];
  answer.text(deframer_.field(kKeyAt));
  if (bounds(static_cast<uint8_t>(key)).word) {
    answer.word(kActionWords, static_cast<uint8_t>(value));
  } else {
    answer.number(value);
  }
  return kNoError;
}

// Finds the part that a command names. Returns an error if the part is unknown, or if it is too late to change its verdict.
Board::Error Board::find_part(const uint32_t* values, Part*& part) {
  if (values[kRunAt] != run_) return kUnknownRun;
  if (values[kPartAt] < 1 || values[kPartAt] > lane_->tracker().counted()) return kUnknownPart;
  part = lane_->tracker().find(values[kPartAt]);
  return part == nullptr || part->basis != kUndecided ? kLate : kNoError;
}

Board::Error Board::verdict(const uint32_t* values, FrameWriter& answer) {
  const uint32_t lane = values[kLaneAt], gate = values[kGateAt];
  const bool keep = values[kVerdictAt] == 0;
  if (keep != (gate == 0)) return kWrongFields;
  if (gate != 0 && gate != lane && !lanes_[gate - 1].is_gate_of(static_cast<uint8_t>(lane))) return kNotSupported;
  Part* part = nullptr;
  const Error error = find_part(values, part);
  if (error != kNoError) return error;
  const uint8_t part_verdict = static_cast<uint8_t>(keep ? uint32_t{kKeep} : kReject + (gate == lane ? 0 : gate));
  if (part->verdict >= kKeep) {
    if (part->verdict != part_verdict) return kConflict;
    answer.word(kToldWords, kSame);
    return kNoError;
  }
  part->verdict = part_verdict & 15;
  answer.word(kToldWords, kAccepted);
  return kNoError;
}

Board::Error Board::cancel(const uint32_t* values, FrameWriter& answer) {
  Part* part = nullptr;
  const Error error = find_part(values, part);
  if (error != kNoError) return error;
  const bool had = part->verdict >= kKeep;
  if (had) part->verdict = kVerdictCancelled;
  answer.word(kToldWords, had ? kCancelledWord : kNoneWord);
  return kNoError;
}

Board::Error Board::seen(const uint32_t* values) {
  if (values[kRunAt] != run_) return kUnknownRun;
  Part* part = lane_->tracker().find(values[kPartAt]);
  if (part != nullptr) part->seen = 1;
  return kNoError;
}

Board::Error Board::acknowledge(const uint32_t* values) {
  shared_.events.acknowledge(static_cast<uint16_t>(values[0]));
  const uint32_t lost = shared_.events.take_unreported();
  if (lost > 0) raise_board_fault(kEventsLost, lost);
  return kNoError;
}

Board::Error Board::status(const uint32_t* values, FrameWriter& answer) {
  const uint8_t page = static_cast<uint8_t>(values[kPageAt]);
  answer.word(kPageWords, page);
  if (page == kLinkPage) {
    answer.number(deframer_.good).number(deframer_.damaged).number(overrun_).number(shared_.events.pending()).number(shared_.events.lost());
    return kNoError;
  }
  Lane& lane = *lane_;
  const LaneCounters& counts = lane.counters();
  switch (page) {
    case kLinePage:
      answer.word(kStateWords, lane.state()).number(lane.oldest_fault() ? lane.oldest_fault() : faults_.oldest());
      answer.word(kLampWords, lane.lamp()).number(lane.tracked());
      break;
    case kCountPage:
      answer.number(lane.tracker().counted()).number(counts.diverted).number(counts.passed).number(counts.missing);
      answer.number(counts.unmatched).number(counts.no_verdict);
      break;
    case kGatePage:
      answer.number(lane.pulse_us()).word(kPositionWords, lane.gate().position()).number(lane.gate().moves());
      answer.number(lane.has_servo_power()).number(lane.is_estop_open());
      break;
    case kEdge1Page:
    case kEdge2Page: {
      const EdgeLog& edges = lane.edges(page == kEdge1Page ? 1 : 2);
      answer.number(edges.count).number(edges.ms).number(edges.steps).number(edges.length_ms).number(edges.length_steps);
      break;
    }
    case kChutePage:
      answer.number(lane.is_gate_at_end()).number(lane.is_chute_blocked()).number(lane.is_chute_full()).number(lane.is_button_pressed());
      answer.number(lane.chute_counters().seen).number(lane.chute_counters().unexpected).number(lane.chute_counters().unconfirmed);
      break;
    case kPlantPage:
      for (uint8_t signal = kReadySignal; signal <= kBuzzerSignal; signal = static_cast<uint8_t>(signal << 1)) {
        answer.number((lane.plant_signals() & signal) != 0);
      }
      answer.number(lane.is_reset_pressed()).number(lane.is_bypassed()).number(lane.rejects_in_a_row());
      break;
    default:
      answer.number(lane.is_blocked(1)).number(lane.is_blocked(2)).number(lane.position_steps()).number(lane.is_belt_on());
  }
  return kNoError;
}

Board::Error Board::test(const uint32_t* values, FrameWriter& answer) {
  const uint8_t index = static_cast<uint8_t>(values[kLaneAt] - 1), bit = static_cast<uint8_t>(1 << index);
  const Test what = static_cast<Test>(values[kWhatAt]);
  if ((has_token_ & bit) && tokens_[index] == values[kTokenAt]) {
    answer.word(kToldWords, kSame);
    return kNoError;
  }
  if (!lane_->is_empty() || lane_->is_testing() || lane_->is_servo_held()) return kBusy;
  if (what == kTestGate && !lane_->is_committed()) return kNotCommitted;
  if (what == kTestGate && lane_->is_gate_held()) return kFaultPresent;
  has_token_ |= bit;
  tokens_[index] = static_cast<uint16_t>(values[kTokenAt]);
  lane_->test(what);
  answer.word(kToldWords, kDone);
  return kNoError;
}

Board::Error Board::servo(const uint32_t* values, FrameWriter& answer) {
  const uint16_t pulse_us = static_cast<uint16_t>(values[kPulseAt]);
  if (pulse_us > 0) {
    if (pulse_us < kLeastServoUs) return kOutOfBounds;
    if (!lane_->is_empty() || lane_->is_testing() || lane_->is_belt_blocked()) return kBusy;
    if (lane_->is_gate_held()) return kFaultPresent;
  }
  lane_->hold_servo(pulse_us);
  answer.word(kToldWords, kDone);
  return kNoError;
}

Board::Error Board::clear(const uint32_t* values, FrameWriter& answer) {
  const Fault code = static_cast<Fault>(values[kCodeAt]);
  const Faults& faults = lane_ == nullptr ? faults_ : lane_->faults();
  if (values[kCodeAt] < kFirstFault || !faults.is_in_force(code)) {
    answer.word(kToldWords, kNoneWord);
    return kNoError;
  }
  if (end(code) != kByClear) return kNotClearable;
  if (lane_ == nullptr) {
    end_board_fault(code);
  } else {
    if (lane_->has_fault_cause(code)) return kFaultPresent;
    lane_->end_fault(code);
  }
  answer.word(kToldWords, kCleared);
  return kNoError;
}

}  // namespace castline
