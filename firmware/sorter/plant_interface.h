// The signals of a lane for the controller of the plant. docs/plant-interface.md has their timing diagram.
#pragma once
#include <stdint.h>

namespace castline {

// The signals of a plant interface as bits of one byte.
enum PlantSignal : uint8_t {
  kReadySignal = 1,
  kBusySignal = 2,
  kValidSignal = 4,
  kRejectSignal = 8,
  kHeartbeatSignal = 16,
  kFaultSignal = 32,
  kBuzzerSignal = 64
};

// At most this many results can wait. The signals show the plant's controller one result after the other.
const uint8_t kWaitingResults = 8;
// The signal `reject` changes this long before `result valid` begins. It keeps its level for the same time after `result valid` ends.
const uint8_t kResultMarginMs = 5;
// The heartbeat and the buzzer change their level at this interval, so a whole period takes a second.
const uint16_t kHalfPeriodMs = 500;

// The signals `result valid`, `reject`, heartbeat and buzzer. Each result goes through these phases:
//
//   idle --result--> before --kResultMarginMs--> valid --result_ms--> after --kResultMarginMs--> idle
class PlantInterface {
 public:
  PlantInterface() : beat_(false), is_silenced_(false) {}

  // Puts the result of the part at the gate into the queue of results. Returns false if the queue is full.
  bool add_result(bool is_reject) {
    if (count_ == kWaitingResults) return false;
    rejects_ = static_cast<uint8_t>(is_reject ? rejects_ | 1 << count_ : rejects_ & ~(1 << count_));
    ++count_;
    return true;
  }

  // Silences the buzzer until the next fault, because a person has pressed the reset button.
  void silence() { is_silenced_ = true; }
  void begin_fault() { is_silenced_ = false; }

  // Moves the time forward. `now_ms` is the present time, modulo 65,536.
  void tick(uint16_t now_ms, uint16_t result_ms) {
    if (static_cast<uint16_t>(now_ms - beat_since_ms_) >= kHalfPeriodMs) {
      beat_since_ms_ = static_cast<uint16_t>(beat_since_ms_ + kHalfPeriodMs);
      beat_ = !beat_;
    }
    const uint16_t length_ms = phase_ == kValid ? result_ms : kResultMarginMs;
    if (phase_ != kIdle && static_cast<uint16_t>(now_ms - since_ms_) >= length_ms) {
      since_ms_ = now_ms;
      phase_ = phase_ == kAfter ? kIdle : static_cast<Phase>(phase_ + 1);
    }
    if (phase_ != kIdle || count_ == 0) return;
    phase_ = kBefore;
    since_ms_ = now_ms;
    is_reject_ = rejects_ & 1;
    rejects_ = static_cast<uint8_t>(rejects_ >> 1);
    --count_;
  }

  // Returns the signals as bits of PlantSignal. `has_fault` is true if a fault holds the gate or stops the line.
  uint8_t signals(bool has_host, bool has_fault) const {
    uint8_t bits = phase_ == kValid ? kValidSignal : 0;
    if (phase_ != kIdle && is_reject_) bits |= kRejectSignal;
    if (has_host && beat_) bits |= kHeartbeatSignal;
    if (has_fault) bits |= kFaultSignal;
    if (has_fault && beat_ && !is_silenced_) bits |= kBuzzerSignal;
    return bits;
  }

 private:
  enum Phase : uint8_t { kIdle, kBefore, kValid, kAfter };

  // The results that wait. Bit 0 is the oldest one, and 1 means reject.
  uint8_t rejects_ = 0, count_ = 0;
  Phase phase_ = kIdle;
  // The time when `phase_` last changed, and the time when the heartbeat last changed.
  uint16_t since_ms_ = 0, beat_since_ms_ = 0;
  bool is_reject_ = false;
  bool beat_ : 1, is_silenced_ : 1;
};

}  // namespace castline
