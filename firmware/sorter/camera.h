// Sends the camera pulses of a lane. Pulses that are not due yet wait in a queue.
#pragma once
#include "config.h"
#include "place.h"

namespace castline {

// The states of the output to the camera:
//
//   idle --next pulse is due--> pulse --pulse length over, or next pulse is due--> pause --1 ms over--> idle
//
// A pulse is due at its `moment`. With the setting trigger_mm, the moment is a position of the belt. Otherwise, it is a time in units of
// 64 us. The type Place can store both.
class Camera {
 public:
  bool is_triggering() const { return phase_ == kPulse; }
  bool is_busy() const { return count_ > 0 || phase_ != kIdle; }

  // Adds a pulse to the queue. If the queue is full, the pulse is counted as lost.
  void add(Place moment) {
    if (count_ == kCameraPulses) {
      ++lost_;
      return;
    }
    moments_[(first_ + count_++) % kCameraPulses].place = moment & kPlaceMask;
  }

  // Deletes all waiting pulses, and counts them as lost.
  void clear() {
    lost_ = static_cast<uint16_t>(lost_ + count_);
    count_ = 0;
  }

  // Begins and ends pulses. `time` is the present time, and `length` the length of a pulse, both in units of 64 us.
  void tick(Place position, Place time, Place length) {
    const bool is_due = count_ > 0 && past(position, moments_[first_].place) >= 0;
    const int32_t passed = past(time, since_);
    if (phase_ == kPulse && (passed >= static_cast<int32_t>(length) || (is_due && passed >= kLeastPulse))) {
      // A pulse ends early if the next pulse is due. Otherwise the two pulses would become one long pulse, and the camera would take no
      // picture of the next casting.
      begin(kPause, time);
    } else if (phase_ == kPause && passed >= kPause64) {
      phase_ = kIdle;
    }
    if (phase_ != kIdle || !is_due) return;
    first_ = static_cast<uint8_t>((first_ + 1) % kCameraPulses);
    --count_;
    begin(kPulse, time);
  }

  // Returns the number of pulses that were lost since the last call.
  uint16_t take_lost() {
    const uint16_t lost = lost_;
    lost_ = 0;
    return lost;
  }
  bool has_lost() const { return lost_ > 0; }

 private:
  enum Phase : uint8_t { kIdle, kPulse, kPause };
  // The shortest pulse and the shortest pause between two pulses take 1 ms. The unit is 64 us.
  static const int32_t kLeastPulse = 16, kPause64 = 16;
  struct __attribute__((packed)) Moment {
    Place place : 24;
  };

  void begin(Phase phase, Place time) {
    phase_ = phase;
    since_ = time & kPlaceMask;
  }

  Moment moments_[kCameraPulses];
  uint8_t first_ = 0, count_ = 0;
  Phase phase_ = kIdle;
  uint16_t lost_ = 0;
  // Time at which the present pulse or pause began.
  Place since_ = 0;
};

}  // namespace castline
