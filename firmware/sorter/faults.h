// Which faults there are, what each does, and how it ends: firmware/PROTOCOL.md, "Faults". Numbers are those of error_codes.csv.
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
const uint8_t kMaxFaults = 9;  // of one lane; the board as a whole has three

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
  bool remove(Fault code);  // false when it was not in force

 private:
  void update_effects();

  uint8_t code_[kMaxFaults];
  uint8_t count_ = 0;
  uint8_t effects_ = 0;  // one bit for each Effect in force
};

}  // namespace castline
