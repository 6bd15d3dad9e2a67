// The events that wait for the host's acknowledgement. See firmware/PROTOCOL.md, "Events".
#pragma once
#include "config.h"
#include "faults.h"
#include "tracker.h"

namespace castline {

// Says whether the eye in the reject chute has seen a diverted part. kAwaited means that the part is still on its way to the eye, so its
// GATE event is not sent yet.
enum Confirmation : uint8_t { kNotEquipped, kUnseen, kSeenInChute, kAwaited };

// A GATE or FAULT event in 16 bytes.
// In a GATE event, `outcome` is an Action, or kFurther + n if the gate of lane n diverts the part.
// A FAULT event stores these values in the same members:
//   part                the code of the fault
//   moved               1 if the fault has begun, 0 if it has ended (field `raised`)
//   outcome             the lane, 0..4
//   travel_ms, moves    the lower and the upper half of the field `detail`
struct __attribute__((packed)) Event {
  uint32_t part : 27;
  uint32_t moved : 1;
  uint32_t fault : 1;
  // The phase (1..7) in which the event was last sent. A phase lasts 256 ms (see events.cpp). 0 means not sent since the last HELLO.
  uint32_t sent : 3;
  uint16_t number;
  uint32_t at_ms;
  uint16_t travel_ms;
  uint16_t moves;
  uint8_t outcome : 3;
  uint8_t reason : 3;
  // Index of the lane of a GATE event. Lane 1 has index 0.
  uint8_t lane : 2;
  uint8_t confirmation;
};
// If an additional gate has diverted the part, `outcome` is kFurther plus the gate's lane. Example: kFurther + 2 is the gate of lane 2.
const uint8_t kFurther = kStop;
static_assert(sizeof(Event) == 16, "no padding");

class Events {
 public:
  // Stores a GATE event and returns its number.
  uint16_t gate(uint8_t lane, uint32_t part, Decision decision, bool moved, uint16_t moves, uint32_t at_ms, uint16_t travel_ms,
                Confirmation confirmation = kNotEquipped);
  // Changes the confirmation of a GATE event from kAwaited to kSeenInChute or kUnseen, so that the event can be sent.
  // Returns the number of the part, or 0 if the event was lost.
  uint32_t confirm(uint16_t number, bool seen);
  void fault(uint8_t lane, Fault code, bool raised, uint32_t detail, uint32_t at_ms);

  // Deletes one event. Does nothing if the event was deleted before.
  void acknowledge(uint16_t number);
  // Lets all stored events be sent again. Called after HELLO, because a new host must get all events.
  void send_all_again();

  // Returns the next event to send and marks the event as sent. Returns nullptr if no event is due yet.
  const Event* take_due(uint32_t now_ms);

  uint8_t pending() const { return size_; }
  bool is_full() const { return size_ == kEvents; }
  uint32_t lost() const { return lost_; }
  // Returns how many events were lost since the last call. While the memory is full, the result is 0, because the caller could not store a
  // report of the loss.
  uint32_t take_unreported();

 private:
  Event* add();
  uint8_t phase(uint32_t now_ms);
  Event& at(uint8_t index) { return events_[(first_ + index) % kEvents]; }

  Event events_[kEvents];
  uint8_t first_ = 0, size_ = 0;
  uint16_t next_ = 0;
  uint16_t sent_ms_ = 0;
  uint8_t phase_until_ = 0, phase_ = 1;
  uint32_t lost_ = 0, unreported_ = 0;
};

}  // namespace castline
