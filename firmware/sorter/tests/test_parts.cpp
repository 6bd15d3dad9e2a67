// Unit tests of the clock, places, photo-eye, settings and tracker.
#include "../clock.h"
#include "../eye.h"
#include "../tracker.h"
#include "check.h"

using namespace castline;

namespace {

// Settings of a belt that runs at one metre per second. The belt moves 15,625 units of Place in a second, or about 16 in a millimetre.
Settings quick() {
  Settings settings;
  settings.set_defaults();
  settings.value[kStepUm] = 1000;
  settings.value[kEyeGapMm] = 300;
  settings.value[kSpacingMm] = 60;
  return settings;
}

Place at_mm(uint32_t mm, Place start = 0) { return (start + mm * 15625 / 1000) & kPlaceMask; }
Edge edge_at(uint32_t mm, Place start = 0) { return {at_mm(mm, start), {mm, 0}}; }

}  // namespace

TEST(the_clock_goes_on_over_its_wrap) {
  Clock clock;
  clock.start(0xFFFFFFFFu - 999);
  for (uint32_t step = 1; step <= 10; ++step) clock.advance(0xFFFFFFFFu - 999 + step * 700);
  CHECK(clock.now().ms == 7 && clock.now().us == 0);
  const Stamp before = clock.at(clock.us() - 2300);
  CHECK(before.ms == 4 && before.us == 700);
  CHECK(clock.at(clock.us() + 5).ms == 7);
}

TEST(places_wrap_and_their_distances_do_not) {
  CHECK(past(3, kPlaceMask) == 4);
  CHECK(past(kPlaceMask, 3) == -4);
  CHECK(past(places_of_us(64u * 1000), places_of_us(0u - 64u * 1000)) == 2000);
}

TEST(an_eye_takes_only_what_has_held) {
  Eye eye;
  eye.change(true, 100, 1000, 0);
  CHECK(!eye.settle(1400, 500));
  eye.change(false, 101, 1450, 0);  // a bounce: the level changes back
  CHECK(!eye.settle(3000, 500));
  eye.change(true, 200, 5000, 0);
  CHECK(eye.settle(5500, 500));
  CHECK(eye.is_blocked() && eye.place() == 200 && eye.at_us() == 5000 && eye.since() == 200);
  CHECK(!eye.settle(9000, 500));
}

TEST(settings_are_bounded_and_agree_with_each_other) {
  Settings settings;
  settings.set_defaults();
  CHECK(settings.is_consistent());
  CHECK(settings.travel(kEyeGapMm) == 800u * 1000 / 200 * 15625 / 1000);
  settings.value[kEncoder] = 1;
  CHECK(settings.travel(kEyeGapMm) == 800u * 1000 / 200 * kPlacesPerStep);
  uint16_t value = 7;
  CHECK(!read_value(kEyeGapMm, "49", value) && !read_value(kEyeGapMm, "20001", value) && !read_value(kSafeAction, "none", value));
  CHECK(read_value(kSafeAction, "stop", value) && value == kStop);
  settings.value[kRestUs] = settings.value[kOutUs];
  CHECK(!settings.is_consistent());
  settings.set_defaults();
  settings.value[kStepUm] = 1;
  settings.value[kEyeGapMm] = 20000;
  CHECK(!settings.is_consistent());
}

TEST(a_part_is_treated_by_its_verdict_when_another_one_is_missing) {
  const Settings settings = quick();
  Tracker tracker;
  for (uint32_t part = 0; part < 3; ++part) CHECK(tracker.add(edge_at(part * 100)));
  tracker.find(1)->verdict = kReject;
  tracker.find(2)->verdict = kReject;
  tracker.find(3)->verdict = kKeep;
  CHECK(tracker.nearest(at_mm(305), settings) == 0);
  CHECK(tracker.nearest(at_mm(400), settings) == 1);  // the first part was taken off the belt
  CHECK(tracker.nearest(at_mm(350), settings) == -1);
  tracker.drop_front();
  tracker.decide_front(settings, false);
  Decision decision = tracker.take(at_mm(400), settings);
  CHECK(decision.action == kDivert && decision.reason == kVerdict);
  tracker.decide_front(settings, false);
  decision = tracker.take(at_mm(500), settings);
  CHECK(decision.action == kPass && decision.reason == kVerdict);
  CHECK(tracker.find(3) == nullptr && tracker.size() == 0);
}

