// The ring of events that wait for the host's acknowledgement: firmware/PROTOCOL.md, "Events".
#pragma once
#include "config.h"
#include "faults.h"
#include "tracker.h"

namespace castline {

// GATE and FAULT in 15 bytes. FAULT keeps its code in `part` and its detail in `travel_ms` and `moves`.
struct __attribute__((packed)) Event {
  uint32_t part : 27;
  uint32_t moved : 1;   // FAULT: raised
  uint32_t fault : 1;
  uint32_t sent : 3;    // 0 not since the last HELLO, else the phase in which it was sent: see Events::due
  uint16_t number;
  uint32_t at_ms;
  uint16_t travel_ms;
  uint16_t moves;
  uint8_t outcome : 3;  // an Action, or kFurther + n: diverted at the further gate of lane n. FAULT: the lane, 0 to 4
  uint8_t reason : 3;
  uint8_t lane : 2;     // from 0; not of a FAULT
};
const uint8_t kFurther = kStop;  // 4 to 7 are left for four lanes
static_assert(sizeof(Event) == 15, "no padding");

class Events {
 public:
  void gate(uint8_t lane, uint32_t part, Decision decision, bool moved, uint16_t moves, uint32_t at_ms, uint16_t travel_ms);
  void fault(uint8_t lane, Fault code, bool raised, uint32_t detail, uint32_t at_ms);

  // Frees that one event. Unknown numbers have been freed before.
  void acknowledge(uint16_t number);
  void send_all_again();  // a host has greeted: everything is new to it

  // The next event to send, marked as sent; nullptr when none is due or the pace forbids it.
  const Event* take_due(uint32_t now_ms);

  uint8_t pending() const { return size_; }
  bool is_full() const { return size_ == kEvents; }
  uint32_t lost() const { return lost_; }
  uint32_t take_unreported();  // events lost since the last call; 0 while there is no room to say so

 private:
  Event* add();
  uint8_t phase(uint32_t now_ms);
  Event& at(uint8_t index) { return events_[(first_ + index) % kEvents]; }

  Event events_[kEvents];
  uint8_t first_ = 0, size_ = 0;
  uint16_t next_ = 0;
  uint16_t sent_ms_ = 0;
  uint8_t phase_until_ = 0, phase_ = 1;  // see phase()
  uint32_t lost_ = 0, unreported_ = 0;
};

}  // namespace castline
