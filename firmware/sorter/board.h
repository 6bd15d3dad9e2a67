// The board: up to four lanes, the protocol with the host, and the ring of events. No Arduino call, no heap, nothing that waits.
//
//   reset --BOOT every second--> HELLO --> CONFIGURE, COMMIT --> counting, deciding, reporting
//
// Bytes go in by receive(), frames come out by next_frame() whenever the line is free: answers first, then events. While an answer
// waits for the line, no further command is read; the receive ring holds them meanwhile.
#pragma once
#include "clock.h"
#include "config.h"
#include "events.h"
#include "frame.h"
#include "lane.h"

namespace castline {

const uint8_t kVersion = 1;  // of the protocol

enum Cause : uint8_t { kPower, kButton, kBrownOut, kWatchdog, kUnknownCause };
extern const char kCauseWords[] PROGMEM;

// What was found in EEPROM for one lane.
enum Stored : uint8_t { kNothingStored, kDamaged, kStored };

class Board {
 public:
  // `run` is the boot count, >= 1. `settings` and `stored` have an entry for each lane.
  void start(uint32_t now_us, uint16_t run, Cause cause, const Settings* settings, const Stored* stored);

  // Each loop(), at least every few milliseconds: time passes, then the lanes are told what their sensors saw up to it, then they act.
  void advance(uint32_t now_us);
  void tick();

  // ---- the wire
  bool can_receive() const { return !is_answer_due_; }
  void receive(uint8_t byte);
  // Writes the next frame into `buffer` of kLongestFrame bytes; its length, 0 when there is nothing to say.
  uint8_t next_frame(char* buffer);
  void overrun(uint32_t bytes) { overrun_ += bytes; }  // lost in the receiver

  Lane& lane(uint8_t index) { return lanes_[index]; }  // from 0
  uint8_t take_committed();  // one bit for each lane committed since the last call: its settings are to be stored
  const Clock& clock() const { return shared_.clock; }
  bool is_greeted() const { return is_greeted_; }
  State state() const;
  Lamp lamp() const;

 private:
  enum Error : uint8_t {  // error_codes.csv
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

  // ---- commands.cpp: each writes the fields of OK into `answer` and says kFine, or writes nothing and says why not
  uint8_t write_answer(char* buffer);
  Error command(FrameWriter& answer);
  Error check_command(int8_t name, uint32_t* values);
  Error hello(FrameWriter& answer);
  Error configure(const uint32_t* values, FrameWriter& answer);
  Error commit(const uint32_t* values, FrameWriter& answer);
  bool is_consistent(uint8_t lane, const Settings& requested) const;
  Error show(FrameWriter& answer);
  Error verdict(const uint32_t* values, FrameWriter& answer);
  Error cancel(const uint32_t* values, FrameWriter& answer);
  Error seen(const uint32_t* values);
  Error acknowledge(const uint32_t* values);
  Error status(const uint32_t* values, FrameWriter& answer);
  Error test(const uint32_t* values, FrameWriter& answer);
  Error clear(const uint32_t* values, FrameWriter& answer);
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

  // CONFIGURE puts values aside here until COMMIT; one lane at a time, see commands.cpp.
  struct UncommittedSettings {
    Settings settings;
    uint8_t lane;  // 0: nothing
  };

  BoardShared shared_;
  Lane lanes_[kLanes];
  Faults faults_;  // of the whole board
  Deframer deframer_;
  UncommittedSettings uncommitted_;
  Lane* lane_ = nullptr;  // the one that the present command speaks of
  uint32_t received_ms_ = 0;
  uint32_t beat_sent_ms_ = 0;  // when BOOT, later BEAT was sent
  uint16_t announced_ms_ = 0;
  uint32_t overrun_ = 0;
  uint16_t run_ = 0;
  uint16_t tokens_[kLanes];
  uint8_t has_token_ = 0;  // a bit for each lane
  uint8_t seq_ = 0;
  uint8_t last_updated_ = 0;  // the lane that was looked at last
  uint8_t committed_lanes_ = 0;
  Cause cause_ = kPower;
  bool is_greeted_ = false, is_boot_sent_ = false, is_answer_due_ = false;
};

}  // namespace castline
