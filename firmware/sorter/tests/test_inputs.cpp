// Unit tests of contact, push-button, end switch, chute, belt speed and camera pulses. The tests read and write no pin.
#include <initializer_list>

#include "../button.h"
#include "../camera.h"
#include "../chute.h"
#include "../contact.h"
#include "../drive.h"
#include "../end_switch.h"
#include "check.h"

using namespace castline;

namespace {

const uint16_t kHoldUs = 10000;
const uint16_t kRoundUs = 200;

// Holds an input at a level for some time, in rounds of 200 us. Returns how often the contact has changed.
int hold(Contact& contact, bool level, uint32_t us) {
  int changes = 0;
  for (uint32_t passed = 0; passed < us; passed += kRoundUs) changes += contact.sample(level, kRoundUs, kHoldUs);
  return changes;
}

// Calls sample() each millisecond for `ms`, with the button pressed or released. Returns how often sample() reported a press.
int hold(Button& button, bool pressed, uint32_t ms, uint32_t& now_ms) {
  int presses = 0;
  for (const uint32_t end_ms = now_ms + ms; now_ms < end_ms; ++now_ms) presses += button.sample(pressed, 1000, now_ms);
  return presses;
}

}  // namespace

// ---- contact.h

TEST(a_contact_changes_when_the_level_has_lasted) {
  Contact contact;
  CHECK(hold(contact, true, kHoldUs) == 0 && !contact.is_on());  // the first round is not counted
  CHECK(hold(contact, true, kRoundUs) == 1 && contact.is_on());
  CHECK(hold(contact, true, 10 * kHoldUs) == 0);
  CHECK(hold(contact, false, kHoldUs) == 0 && contact.is_on());
  CHECK(hold(contact, false, kRoundUs) == 1 && !contact.is_on());
}

TEST(a_contact_ignores_bounces_but_not_a_level_that_is_mostly_there) {
  Contact contact;
  for (int pulse = 0; pulse < 100; ++pulse) {
    hold(contact, true, 5000);
    hold(contact, false, 7000);
  }
  CHECK(!contact.is_on());
  for (int pulse = 0; pulse < 10; ++pulse) {
    hold(contact, true, 7000);
    hold(contact, false, 1000);
  }
  CHECK(contact.is_on());
}

TEST(a_slow_round_of_the_main_loop_does_not_lengthen_a_pulse) {
  Contact contact;
  CHECK(!contact.sample(true, kRoundUs, kHoldUs));
  for (int round = 0; round < 9; ++round) CHECK(!contact.sample(true, 60000, kHoldUs));
  CHECK(contact.sample(true, 60000, kHoldUs));
  // Between two calls of sample(), 60 ms pass and the level changes. The real pulses at the input can be much shorter, so they must not
  // count as pulses of 60 ms.
  Contact pulses;
  for (int pulse = 0; pulse < 40; ++pulse) {
    CHECK(!pulses.sample(true, 60000, kHoldUs));
    CHECK(!pulses.sample(false, 60000, kHoldUs));
  }
}

TEST(a_contact_that_has_changed_at_its_sum_is_not_reported_twice_when_the_hold_time_changes) {
  Contact contact;
  hold(contact, true, 2 * kHoldUs);
  CHECK(!contact.sample(true, 1000, 5000) && !contact.sample(true, 1000, 20000) && contact.is_on());
}

// ---- button.h

TEST(a_short_press_counts_once_when_the_button_is_released) {
  Button button;
  uint32_t now_ms = 0;
  CHECK(hold(button, false, 100, now_ms) == 0);
  CHECK(hold(button, true, 500, now_ms) == 0 && button.is_pressed());
  CHECK(hold(button, false, 500, now_ms) == 1 && !button.is_pressed());
}

TEST(a_bounce_a_long_press_and_a_press_since_the_reset_do_not_count) {
  Button button;
  uint32_t now_ms = 0;
  CHECK(hold(button, true, 500, now_ms) == 0);
  CHECK(hold(button, false, 500, now_ms) == 0);
  CHECK(hold(button, true, 40, now_ms) == 0);
  CHECK(hold(button, false, 100, now_ms) == 0);
  CHECK(hold(button, true, 3200, now_ms) == 0);
  CHECK(hold(button, false, 500, now_ms) == 0);
  CHECK(hold(button, true, 200, now_ms) == 0);
  CHECK(hold(button, false, 200, now_ms) == 1);
}

