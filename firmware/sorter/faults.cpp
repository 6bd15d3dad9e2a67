#include "faults.h"

namespace castline {

// effect() has `if` instead of `switch`, because the compiler would turn a `switch` into a table in RAM.
Effect effect(Fault code) {
  if (code == kHostSilent) return kSilentHost;
  if (code == kAbnormalReset || code == kSettingsLost) return kReportOnly;
  if (code == kEventsLost || code == kTriggerLost) return kWarning;
  if (code == kBypass) return kBypassed;
  return code == kStopped || (code >= kGateStuck && code <= kRejectsInARow) ? kStopsLine : kHoldsGate;
}

End end(Fault code) {
  if (code == kHostSilent) return kByHello;
  if (code == kAbnormalReset || code == kSettingsLost) return kByCommit;
  if (code == kBypass) return kByKey;
  return code == kPartsExhausted ? kByReset : kByClear;
}

bool is_kept(Fault code) { return effect(code) >= kStopsLine && end(code) == kByClear; }

bool Faults::is_in_force(Fault code) const {
  for (uint8_t index = 0; index < count_; ++index) {
    if (code_[index] == code) return true;
  }
  return false;
}

void Faults::add(Fault code) {
  if (is_in_force(code) || count_ == kMaxFaults) return;
  code_[count_++] = code;
  update_effects();
}

FaultSet Faults::kept() const {
  FaultSet faults = 0;
  for (uint8_t index = 0; index < count_; ++index) {
    if (is_kept(static_cast<Fault>(code_[index]))) faults |= bit_of(static_cast<Fault>(code_[index]));
  }
  return faults;
}

bool Faults::remove(Fault code) {
  for (uint8_t index = 0; index < count_; ++index) {
    if (code_[index] != code) continue;
    --count_;
    for (; index < count_; ++index) code_[index] = code_[index + 1];
    update_effects();
    return true;
  }
  return false;
}

void Faults::update_effects() {
  effects_ = 0;
  for (uint8_t index = 0; index < count_; ++index) {
    effects_ = static_cast<uint8_t>(effects_ | 1 << effect(static_cast<Fault>(code_[index])));
  }
}

}  // namespace castline
