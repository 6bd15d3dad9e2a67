// The settings of one lane: keys, bounds, defaults and rules. A test compares them with the table in firmware/PROTOCOL.md, "Settings".
#pragma once
#include "place.h"
#include "text.h"

namespace castline {

// New keys are added at the end, because the digest and the layout of the EEPROM depend on this order.
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
  kAutostart,
  kContactMs,
  kTriggerMm,
  kStepNm,
  kUseBelt,
  kRunUpMm,
  kRunDownMm,
  kEyeLightOn,
  kUseEndSwitch,
  kChuteMm,
  kChuteWindowMm,
  kChuteFullMs,
  kUseButton,
  kRejectLimit,
  kUsePlant,
  kResultMs,
  kUseSolenoid,
  kKeys
};

// What the board does with a part. The values of the settings `no_verdict` and `safe` are kDivert, kPass and kStop.
enum Action : uint8_t { kNone, kDivert, kPass, kStop };
extern const char kActionWords[] PROGMEM;
extern const char kKeyWords[] PROGMEM;

struct Bounds {
  uint16_t least, most, standard;
  // True if the value is one of the words divert, pass and stop.
  bool word;
};
Bounds bounds(uint8_t key);

// All settings of a lane as numbers, in the order of Key. The EEPROM stores them in the same form.
struct Settings {
  uint16_t value[kKeys];

  void set_defaults();
  uint16_t operator[](Key key) const { return value[key]; }
  Action action(Key key) const { return static_cast<Action>(value[key]); }

  // Converts the setting `key` from mm to units of Place (see place.h). The error is less than one unit.
  Place travel(Key key) const { return places(value[key]); }
  Place places(uint32_t mm) const;
  // Converts mm to steps, rounded down.
  uint32_t steps(uint32_t mm) const;

  // Length of a step in nm.
  uint32_t step_nm() const { return uint32_t{value[kStepUm]} * 1000 + value[kStepNm]; }

  // Returns whether both distances below are at most kMaxSteps encoder steps long. One step is `step_nm` long.
  //   gate_mm + dwell_mm
  //   gate_mm + chute_mm + chute_window_mm
  bool is_gate_within_reach(uint32_t step_nm) const;

  // Returns whether the settings obey the rules of COMMIT. Rules about other lanes are not checked here.
  bool is_consistent() const;

  // Returns the CRC-16 of the text `key=value key=value ...` of all settings.
  uint16_t digest() const;
};

// Reads the value of a setting from `text`. Returns false if the text is malformed or the value is out of bounds.
bool read_value(uint8_t key, const char* text, uint16_t& value);

}  // namespace castline
