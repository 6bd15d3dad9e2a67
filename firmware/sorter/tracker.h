// Follows the parts of one lane from photo-eye 1 to photo-eye 2.
//
//   counted --VERDICT--> counted, with a verdict
//   counted, with or without a verdict --leading edge at photo-eye 2--> decided
//   counted, with or without a verdict --part close ahead is decided--> decided, before it reaches photo-eye 2
//   counted --window_mm past photo-eye 2 without an edge, or a later part passed photo-eye 2--> missing
#pragma once
#include "config.h"
#include "eye.h"
#include "settings.h"

namespace castline {

enum Reason : uint8_t { kVerdict, kNoVerdict, kCancelled, kSpacing, kTouching, kSafe, kMissing, kUnmatched };
extern const char kReasonWords[] PROGMEM;

// The verdict of a part. kReject means that the belt's own gate diverts the part. kReject + n means the additional gate of lane n.
enum PartVerdict : uint8_t { kUnjudged, kVerdictCancelled, kKeep, kReject = 4 };

struct Decision {
  Decision(Action its_action = kNone, Reason its_reason = kVerdict, uint8_t its_gate = 0)
      : action(its_action), reason(its_reason), gate(its_gate) {}
  bool is_same_movement(const Decision& other) const { return action == other.action && gate == other.gate; }

  Action action;
  Reason reason;
  // The gate that diverts the part, if `action` is kDivert: the lane of an additional gate, or 0 for the belt's own gate.
  uint8_t gate;
};

// A counted part between the photo-eyes, in 6 bytes. 256 parts take a fifth of the Mega's RAM.
struct __attribute__((packed)) Part {
  // The belt's position when the leading edge of the part was at photo-eye 1.
  uint32_t place : 24;
  // A PartVerdict.
  uint8_t verdict : 4;
  // 1 if the part is longer than part_max_mm, so it is several castings that touch each other.
  uint8_t touching : 1;
  // 1 if the host has acknowledged the part by SEEN.
  uint8_t seen : 1;
  // The Basis of the decision.
  uint8_t basis : 2;
  // The low 16 bits of the time at photo-eye 1, in ms. If this time is more than 65 s ago, Tracker::age() moves the time forward.
  uint16_t at_ms;
};
static_assert(sizeof(Part) == 6, "no padding");

// How a lane has decided about a part. The action is not stored, because the program can compute it from `basis` and `verdict`.
enum Basis : uint8_t { kUndecided, kOwnDecision, kOwnDecisionHostSilent, kClusterDecision };

class Tracker {
 public:
  Tracker() : last_action_(kNone), last_gate_(0), has_last_(false) {}

  // Counts a part whose leading edge at photo-eye 1 is `edge`. Returns false if there is no memory for the part.
  bool add(const Edge& edge);

  // Number of parts that were counted since the reset. The newest part has this number.
  uint32_t counted() const { return counted_; }
  uint8_t size() const { return size_; }
  // Number of the oldest tracked part. The numbers of the tracked parts have no gaps.
  uint32_t front() const { return counted_ - size_ + 1; }
  Part& operator[](uint8_t index) { return parts_[(first_ + index) % kParts]; }
  // Returns the part with this number, or nullptr if it is not between the photo-eyes.
  Part* find(uint32_t number);

  // Returns the index of the part whose expected position at photo-eye 2 is nearest to `place`, or -1 if none is within window_mm.
  int16_t nearest(Place place, const Settings& settings);

  // Decides about the oldest part, and about the parts that follow it so closely that the gate cannot move between them. All these parts
  // get the same action.
  void decide_front(const Settings& settings, bool host_silent);

  // Removes the oldest part, which has reached photo-eye 2 at `place`, and returns its decision.
  Decision take(Place place, const Settings& settings);

  // Returns the decision for a part that has reached photo-eye 2 and was not counted.
  Decision take_unmatched(Place place, const Settings& settings);

  // Returns whether the oldest part is missing. A part is missing if it is more than `reach` past photo-eye 1 when the belt is at `place`.
  bool is_front_overdue(Place place, Place reach) { return size_ > 0 && past(place, parts_[first_].place) > static_cast<int32_t>(reach); }
  void drop_front();
  void forget_last_part() { has_last_ = false; }

  // Returns the memory in which the tracker stores its parts. While the tracker has no parts, the caller can use the memory for other data.
  void* unused_memory() { return parts_; }

  // Returns the part that the next message PART reports, or nullptr if there is none. Writes the number of the part to `number`.
  // Parts that were not reported yet come first.
  const Part* next_to_announce(uint32_t& number);
  void announce_all_again() { round_ = 0; }

  // Must be called in every update. A part stores its time at photo-eye 1 in milliseconds with 16 bits, which can tell apart only the last
  // 65 s. This function replaces each older time by the time 65 s ago. Otherwise an older time would seem to be a recent one.
  void age(Place place, uint32_t now_ms);

  // Returns the time at which `part` was at photo-eye 1. If this was more than 65 s ago, returns the time 65 s ago.
  static uint32_t at_ms(const Part& part, uint32_t now_ms) { return now_ms - age_ms(part, now_ms); }
  // Returns the time since the part was at photo-eye 1, as the protocol sends it. 65535 means 65 s or longer.
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
  // Each call of age() checks one part. This is the index of the part that was checked last.
  uint8_t last_aged_ = 0;
  // The number of parts for which the board has not sent the message PART yet. These are always the newest parts.
  uint8_t unannounced_ = 0;
  // The board repeats the message PART for each part in turn. This is the index of the next part, or kRoundOver after the last part.
  uint8_t round_ = kRoundOver;
  uint32_t counted_ = 0;
  // The belt position at which the last part is spacing_mm past photo-eye 2. A part that reaches photo-eye 2 earlier gets the action of the
  // last part.
  Place last_until_ = 0;
  uint8_t last_action_ : 2;
  uint8_t last_gate_ : 3;
  // True if last_action_, last_gate_ and last_until_ describe a previous part at photo-eye 2.
  bool has_last_ : 1;
};

}  // namespace castline
