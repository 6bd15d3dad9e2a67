// The faults of the board and how each ends. See firmware/PROTOCOL.md, "Faults", and firmware/error_codes.csv.
#pragma once
#include "text.h"

namespace castline {

enum Fault : uint8_t {
  kHostSilent = 40,
  kEye1Stuck,
  kEye2Stuck,
  kEncoderStopped,
  kServoPower,
  kEmergencyStop,
  kAbnormalReset,
  kTrackerFull,
  kEventsLost,
  kStopped,
  kPartsExhausted,
  kSettingsLost,
  kAwaitingStart,
  kTriggerLost,
  kGateStuck,
  kChuteMissed,
  kChuteFull,
  kRejectsInARow,
  kBypass
};
const uint8_t kFaultCodes = kBypass + 1 - kHostSilent;
const uint8_t kFirstFault = kHostSilent;
// Capacity of a list of faults. A lane can have sixteen kinds of faults, and the whole board can have three.
const uint8_t kMaxFaults = 16;

enum Effect : uint8_t { kReportOnly, kWarning, kSilentHost, kBypassed, kStopsLine, kHoldsGate };
enum End : uint8_t { kByClear, kByHello, kByCommit, kByReset, kByKey };

Effect effect(Fault code);
End end(Fault code);
// Returns whether a fault survives a reset until a person ends it by CLEAR.
bool is_kept(Fault code);

// A set of faults as the EEPROM holds it. Bit n stands for the code kFirstFault + n.
typedef uint32_t FaultSet;
static_assert(kFaultCodes <= 32, "each code has a bit in a FaultSet");
inline FaultSet bit_of(Fault code) { return 1UL << (code - kFirstFault); }

// The faults of a lane (or of the whole board) that have begun and not ended, oldest first.
class Faults {
 public:
  bool is_in_force(Fault code) const;
  bool has(Effect requested) const { return effects_ & (1 << requested); }
  uint8_t oldest() const { return count_ > 0 ? code_[0] : 0; }
  void add(Fault code);
  // Returns the faults of this list that survive a reset.
  FaultSet kept() const;
  // Ends a fault. Returns false if there was no such fault.
  bool remove(Fault code);

 private:
  void update_effects();

  uint8_t code_[kMaxFaults];
  uint8_t count_ = 0;
  // Bit mask of the effects of all faults in the list. Bit n stands for the Effect with value n.
  uint8_t effects_ = 0;
};

}  // namespace castline
