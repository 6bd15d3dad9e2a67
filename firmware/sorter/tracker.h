// Follows the parts of one lane from photo-eye 1 to photo-eye 2 and decides what each is to get.
//
//   counted --told--> counted, with a verdict --leading edge at photo-eye 2--> decided
//   counted --a part close before it is decided--> decided, still on its way
//   counted --window closed, or a later part came first--> missing
#pragma once
#include "config.h"
#include "eye.h"
#include "settings.h"

namespace castline {

enum Reason : uint8_t { kVerdict, kNoVerdict, kCancelled, kSpacing, kTouching, kSafe, kMissing, kUnmatched };
extern const char kReasonWords[] PROGMEM;

// kReject + n: to be taken out by the further gate of lane n; kReject itself: by the lane's own gate.
enum PartVerdict : uint8_t { kUnjudged, kVerdictCancelled, kKeep, kReject = 4 };

struct Decision {
  Decision(Action its_action = kNone, Reason its_reason = kVerdict, uint8_t its_gate = 0) : action(its_action), reason(its_reason), gate(its_gate) {}
  bool is_same_movement(const Decision& other) const { return action == other.action && gate == other.gate; }

  Action action;
  Reason reason;
  uint8_t gate;  // with kDivert: the lane of the further gate that takes the part, 0 for the lane's own
};

// A counted part on its way, in 6 bytes: 256 of them are a good part of the board's memory.
struct __attribute__((packed)) Part {
  uint32_t place : 24;    // leading edge at photo-eye 1
  uint8_t verdict : 4;       // Told
  uint8_t touching : 1;   // longer than part_max_mm: more than one casting under one number
  uint8_t seen : 1;       // the host knows of it
  uint8_t basis : 2;      // Basis of the decision; kUndecided: not yet
  uint16_t at_ms;         // when it was at photo-eye 1, low bits: see Tracker::age
};
static_assert(sizeof(Part) == 6, "no padding");

// What a part's decision rests on; what it is follows from that, from what was told, and from the settings.
enum Basis : uint8_t { kUndecided, kOwnDecision, kOwnDecisionHostSilent, kClusterDecision };

class Tracker {
 public:
  Tracker() : last_action_(kNone), last_gate_(0), has_last_(false) {}

  // Counts the part whose leading edge at photo-eye 1 this was. False when there is no room to follow it.
  bool add(const Edge& edge);

  uint32_t counted() const { return counted_; }  // parts since the reset: the number of the newest
  uint8_t size() const { return size_; }
  uint32_t front() const { return counted_ - size_ + 1; }  // number of the oldest on its way; they follow without gaps
  Part& operator[](uint8_t index) { return parts_[(first_ + index) % kParts]; }
  Part* find(uint32_t number);  // the part, while it is on its way; else nullptr

  // Index of the part that is expected nearest to `place` at photo-eye 2, -1 when none is within the window.
  int16_t nearest(Place place, const Settings& settings);

  // Fixes the action of the oldest part and of all that follow it too closely for the gate to change between them.
  void decide_front(const Settings& settings, bool host_silent);

  // Takes the oldest part off, which has come to photo-eye 2 at `place`, and says what it gets.
  Decision take(Place place, const Settings& settings);

  // What a part gets that has come to photo-eye 2 without having been counted.
  Decision take_unmatched(Place place, const Settings& settings);

  // The oldest part should have come to photo-eye 2 before `place`, and did not.
  bool is_front_overdue(Place place, Place reach) { return size_ > 0 && past(place, parts_[first_].place) > static_cast<int32_t>(reach); }
  void drop_front();
  void forget_last_part() { has_last_ = false; }

  // The memory of all parts, for another use while none is followed.
  void* unused_memory() { return parts_; }

  // The next part that the host is to be told of: new ones first, then those of the present round of repetitions. nullptr: none.
  // `number` is set to its number.
  const Part* next_to_announce(uint32_t& number);
  void announce_all_again() { round_ = 0; }

  // To be called at every tick: lets go what lies too far back for the counting modulo 2^24, of places and of times.
  void age(Place place, uint32_t now_ms);

  // When a part on its way was at photo-eye 1, in full; 65 s ago when it was earlier.
  static uint32_t at_ms(const Part& part, uint32_t now_ms) { return now_ms - age_ms(part, now_ms); }
  // The time since then as it is told: 65535 for 65 s or longer.
  static uint16_t travel_ms(const Part& part, uint32_t now_ms) {
    const uint16_t age = age_ms(part, now_ms);
    return age < kMaxAgeMs ? age : 65535;
  }

 private:
  static uint16_t age_ms(const Part& part, uint32_t now_ms) { return static_cast<uint16_t>(now_ms - part.at_ms); }

  static const uint8_t kRoundOver = 0xFF;
  Decision own_decision(const Part& part, const Settings& settings, bool host_silent) const;
  Decision keep_spacing(Place place, const Settings& settings, Decision decision);

  Part parts_[kParts];
  uint8_t first_ = 0, size_ = 0;
  uint8_t last_aged_ = 0;            // index that age() looked at last
  uint8_t unannounced_ = 0;          // so many of the newest were not told of yet
  uint8_t round_ = kRoundOver;  // index that the round of repetitions has reached
  uint32_t counted_ = 0;
  Place last_until_ = 0;      // up to here ...
  uint8_t last_action_ : 2;     // ... a part at photo-eye 2 gets what the one before it got
  uint8_t last_gate_ : 3;
  bool has_last_ : 1;           // follow_until_ holds
};

}  // namespace castline