TEST(a_stuck_button_does_not_count_when_the_clock_wraps) {
  Button button;
  uint32_t now_ms = 0xFFFFF000u;
  hold(button, false, 100, now_ms);
  for (int round = 0; round < 4; ++round) CHECK(!button.sample(true, 60000, now_ms));
  for (int round = 0; round < 60; ++round) CHECK(!button.sample(true, 1000, ++now_ms));
  CHECK(button.is_pressed());
  now_ms += 5000;
  CHECK(!button.sample(true, 1000, now_ms));
  now_ms -= 5000;
  for (int round = 0; round < 200; ++round) CHECK(!button.sample(false, 1000, now_ms));
}

// ---- end_switch.h

TEST(a_gate_that_moves_in_time_is_no_trouble) {
  EndSwitch end_switch;
  end_switch.restart(false, 0);
  const uint32_t limit_us = 260000;
  uint32_t now_us = 0xFFFE0000u;  // the counter of microseconds wraps during the test
  end_switch.restart(false, now_us);
  for (int move = 1; move <= 20; ++move) {
    const bool is_out = move % 2 == 1;
    for (int ms = 0; ms < 500; ++ms, now_us += 1000) CHECK(end_switch.check(ms < 20 || ms >= 100, is_out, now_us, limit_us, 70) == kNoTrouble);
  }
}

TEST(each_trouble_of_a_gate_is_reported_once) {
  EndSwitch end_switch;
  end_switch.restart(false, 0);
  int not_left = 0, not_arrived = 0;
  for (uint32_t ms = 0; ms < 2000; ++ms) not_left += end_switch.check(true, true, ms * 1000, 260000, 70) == kNotLeft;
  CHECK(not_left == 1);
  end_switch.restart(true, 2000000);
  for (uint32_t ms = 2000; ms < 2400; ++ms) not_arrived += end_switch.check(ms < 2020, false, ms * 1000, 260000, 70) == kNotArrived;
  CHECK(not_arrived == 1);
}

TEST(a_gate_that_is_pushed_off_its_end_is_trouble_without_a_move) {
  EndSwitch end_switch;
  end_switch.restart(false, 0);
  for (uint32_t ms = 0; ms < 1000; ++ms) CHECK(end_switch.check(true, false, ms * 1000, 260000, 70) == kNoTrouble);
  for (uint32_t ms = 1000; ms < 1259; ++ms) CHECK(end_switch.check(false, false, ms * 1000, 260000, 70) == kNoTrouble);
  CHECK(end_switch.check(false, false, 1260000, 260000, 70) == kNotArrived);
}

TEST(a_gate_that_turns_back_at_once_need_not_leave_its_end) {
  EndSwitch end_switch;
  end_switch.restart(false, 0);
  for (uint32_t ms = 0; ms < 70; ++ms) CHECK(end_switch.check(true, true, ms * 1000, 260000, 70) == kNoTrouble);
  for (uint32_t ms = 69; ms < 1000; ++ms) CHECK(end_switch.check(true, false, ms * 1000, 260000, 70) == kNoTrouble);
}

TEST(a_gate_that_turns_back_late_must_have_left_its_end) {
  EndSwitch end_switch;
  end_switch.restart(false, 0);
  for (uint32_t ms = 0; ms < 70; ++ms) CHECK(end_switch.check(true, true, ms * 1000, 260000, 70) == kNoTrouble);
  CHECK(end_switch.check(true, false, 70000, 260000, 70) == kNotLeft);
  for (uint32_t ms = 71; ms < 1000; ++ms) CHECK(end_switch.check(true, false, ms * 1000, 260000, 70) == kNoTrouble);
}

// ---- chute.h

TEST(a_casting_in_the_chute_is_the_nearest_expected_one) {
  Chute chute;
  uint16_t event = 0;
  CHECK(!chute.take_nearest(0, 1000, event));
  const Place first = kPlaceMask - 100;  // the places wrap between the castings
  for (uint16_t index = 0; index < 3; ++index) CHECK(chute.add(index, first + 400u * index));
  CHECK(!chute.take_nearest(first - 151, 150, event));
  CHECK(chute.take_nearest(first + 390, 300, event) && event == 1);
  CHECK(chute.take_nearest(first + 390, 391, event) && event == 0);
  CHECK(chute.take_nearest(first + 790, 300, event) && event == 2);
  CHECK(chute.is_empty());
}

TEST(a_casting_is_overdue_when_the_window_is_over) {
  Chute chute;
  uint16_t event = 0;
  CHECK(chute.add(7, 1000) && chute.add(8, 900));
  CHECK(!chute.take_overdue(1000, 100, event));
  CHECK(chute.take_overdue(1001, 100, event) && event == 8);
  CHECK(!chute.take_overdue(1100, 100, event) && chute.take_overdue(1101, 100, event) && event == 7);
}

