// The settings of one lane: keys, bounds, defaults and rules of firmware/PROTOCOL.md, "Settings". A test compares the tables.
#pragma once
#include "place.h"
#include "text.h"

namespace castline {

// In the order of the page: the digest and the EEPROM depend on it. New ones go to the end.
enum Key : uint8_t {
  kEncoder,
  kStepUm,
  kEyeGapMm,
  kWindowMm,
  kPartMinMm,
  kPartMaxMm,
  kSpacingMm,
  kGateMm,
  kDwellMm,
  kDebounceUs,
  kTriggerMs,
  kTriggerPulseMs,
  kRestUs,
  kOutUs,
  kServoMs,
  kNoVerdictAction,
  kSafeAction,
  kHostTimeoutMs,
  kEncoderTimeoutMs,
  kStuckMm,
  kLostLimit,
  kUseEstop,
  kUseServoPower,
  kLaneOf,
  kKeys
};

// What is done with a part. The settings `no_verdict` and `safe` hold one of the last three.
enum Action : uint8_t { kNone, kDivert, kPass, kStop };
extern const char kActionWords[] PROGMEM;
extern const char kKeyWords[] PROGMEM;

struct Bounds {
  uint16_t least, most, standard;
  bool word;  // divert, pass or stop
};
Bounds bounds(uint8_t key);

// Plain numbers, as they are stored in EEPROM.
struct Settings {
  uint16_t value[kKeys];

  void set_defaults();
  uint16_t operator[](Key key) const { return value[key]; }
  Action action(Key key) const { return static_cast<Action>(value[key]); }

  // The distance `key` (mm) in places; exact to one place.
  Place travel(Key key) const { return places(value[key]); }
  Place places(uint32_t mm) const;

  // Whether gate and dwell, on a belt whose steps are so long, lie within what a place can count.
  bool is_gate_within_reach(uint16_t step_um) const;

  // The rules of COMMIT that speak of this lane alone: false when the settings contradict each other.
  bool is_consistent() const;

  // CRC-16 over `key=value` of all settings, joined by spaces.
  uint16_t digest() const;
};

// Reads `text` as a value of `key`. False when it is malformed or out of bounds.
bool read_value(uint8_t key, const char* text, uint16_t& value);

}  // namespace castline
