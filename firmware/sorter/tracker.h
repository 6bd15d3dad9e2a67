// Follows the parts of one lane from photo-eye 1 to photo-eye 2 and decides what is done with each part.
//
//   counted --VERDICT--> counted, with a verdict --leading edge at photo-eye 2--> decided
//   counted --a part close before it is decided--> decided, still between the eyes
//   counted --window closed, or a later part came first--> missing
#pragma once
#include "config.h"
#include "eye.h"
#include "settings.h"

namespace castline {

enum Reason : uint8_t { kVerdict, kNoVerdict, kCancelled, kSpacing, kTouching, kSafe, kMissing, kUnmatched };
extern const char kReasonWords[] PROGMEM;

// The verdict of a part. kReject means the lane's own gate, and kReject + n means the further gate of lane n.
enum PartVerdict : uint8_t { kUnjudged, kVerdictCancelled, kKeep, kReject = 4 };

struct Decision {
  Decision(Action its_action = kNone, Reason its_reason = kVerdict, uint8_t its_gate = 0)
      : action(its_action), reason(its_reason), gate(its_gate) {}
  bool is_same_movement(const Decision& other) const { return action == other.action && gate == other.gate; }

  Action action;
  Reason reason;
  // For kDivert the lane of the further gate that takes the part, 0 for the lane's own gate.
  uint8_t gate;
};

// A counted part between the photo-eyes. It has only 6 bytes, because a board can have 256 of them, which take a fifth of its memory.
struct __attribute__((packed)) Part {
  // Place of the leading edge at photo-eye 1.
  uint32_t place : 24;
  // A PartVerdict.
  uint8_t verdict : 4;
  // The part is longer than part_max_mm, so it is more than one casting.
  uint8_t touching : 1;
  // The host has acknowledged the part by SEEN.
  uint8_t seen : 1;
  // The Basis of the decision.
  uint8_t basis : 2;
  // The low 16 bits of the time at photo-eye 1. Tracker::age limits its age.
  uint16_t at_ms;
};
static_assert(sizeof(Part) == 6, "no padding");

// What a part's decision is based on. The decision itself is computed from the basis, the verdict and the settings.
enum Basis : uint8_t { kUndecided, kOwnDecision, kOwnDecisionHostSilent, kClusterDecision };

class Tracker {
 public:
  Tracker() : last_action_(kNone), last_gate_(0), has_last_(false) {}

  // Counts the part with this leading edge at photo-eye 1. Returns false if there is no room to track the part.
  bool add(const Edge& edge);

  // Number of parts since the reset, which is the number of the newest part.
  uint32_t counted() const { return counted_; }
  uint8_t size() const { return size_; }
  // Number of the oldest tracked part. The numbers of the tracked parts have no gaps.
  uint32_t front() const { return counted_ - size_ + 1; }
  Part& operator[](uint8_t index) { return parts_[(first_ + index) % kParts]; }
  // Returns the tracked part with this number, or nullptr.
  Part* find(uint32_t number);

  // Returns the index of the part that is expected nearest to `place` at photo-eye 2, or -1 if no part is within the window.
  int16_t nearest(Place place, const Settings& settings);

  // Decides the oldest part, and all parts that follow so closely that the gate cannot change between them.
  void decide_front(const Settings& settings, bool host_silent);

  // Removes the oldest part, which has reached photo-eye 2 at `place`, and returns its decision.
  Decision take(Place place, const Settings& settings);

  // Returns the decision for a part that has reached photo-eye 2 and was not counted.
  Decision take_unmatched(Place place, const Settings& settings);

  // Returns whether the oldest part should have reached photo-eye 2 before `place`. `reach` is the longest travel between the eyes.
  bool is_front_overdue(Place place, Place reach) { return size_ > 0 && past(place, parts_[first_].place) > static_cast<int32_t>(reach); }
  void drop_front();
  void forget_last_part() { has_last_ = false; }

  // Returns the memory of all parts, which may be used for something else while no part is tracked.
  void* unused_memory() { return parts_; }

  // Returns the next part to announce to the host, and sets `number` to its number. New parts come first, then the parts of the present
  // round of repetitions. Returns nullptr if there is no such part.
  const Part* next_to_announce(uint32_t& number);
  void announce_all_again() { round_ = 0; }

  // Limits the age of places and times, because places are counted modulo 2^24 and times modulo 2^16. Must be called at every tick.
  void age(Place place, uint32_t now_ms);

  // Returns when a part was at photo-eye 1. A part that was there more than 65 s ago counts as 65 s old.
  static uint32_t at_ms(const Part& part, uint32_t now_ms) { return now_ms - age_ms(part, now_ms); }
  // Returns the time since photo-eye 1 as the protocol sends it: 65535 means 65 s or longer.
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
  // Index of the part that age() has handled last.
  uint8_t last_aged_ = 0;
  // This many of the newest parts were not announced yet.
  uint8_t unannounced_ = 0;
  // Index that the round of repetitions has reached.
  uint8_t round_ = kRoundOver;
  uint32_t counted_ = 0;
  // Up to this place, a part at photo-eye 2 gets the action and gate of the previous part.
  Place last_until_ = 0;
  uint8_t last_action_ : 2;
  uint8_t last_gate_ : 3;
  // Whether last_until_ is valid.
  bool has_last_ : 1;
};

}  // namespace castline
