// How the board answers each command: firmware/PROTOCOL.md, "Commands". Long because it has one function a command, in the page's order.
#include "board.h"

namespace castline {

namespace {

const char kCommandNames[] PROGMEM = "HELLO CONFIGURE COMMIT SHOW PING SYNC VERDICT CANCEL SEEN ACK STATUS TEST CLEAR";
enum CommandName : int8_t { kHello, kConfigure, kCommit, kShow, kPing, kSync, kVerdictName, kCancelName, kSeen, kAck, kStatus, kTest, kClear };
// The fewest fields of each, in the same order.
const uint8_t kFewestFields[] PROGMEM = {1, 3, 1, 2, 1, 0, 5, 3, 3, 1, 2, 3, 2};

const char kAnswerNames[] PROGMEM = "OK ERR";
const char kToldWords[] PROGMEM = "accepted same cancelled none cleared done";
const char kVerdictWords[] PROGMEM = "keep divert";
const char kPageWords[] PROGMEM = "line count gate link eyes";
enum Page : int8_t { kLinePage, kCountPage, kGatePage, kLinkPage, kEyesPage };

const char kErrorWords[] PROGMEM =
    "- unknown-command wrong-fields version not-greeted not-committed unknown-setting out-of-bounds inconsistent busy not-supported "
    "unknown-lane fault-present not-clearable";
const char kPartErrorWords[] PROGMEM = "late unknown-run unknown-part conflict";
const uint8_t kFirstPartError = 20;

}  // namespace

uint8_t Board::write_answer(char* buffer) {
  FrameWriter answer(buffer, '<', deframer_.seq());
  answer.word(kAnswerNames, 0);
  const Error error = command(answer);
  if (error == kFine) return answer.close();
  FrameWriter refusal(buffer, '<', deframer_.seq());
  refusal.word(kAnswerNames, 1).number(error);
  if (error < kFirstPartError) {
    refusal.word(kErrorWords, error);
  } else {
    refusal.word(kPartErrorWords, static_cast<uint8_t>(error - kFirstPartError));
  }
  return refusal.close();
}

// Field `index` as a number from `least` to `most`.
bool Board::field(uint8_t index, uint32_t least, uint32_t most, uint32_t& value) const {
  return read_number(deframer_.field(index), value) && value >= least && value <= most;
}

Board::Error Board::command(FrameWriter& answer) {
  const int8_t name = find_word(kCommandNames, deframer_.name());
  if (name < 0) return kUnknownCommand;
  if (deframer_.fields() < pgm_read_byte(&kFewestFields[name])) return kWrongFields;
  uint32_t number;
  switch (name) {
    case kHello: return hello(answer);
    case kConfigure: return configure(answer);
    case kCommit: return commit(answer);
    case kShow: return show(answer);
    case kPing:
      if (!field(0, 0, 0xFFFFFFFFUL, number)) return kWrongFields;
      put_beat(answer);
      return kFine;
    case kSync:
      answer.number(clock_.now().ms).number(clock_.now().us);
      return kFine;
    case kVerdictName: return verdict(answer);
    case kCancelName: return cancel(answer);
    case kSeen: return seen();
    case kAck:
      if (!field(0, 0, 65535, number)) return kWrongFields;
      if (!greeted_) return kNotGreeted;
      events_.acknowledge(static_cast<uint16_t>(number));
      number = events_.take_unreported();
      if (number > 0) raise_board(kEventsLost, number);
      return kFine;
    case kStatus: return status(answer);
    case kTest: return test(answer);
    default: return clear(answer);
  }
}

void Board::put_beat(FrameWriter& frame) const {
  uint16_t tracked = 0;
  for (uint8_t index = 0; index < kLanes; ++index) tracked = static_cast<uint16_t>(tracked + lanes_[index].tracked());
  frame.number(clock_.now().ms).word(kStateWords, state()).word(kLampWords, lamp()).number(tracked).number(events_.pending());
}

// The lane of field 0; a well-formed one that this board lacks is told apart from a malformed one.
Board::Error Board::find_lane(bool whole_board_too, bool must_be_committed) {
  uint32_t number;
  lane_ = nullptr;
  if (!field(0, 0, 4, number)) return kWrongFields;
  if (number > kLanes || (number == 0 && !whole_board_too)) return kUnknownLane;
  if (number > 0) lane_ = &lanes_[number - 1];
  return must_be_committed && !lane_->committed() ? kNotCommitted : kFine;
}

Board::Error Board::hello(FrameWriter& answer) {
  uint32_t version;
  if (!field(0, 1, 255, version)) return kWrongFields;
  greeted_ = true;
  beat_ms_ = clock_.now().ms;
  events_.send_again();
  for (uint8_t index = 0; index < kLanes; ++index) lanes_[index].end_fault(kHostSilent);
  answer.number(kVersion).number(run_).word(kCauseWords, cause_).number(kLanes).number(kParts).number(kEvents).number(kWindow).number(0);
  return kFine;
}

// Values are put aside for one lane at a time: a host configures a lane and commits it. What was put aside for another lane is dropped
// when a new lane is begun, which costs 200 bytes less than keeping four sets that nobody needs at once.
Board::Error Board::configure(FrameWriter& answer) {
  uint32_t number;
  if (!field(0, 0, 4, number)) return kWrongFields;
  if (!greeted_) return kNotGreeted;
  const Error error = find_lane(false, false);
  if (error != kFine) return error;
  const int8_t key = find_word(kKeyWords, deframer_.field(1));
  if (key < 0) return kUnknownSetting;
  uint16_t value;
  if (!read_value(static_cast<uint8_t>(key), deframer_.field(2), value)) return kOutOfBounds;
  if (aside_.lane != number) {
    aside_.settings = lane_->settings();
    aside_.lane = static_cast<uint8_t>(number);
  }
  aside_.settings.value[key] = value;
  answer.text(deframer_.field(1)).text(deframer_.field(2));
  return kFine;
}

Board::Error Board::commit(FrameWriter& answer) {
  uint32_t number;
  if (!field(0, 0, 4, number)) return kWrongFields;
  if (!greeted_) return kNotGreeted;
  const Error error = find_lane(false, false);
  if (error != kFine) return error;
  const bool aside = aside_.lane == number;
  const Settings wanted = aside ? aside_.settings : lane_->settings();
  if (wanted[kLaneOf] != 0) return kNotSupported;
  if (!wanted.consistent()) return kInconsistent;
  if (memcmp(&wanted, &lane_->settings(), sizeof wanted) != 0 && !lane_->empty()) return kBusy;
  if (aside) aside_.lane = 0;
  lane_->commit(wanted);
  committed_ = static_cast<uint8_t>(committed_ | 1 << (number - 1));
  end_board_fault(kAbnormalReset);
  end_board_fault(kSettingsLost);
  answer.digest(wanted.digest());
  return kFine;
}

Board::Error Board::show(FrameWriter& answer) {
  uint32_t number;
  if (!field(0, 0, 4, number)) return kWrongFields;
  if (!greeted_) return kNotGreeted;
  const Error error = find_lane(false, false);
  if (error != kFine) return error;
  const int8_t key = find_word(kKeyWords, deframer_.field(1));
  if (key < 0) return kUnknownSetting;
  const uint16_t value = lane_->settings().value[key];
  answer.text(deframer_.field(1));
  if (bounds(static_cast<uint8_t>(key)).word) {
    answer.word(kActionWords, static_cast<uint8_t>(value));
  } else {
    answer.number(value);
  }
  return kFine;
}

// The part of fields 1 and 2 in lane_, when it is on its way and nothing is decided about it.
Board::Error Board::find_part(Part*& part) {
  uint32_t run = 0, number = 0;
  read_number(deframer_.field(1), run);
  read_number(deframer_.field(2), number);
  if (run != run_) return kUnknownRun;
  if (number < 1 || number > lane_->tracker().counted()) return kUnknownPart;
  part = lane_->tracker().find(number);
  return part == nullptr || part->decided != kNone ? kLate : kFine;
}

Board::Error Board::verdict(FrameWriter& answer) {
  uint32_t lane, run, part_number, gate;
  const int8_t word = find_word(kVerdictWords, deframer_.field(3));
  if (!field(0, 0, 4, lane) || !field(1, 1, 65535, run) || !field(2, 0, 99999999UL, part_number) || word < 0 || !field(4, 0, 4, gate)) {
    return kWrongFields;
  }
  if (!greeted_) return kNotGreeted;
  Error error = find_lane(false, true);
  if (error != kFine) return error;
  if ((word == 0) != (gate == 0)) return kWrongFields;
  if (gate != 0 && gate != lane) return kNotSupported;
  Part* part = nullptr;
  error = find_part(part);
  if (error != kFine) return error;
  const Told told = word == 0 ? kKeep : kReject;
  if (part->told >= kKeep) {
    if (part->told != told) return kConflict;
    answer.word(kToldWords, kSame);
    return kFine;
  }
  part->told = told & 3;
  answer.word(kToldWords, kAccepted);
  return kFine;
}

Board::Error Board::cancel(FrameWriter& answer) {
  uint32_t number;
  if (!field(0, 0, 4, number) || !field(1, 1, 65535, number) || !field(2, 0, 99999999UL, number)) return kWrongFields;
  if (!greeted_) return kNotGreeted;
  Error error = find_lane(false, true);
  if (error != kFine) return error;
  Part* part = nullptr;
  error = find_part(part);
  if (error != kFine) return error;
  const bool had = part->told >= kKeep;
  if (had) part->told = kTakenBack;
  answer.word(kToldWords, had ? kCancelledWord : kNoneWord);
  return kFine;
}

Board::Error Board::seen() {
  uint32_t number, run, part_number;
  if (!field(0, 0, 4, number) || !field(1, 1, 65535, run) || !field(2, 0, 99999999UL, part_number)) return kWrongFields;
  if (!greeted_) return kNotGreeted;
  const Error error = find_lane(false, false);
  if (error != kFine) return error;
  if (run != run_) return kUnknownRun;
  Part* part = lane_->tracker().find(part_number);
  if (part != nullptr) part->seen = 1;
  return kFine;
}

Board::Error Board::status(FrameWriter& answer) {
  uint32_t number;
  const int8_t page = find_word(kPageWords, deframer_.field(1));
  if (!field(0, 0, 4, number) || page < 0) return kWrongFields;
  const Error error = find_lane(page == kLinkPage, false);
  if (error != kFine) return error;
  answer.word(kPageWords, static_cast<uint8_t>(page));
  if (page == kLinkPage) {
    answer.number(deframer_.good).number(deframer_.damaged).number(overrun_).number(events_.pending()).number(events_.lost());
    return kFine;
  }
  const Lane& lane = *lane_;
  const Counts& counts = lane.counts();
  switch (page) {
    case kLinePage:
      answer.word(kStateWords, lane.state()).number(lane.faults().oldest() ? lane.faults().oldest() : faults_.oldest());
      answer.word(kLampWords, lane.lamp()).number(lane.tracked());
      break;
    case kCountPage:
      answer.number(lane_->tracker().counted()).number(counts.diverted).number(counts.passed).number(counts.missing);
      answer.number(counts.unmatched).number(counts.no_verdict);
      break;
    case kGatePage:
      answer.number(lane.pulse_us()).word(kPositionWords, lane.gate().position()).number(lane.gate().moves());
      answer.number(lane.servo_power()).number(lane.estop_open());
      break;
    default:
      answer.number(lane.blocked(1)).number(lane.blocked(2)).number(lane.position_steps());
  }
  return kFine;
}

Board::Error Board::test(FrameWriter& answer) {
  uint32_t number, token;
  const int8_t what = find_word(kTestWords, deframer_.field(2));
  if (!field(0, 0, 4, number) || !field(1, 0, 65535, token) || what < 0) return kWrongFields;
  if (!greeted_) return kNotGreeted;
  const Error error = find_lane(false, false);
  if (error != kFine) return error;
  const uint8_t index = static_cast<uint8_t>(number - 1), bit = static_cast<uint8_t>(1 << index);
  if ((tokens_known_ & bit) && tokens_[index] == token) {
    answer.word(kToldWords, kSame);
    return kFine;
  }
  if (!lane_->empty() || lane_->testing()) return kBusy;
  if (what == kTestGate && !lane_->committed()) return kNotCommitted;
  if (what == kTestGate && lane_->faults().has(kHoldsGate)) return kFaultPresent;
  tokens_known_ |= bit;
  tokens_[index] = static_cast<uint16_t>(token);
  lane_->test(static_cast<Test>(what));
  answer.word(kToldWords, kDone);
  return kFine;
}

Board::Error Board::clear(FrameWriter& answer) {
  uint32_t number, value;
  if (!field(0, 0, 4, number) || !field(1, 0, 99, value)) return kWrongFields;
  if (!greeted_) return kNotGreeted;
  const Error error = find_lane(true, false);
  if (error != kFine) return error;
  const Fault code = static_cast<Fault>(value);
  const Faults& faults = lane_ == nullptr ? faults_ : lane_->faults();
  if (value < kFirstFault || !faults.in_force(code)) {
    answer.word(kToldWords, kNoneWord);
    return kFine;
  }
  if (end(code) != kByClear) return kNotClearable;
  if (lane_ == nullptr) {
    end_board_fault(code);
  } else {
    if (lane_->cause_persists(code)) return kFaultPresent;
    lane_->end_fault(code);
  }
  answer.word(kToldWords, kCleared);
  return kFine;
}

}  // namespace castline
