// The board: up to four lanes, the protocol with the host, and the stored events. The class Board calls no Arduino functions.
//
//   reset --BOOT every second--> HELLO --> CONFIGURE, COMMIT --> counting, deciding, reporting
//
// receive() takes the host's bytes, and next_frame() returns the next frame to send.
#pragma once
#include "clock.h"
#include "config.h"
#include "events.h"
#include "frame.h"
#include "lane.h"

namespace castline {

// Version of the protocol.
const uint8_t kVersion = 1;

enum Cause : uint8_t { kPower, kButton, kBrownOut, kWatchdog, kUnknownCause };
extern const char kCauseWords[] PROGMEM;

class Board {
 public:
  // Must be called once after a reset. `run` is the run number. `stored` points at an array with the data
  // that the EEPROM holds for each lane.
  void start(uint32_t now_us, uint16_t run, Cause cause, const StoredLane* stored);

  // Each round of the main loop calls advance(), passes sensor changes to the lanes, and then calls move_gates() and tick().
  void advance(uint32_t now_us);
  void move_gates();
  void tick();

  // ---- bytes and frames
  bool can_receive() const { return !is_answer_due_; }
  void receive(uint8_t byte);
  // Writes the next frame into `buffer` (kMaxFrameBytes bytes). Returns its length, or 0 if there is nothing to send.
  uint8_t next_frame(char* buffer);
  // Adds `bytes` to the number of bytes that were lost at the serial line.
  void overrun(uint32_t bytes) { overrun_ += bytes; }

  // Returns a lane by its index, which begins with 0.
  Lane& lane(uint8_t index) { return lanes_[index]; }
  // Returns the lanes that have received COMMIT since the last call, as a bit mask. The caller stores their settings in the EEPROM.
  uint8_t take_committed();
  // Returns the run number that the host has sent with RAISE since the last call, or 0 if there is none. The caller stores the run number
  // in the EEPROM.
  uint16_t take_raised_run();
  const Clock& clock() const { return shared_.clock; }
  bool is_greeted() const { return is_greeted_; }
  // Returns whether a host has sent a frame within the last kHostTalksMs.
  bool is_host_talking() const { return is_greeted_ && shared_.clock.now().ms - received_ms_ < kHostTalksMs; }
  State state() const;
  Lamp lamp() const;

 private:
  // The codes of errors, as in firmware/error_codes.csv.
  enum Error : uint8_t {
    kNoError = 0,
    kUnknownCommand = 1,
    kWrongFields,
    kVersionUnknown,
    kNotGreeted,
    kNotCommitted,
    kUnknownSetting,
    kOutOfBounds,
    kInconsistent,
    kBusy,
    kNotSupported,
    kUnknownLane,
    kFaultPresent,
    kNotClearable,
    kLate = 20,
    kUnknownRun,
    kUnknownPart,
    kConflict
  };
  enum ToldWord : uint8_t { kAccepted, kSame, kCancelledWord, kNoneWord, kCleared, kDone };

  // ---- commands, in commands.cpp. A command that succeeds writes its answer to `answer` and returns kNoError.
  uint8_t write_answer(char* buffer);
  Error command(FrameWriter& answer);
  Error check_command(int8_t name, uint32_t* values);
  Error hello(FrameWriter& answer);
  Error raise_run(uint32_t run, FrameWriter& answer);
  Error configure(const uint32_t* values, FrameWriter& answer);
  Error commit(const uint32_t* values, FrameWriter& answer);
  bool is_consistent(uint8_t lane, const Settings& requested) const;
  bool is_gate_far(const Settings& settings) const;
  bool is_chute_far(const Settings& settings) const;
  uint16_t spacing_of(const Settings& settings) const;
  bool are_plant_pins_free(uint8_t lane, const Settings& requested) const;
  Error show(FrameWriter& answer);
  Error verdict(const uint32_t* values, FrameWriter& answer);
  Error cancel(const uint32_t* values, FrameWriter& answer);
  Error seen(const uint32_t* values);
  Error acknowledge(const uint32_t* values);
  Error status(const uint32_t* values, FrameWriter& answer);
  Error test(const uint32_t* values, FrameWriter& answer);
  Error clear(const uint32_t* values, FrameWriter& answer);
  Error servo(const uint32_t* values, FrameWriter& answer);
  Error find_part(const uint32_t* values, Part*& part);
  void write_heartbeat(FrameWriter& frame) const;

  // ---- events
  uint8_t write_event(char* buffer);
  uint8_t write_boot(char* buffer);
  uint8_t write_beat(char* buffer);
  uint8_t write_part(char* buffer);
  uint8_t write_stored(char* buffer, const Event& event);
  void raise_board_fault(Fault code, uint32_t detail);
  bool end_board_fault(Fault code);

  // The new settings of one lane, which wait for COMMIT. `lane` is 0 if no settings wait.
  struct UncommittedSettings {
    Settings settings;
    uint8_t lane;
  };

  BoardShared shared_;
  Lane lanes_[kLanes];
  // Faults of the whole board.
  Faults faults_;
  Deframer deframer_;
  UncommittedSettings uncommitted_;
  // The lane that the current command names, or nullptr if the command is for the whole board.
  Lane* lane_ = nullptr;
  uint32_t received_ms_ = 0;
  // Time of the last BEAT, or of the last BOOT if no HELLO has come yet.
  uint32_t beat_sent_ms_ = 0;
  uint16_t announced_ms_ = 0;
  uint32_t overrun_ = 0;
  uint16_t run_ = 0, raised_run_ = 0;
  uint16_t tokens_[kLanes];
  // Bit mask of the lanes that have received a command TEST since the reset. For these lanes, tokens_ holds the token of the last TEST.
  uint8_t has_token_ = 0;
  uint8_t seq_ = 0;
  // Index of the lane that the last tick() updated.
  uint8_t last_updated_ = 0;
  uint8_t committed_lanes_ = 0;
  Cause cause_ = kPower;
  bool is_greeted_ = false, is_boot_sent_ = false, is_answer_due_ = false;
  // True if the host reads the field `confirmed` of GATE. The host says so in HELLO.
  bool sends_confirmed_ = false;
};

}  // namespace castline
