#include <initializer_list>

#include "../events.h"
#include "../gate.h"
#include "check.h"

using namespace castline;

namespace {

Settings defaults() {
  Settings settings;
  settings.set_defaults();
  return settings;
}

}  // namespace

TEST(a_gate_goes_out_once_for_parts_that_follow_and_returns_after_the_last) {
  const Settings settings = defaults();  // a dwell of 60 mm takes 300 ms at 200 mm/s, which are 4687 places
  const Place dwell = settings.travel(kDwellMm);
  Gate gate;
  gate.start(settings, true);
  CHECK(gate.pulse_us() == 1000 && gate.position() == kAtRest);
  CHECK(gate.divert(1000 + dwell, settings, 0));
  CHECK(gate.pulse_us() == 2000 && gate.position() == kMoving);
  gate.tick(1000, settings, 80000, false);
  CHECK(gate.position() == kOut);
  CHECK(!gate.divert(3000 + dwell, settings, 100000));
  gate.tick(1000 + dwell, settings, 300000, false);
  CHECK(gate.is_out());
  gate.tick(3000 + dwell, settings, 400000, true);
  CHECK(gate.is_out());  // the next diverted part is too near for a return
  gate.tick(3000 + dwell, settings, 400000, false);
  CHECK(!gate.is_out() && gate.pulse_us() == 1000 && gate.position() == kMoving);
  CHECK(gate.divert(9000 + dwell, settings, 410000));  // the returning gate turned and went out again
  CHECK(gate.moves() == 2);
}

TEST(a_held_gate_stays_whatever_time_it_is) {
  const Settings settings = defaults();
  Gate gate;
  gate.start(settings, false);
  CHECK(gate.pulse_us() == kNeutralUs);
  gate.hold(kDivert, settings, 0);
  for (uint32_t now_us = 0; now_us < 4000000000u; now_us += 100000000u) gate.tick(now_us & kPlaceMask, settings, now_us, false);
  CHECK(gate.position() == kOut);
  gate.hold(kStop, settings, 0);
  CHECK(gate.is_out());
  gate.hold(kNone, settings, 0);
  gate.tick(0, settings, 1, false);
  CHECK(!gate.is_out());
}

TEST(an_event_holds_lane_gate_and_outcome_of_either_kind) {
  Events events;
  events.gate(4, 99999999, {kDivert, kVerdict, 3}, true, 7, 500, 400);
  events.gate(1, 1, {kNone, kMissing}, false, 0, 0, 0);
  events.fault(4, kStopped, true, 99999999, 600);
  const Event* event = events.take_due(1000);
  CHECK(event != nullptr && event->lane == 3 && event->outcome == kFurther + 3 && event->part == 99999999 && !event->fault);
  event = events.take_due(1020);
  CHECK(event != nullptr && event->lane == 0 && event->outcome == kNone && event->reason == kMissing);
  event = events.take_due(1040);
  CHECK(event != nullptr && event->fault && event->outcome == 4 && event->part == kStopped);
}

TEST(event_numbers_wrap_and_a_full_ring_names_what_it_lost) {
  Events events;
  for (uint32_t count = 0; count < 65536u + 10; ++count) {
    events.fault(1, kServoPower, true, count, count);
    if (count < 65536u) events.acknowledge(static_cast<uint16_t>(count));
  }
  CHECK(events.pending() == 10);
  uint32_t now_ms = 100000;
  for (uint16_t number = 0; number < 10; ++number, now_ms += 20) {
    const Event* event = events.take_due(now_ms);
    CHECK(event != nullptr && event->number == number);
  }
  for (int count = 0; count < kEvents - 10 + 7; ++count) events.gate(1, 1, {kPass, kVerdict}, false, 0, 0, 0);
  CHECK(events.is_full() && events.lost() == 7 && events.take_unreported() == 0);
  events.acknowledge(5);
  CHECK(events.take_unreported() == 7 && events.take_unreported() == 0);
}

TEST(an_event_is_repeated_about_every_second_until_acknowledged) {
  Events events;
  events.gate(2, 77, {kDivert, kVerdict}, true, 3, 500, 400);
  events.gate(2, 78, {kPass, kVerdict}, false, 3, 600, 400);
  int sent[2] = {0, 0};
  for (uint32_t now_ms = 1000; now_ms < 6000; ++now_ms) {
    const Event* event = events.take_due(now_ms);
    if (event != nullptr) ++sent[event->number];
  }
  CHECK(sent[0] >= 5 && sent[0] <= 7 && sent[1] == sent[0]);
  events.acknowledge(0);
  events.acknowledge(0);
  events.acknowledge(999);
  CHECK(events.pending() == 1);
  for (uint32_t now_ms = 6000; now_ms < 8000; ++now_ms) {
    const Event* event = events.take_due(now_ms);
    CHECK(event == nullptr || event->number == 1);
  }
  events.send_all_again();
  CHECK(events.take_due(9000) != nullptr);
}

TEST(events_acknowledged_out_of_order_leave_the_others_in_order) {
  Events events;
  for (uint32_t part = 1; part <= 5; ++part) events.gate(1, part, {kPass, kVerdict}, false, 0, 0, 0);
  events.acknowledge(3);
  events.acknowledge(1);
  uint32_t now_ms = 1000;
  for (uint32_t number : {0u, 2u, 4u}) {
    now_ms += 20;
    const Event* event = events.take_due(now_ms);
    CHECK(event != nullptr && event->number == number && event->part == number + 1);
  }
}

TEST(faults_are_stored_oldest_first) {
  Faults faults;
  CHECK(faults.oldest() == 0 && !faults.has(kHoldsGate));
  faults.add(kHostSilent);
  faults.add(kEye1Stuck);
  faults.add(kEye1Stuck);
  CHECK(faults.oldest() == kHostSilent && faults.has(kHoldsGate) && faults.has(kSilentHost));
  CHECK(faults.remove(kHostSilent) && !faults.remove(kHostSilent));
  CHECK(faults.oldest() == kEye1Stuck && !faults.has(kSilentHost));
}
