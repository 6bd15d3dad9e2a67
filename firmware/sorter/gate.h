// The gate's machine: which pulse the servo gets, and how often it left its rest.
//
//   rest --moment of a diverted part--> going out --servo_ms--> out --dwell over--> returning --servo_ms--> rest
//   out, returning --next diverted part--> out again: from `out` without a movement, from `returning` by turning round
//   any --fault--> held where the lane's owner wants it; the lane lets go when the fault ends
#pragma once
#include "clock.h"
#include "settings.h"

namespace castline {

enum Position : uint8_t { kAtRest, kOut, kMoving };
extern const char kPositionWords[] PROGMEM;

class Gate {
 public:
  Gate() : is_out_(false), is_moving_(false), is_held_(false), is_dwelling_(false), is_testing_(false) {}
  void start(const Settings& settings, bool stored);

  uint16_t pulse_us() const { return pulse_us_; }  // what the servo is to be sent, 544..2400 us
  uint16_t moves() const { return moves_; }        // departures from rest since the reset
  Position position() const { return is_moving_ ? kMoving : is_out_ ? kOut : kAtRest; }
  bool is_out() const { return is_out_; }
  bool is_busy() const { return is_moving_ || (is_out_ && !is_held_); }  // tick() has something to do

  // New pulses are sent at once; where the gate is (rest or out) is kept.
  void configure(const Settings& settings) { send(settings); }

  // Out for a part, until the belt has come to `until`. True when the gate left its rest for it.
  bool divert(Place until, const Settings& settings, uint32_t now_us);

  // A fault holds the gate: kDivert out, kPass at rest, kStop where it is. kNone lets go, back to rest.
  void hold(Action action, const Settings& settings, uint32_t now_us);

  // One swing: out, until end_test(), and back.
  void test(const Settings& settings, uint32_t now_us);
  void end_test() { is_testing_ = false; }

  // `near`: the next diverted part's moment is so near that a return would be turned round before the servo noticed: it is left out.
  void tick(Place place, const Settings& settings, uint32_t now_us, bool near);

 private:
  bool move(bool out, const Settings& settings, uint32_t now_us);
  void send(const Settings& settings) { pulse_us_ = settings[is_out_ ? kOutUs : kRestUs]; }

  uint16_t pulse_us_ = 0;
  uint16_t moves_ = 0;
  uint32_t arrives_us_ = 0;
  Place out_until_place_ = 0;
  bool is_out_ : 1, is_moving_ : 1, is_held_ : 1, is_dwelling_ : 1, is_testing_ : 1;
};

}  // namespace castline