TEST(a_full_chute_takes_no_further_casting_and_gives_all_back) {
  Chute chute;
  uint16_t event = 0;
  for (uint16_t index = 0; index < kChuteParts; ++index) CHECK(chute.add(index, index));
  CHECK(!chute.add(99, 99));
  for (uint16_t index = 0; index < kChuteParts; ++index) CHECK(chute.take_oldest(event) && event == index);
  CHECK(!chute.take_oldest(event));
}

// ---- drive.h

TEST(a_belt_without_ramps_runs_or_stands) {
  Drive drive;
  CHECK(drive.is_standing() && drive.is_steady(false) && !drive.is_steady(true));
  CHECK(drive.advance(true, 1234, 0) == 1234 && drive.is_steady(true) && drive.travel(1000) == 1000);
  CHECK(drive.advance(false, 1234, 0) == 0 && drive.is_standing() && drive.travel(1000) == 0);
}

TEST(a_ramp_travels_half_of_the_distance_at_full_speed) {
  for (uint32_t round_us : {200u, 700u, 1000u, 3000u}) {
    Drive drive;
    uint32_t travelled = 0;
    for (uint32_t passed = 0; passed < 200000; passed += round_us) travelled += drive.advance(true, round_us, 100);
    // The belt speeds up for 100 ms and then runs for 100 ms at full speed.
    CHECK(drive.is_steady(true) && travelled >= 148000 && travelled <= 153000);
    travelled = 0;
    for (uint32_t passed = 0; passed < 200000; passed += round_us) travelled += drive.advance(false, round_us, 100);
    CHECK(drive.is_standing() && travelled >= 48000 && travelled <= 52000);
  }
}

TEST(a_belt_that_is_switched_off_on_its_ramp_stands_again) {
  Drive drive;
  for (int ms = 0; ms < 50; ++ms) drive.advance(true, 1000, 100);
  const uint32_t half = drive.travel(10000);
  CHECK(half >= 4800 && half <= 5200);
  for (int ms = 0; ms < 51; ++ms) drive.advance(false, 1000, 100);
  CHECK(drive.is_standing());
}

TEST(a_ramp_that_is_longer_than_the_steps_of_the_speed_still_ends) {
  Drive drive;
  for (uint32_t ms = 0; ms < 100000 && !drive.is_steady(true); ++ms) drive.advance(true, 1000, 60000);
  CHECK(drive.is_steady(true));
}

// ---- Tests of camera.h. Times are in units of 64 us.

TEST(a_pulse_begins_at_its_moment_and_has_its_length) {
  Camera camera;
  CHECK(!camera.is_busy());
  camera.add(1000);
  camera.tick(999, 999, 80);
  CHECK(camera.is_busy() && !camera.is_triggering());
  camera.tick(1000, 1000, 80);
  CHECK(camera.is_triggering());
  camera.tick(1079, 1079, 80);
  CHECK(camera.is_triggering());
  camera.tick(1080, 1080, 80);
  CHECK(!camera.is_triggering() && camera.is_busy());
  camera.tick(1096, 1096, 80);
  CHECK(!camera.is_busy());
}

TEST(pulses_that_would_run_together_stay_apart) {
  Camera camera;
  for (Place moment = 0; moment < 200; moment += 40) camera.add(kPlaceMask - 100 + moment);  // the time wraps in the middle
  int rises = 0, high = 0, low_between = 0;
  bool was_high = false;
  for (Place passed = 0; passed < 400; ++passed) {
    const Place now = (kPlaceMask - 100 + passed) & kPlaceMask;
    camera.tick(now, now, 100);
    if (camera.is_triggering() && !was_high) ++rises;
    if (!camera.is_triggering() && rises > 0 && rises < 5) ++low_between;
    was_high = camera.is_triggering();
    high += was_high;
  }
  CHECK(rises == 5 && low_between >= 4 * 16 && high >= 5 * 16);
}

TEST(pulses_without_room_are_counted_as_lost) {
  Camera camera;
  for (int count = 0; count < kCameraPulses + 3; ++count) camera.add(1000);
  CHECK(camera.has_lost() && camera.take_lost() == 3 && !camera.has_lost());
  camera.clear();
  CHECK(camera.take_lost() == kCameraPulses && camera.take_lost() == 0 && !camera.is_busy());
}
