// Unit tests of a lane. In these tests, the time at which a photo-eye changes is a little earlier or later than the lane's clock.
#include "../lane.h"
#include "check.h"

using namespace castline;

namespace {

// Lane 1 of a board, with an encoder. When a photo-eye changes, the encoder must turn within encoder_timeout_ms (500 ms) before or after
// the change.
struct EncodedLane {
  EncodedLane() {
    StoredLane stored;
    stored.settings.set_defaults();
    stored.settings.value[kEncoder] = 1;
    stored.settings.value[kUseEstop] = 0;
    stored.state = kNothingStored;
    stored.faults = 0;
    shared.clock.start(0);
    shared.lanes = lanes;
    for (uint8_t index = 0; index < kLanes; ++index) lanes[index].start(static_cast<uint8_t>(index + 1), stored, shared);
    lane().commit(stored.settings);
  }

  Lane& lane() { return lanes[0]; }

  void run_until(uint32_t us) {
    while (shared.clock.us() < us) {
      const uint32_t step_us = us - shared.clock.us() < 10000 ? us - shared.clock.us() : 10000;
      shared.clock.advance(shared.clock.us() + step_us);
      lane().advance(step_us);
      lane().update();
    }
  }

  bool has_encoder_fault() { return lane().faults().is_in_force(kEncoderStopped); }

  BoardShared shared;
  Lane lanes[kLanes];
};

}  // namespace

TEST(an_edge_after_the_clock_was_read_is_no_stopped_encoder) {
  EncodedLane encoded;
  encoded.run_until(1000000);
  encoded.lane().change_eye(1, true, 1000050);
  encoded.lane().update();
  CHECK(!encoded.has_encoder_fault());
  encoded.run_until(1490000);
  CHECK(!encoded.has_encoder_fault());
  encoded.run_until(1510000);
  CHECK(encoded.has_encoder_fault());
}

TEST(a_belt_that_stops_right_after_an_edge_has_no_stopped_encoder) {
  EncodedLane encoded;
  encoded.run_until(1000000);
  encoded.lane().add_steps(4);
  // The lane first gets four encoder steps, and then a change at photo-eye 1 that happened 50 us before these steps.
  encoded.lane().change_eye(1, true, 999950);
  encoded.run_until(3000000);
  CHECK(!encoded.has_encoder_fault());
}
