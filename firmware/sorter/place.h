// Where something is on the belt. Counts modulo 2^24, so that 256 parts fit into half of the Mega's RAM; only differences are used.
#pragma once
#include <stdint.h>

namespace castline {

// With an encoder sixteenths of a step, without one 64 us of running belt: both resolve well below the 1 ms that the gate may be off.
typedef uint32_t Place;
const Place kPlaceMask = 0xFFFFFFUL;
const uint8_t kPlacesPerStepLog2 = 4;
const uint8_t kPlacesPerStep = 1 << kPlacesPerStepLog2;
const uint16_t kPlacesPerSecond = 15625;
const uint8_t kMicrosPerPlaceLog2 = 6;

// Microseconds in places. Not simply shifted by 6: to the left by 2 and down by a byte is four times quicker on an 8-bit machine.
inline Place places_of_us(uint32_t us) { return us << 2 >> 8; }

// Longest travel, in steps, that a setting may ask for: half of the 2^24 must not be reached.
const uint32_t kMaxSteps = 500000;

// How far `place` lies past `mark`; negative when it is before it.
inline int32_t past(Place place, Place mark) { return static_cast<int32_t>((place - mark) << 8) >> 8; }

}  // namespace castline