TEST(parts_too_close_get_one_decision) {
  const Settings settings = quick();
  Tracker tracker;
  tracker.add(edge_at(0));
  tracker.add(edge_at(40));
  tracker.add(edge_at(200));
  tracker.find(1)->verdict = kKeep;
  tracker.find(2)->verdict = kReject;
  tracker.find(3)->verdict = kKeep;
  tracker.decide_front(settings, false);
  CHECK(tracker[0].basis == kClusterDecision && tracker[1].basis == kOwnDecision && tracker[2].basis == kUndecided);
  CHECK(tracker.take(at_mm(300), settings).reason == kSpacing);
  CHECK(tracker.take(at_mm(340), settings).reason == kVerdict);
  // An uncounted part close behind another part gets the action of that part.
  Settings pass = settings;
  pass.value[kNoVerdictAction] = kPass;
  const Decision decision = tracker.take_unmatched(at_mm(380), pass);
  CHECK(decision.action == kDivert && decision.reason == kSpacing);
  CHECK(tracker.take_unmatched(at_mm(480), pass).reason == kUnmatched);
}

TEST(parts_too_close_for_two_gates_fall_at_the_belts_own) {
  const Settings settings = quick();
  Tracker tracker;
  tracker.add(edge_at(0));
  tracker.add(edge_at(40));
  tracker.find(1)->verdict = kReject + 2;
  tracker.find(2)->verdict = kReject;
  tracker.decide_front(settings, false);
  Decision decision = tracker.take(at_mm(300), settings);
  CHECK(decision.action == kDivert && decision.gate == 0 && decision.reason == kSpacing);
  CHECK(tracker.take(at_mm(340), settings).reason == kVerdict);
}

TEST(parts_for_one_further_gate_go_there_and_so_does_an_uncounted_part_behind_them) {
  const Settings settings = quick();
  Tracker tracker;
  tracker.add(edge_at(0));
  tracker.add(edge_at(40));
  tracker.find(1)->verdict = tracker.find(2)->verdict = kReject + 4;
  for (uint32_t part = 0; part < 2; ++part) {
    tracker.decide_front(settings, false);
    const Decision decision = tracker.take(at_mm(300 + 40 * part), settings);
    CHECK(decision.action == kDivert && decision.gate == 4 && decision.reason == kVerdict);
  }
  const Decision decision = tracker.take_unmatched(at_mm(380), settings);
  CHECK(decision.action == kDivert && decision.gate == 4 && decision.reason == kSpacing);
  CHECK(tracker.take_unmatched(at_mm(480), settings).gate == 0);
}

TEST(sixty_four_parts_fit_over_the_wrap_of_places) {
  const Settings settings = quick();
  Tracker tracker;
  const Place start = kPlaceMask - 500;
  for (uint32_t part = 0; part < kParts; ++part) CHECK(tracker.add(edge_at(part * 4, start)));
  CHECK(!tracker.add(edge_at(300, start)));
  CHECK(tracker.nearest(at_mm(300, start), settings) == 0);
  CHECK(tracker.nearest(at_mm(300 + 63 * 4, start), settings) == 63);
}

TEST(the_age_of_a_part_between_the_eyes_is_limited) {
  Tracker tracker;
  tracker.add({0, {1000, 0}});
  CHECK(Tracker::travel_ms(tracker[0], 5000) == 4000);
  for (uint32_t now_ms = 1000; now_ms < 400000; now_ms += 100) tracker.age(0, now_ms);
  CHECK(Tracker::travel_ms(tracker[0], 399950) == 65535);
  CHECK(399950 - Tracker::at_ms(tracker[0], 399950) >= kMaxAgeMs);
}

TEST(each_part_is_announced_until_the_host_has_seen_it) {
  Tracker tracker;
  uint32_t number = 0;
  CHECK(tracker.next_to_announce(number) == nullptr);
  for (uint32_t part = 0; part < 3; ++part) tracker.add(edge_at(part * 100));
  for (uint32_t part = 1; part <= 3; ++part) CHECK(tracker.next_to_announce(number) != nullptr && number == part);
  CHECK(tracker.next_to_announce(number) == nullptr);
  tracker.find(2)->seen = 1;
  tracker.announce_all_again();
  CHECK(tracker.next_to_announce(number) != nullptr && number == 1);
  tracker.drop_front();
  CHECK(tracker.next_to_announce(number) != nullptr && number == 3);
  CHECK(tracker.next_to_announce(number) == nullptr);
}
