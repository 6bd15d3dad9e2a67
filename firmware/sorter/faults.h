// The faults, what each does, and how each ends. See firmware/PROTOCOL.md, "Faults". The numbers are those of firmware/error_codes.csv.
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
  kSettingsLost
};
const uint8_t kFirstFault = kHostSilent;
// A lane can have nine faults at a time, and the board as a whole three.
const uint8_t kMaxFaults = 9;

enum Effect : uint8_t { kReportOnly, kWarning, kSilentHost, kStopsLine, kHoldsGate };
enum End : uint8_t { kByClear, kByHello, kByCommit, kByReset };

Effect effect(Fault code);
End end(Fault code);

// The faults in force, oldest first.
class Faults {
 public:
  bool is_in_force(Fault code) const;
  bool has(Effect requested) const { return effects_ & (1 << requested); }
  uint8_t oldest() const { return count_ > 0 ? code_[0] : 0; }
  void add(Fault code);
  // Returns false if the fault was not in force.
  bool remove(Fault code);

 private:
  void update_effects();

  uint8_t code_[kMaxFaults];
  uint8_t count_ = 0;
  // One bit for each Effect of the faults in force.
  uint8_t effects_ = 0;
};

}  // namespace castline
