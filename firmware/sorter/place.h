// A position on the belt, counted modulo 2^24, so that 256 parts fit into half of the Mega's RAM. Only differences have a meaning.
#pragma once
#include <stdint.h>

namespace castline {

// A place is a sixteenth of an encoder step or, without encoder, 64 us of running belt. Both are far below the 1 ms by which a gate may be
// late.
typedef uint32_t Place;
const Place kPlaceMask = 0xFFFFFFUL;
const uint8_t kPlacesPerStepLog2 = 4;
const uint8_t kPlacesPerStep = 1 << kPlacesPerStepLog2;
const uint16_t kPlacesPerSecond = 15625;
const uint8_t kMicrosPerPlaceLog2 = 6;

// Converts microseconds to places, which is a shift right by 6. Shifting left by 2 and right by a byte is four times faster on 8 bits.
inline Place places_of_us(uint32_t us) { return us << 2 >> 8; }

// Longest travel, in steps, that settings may require. It stays below half of 2^24, so that differences keep their sign.
const uint32_t kMaxSteps = 500000;

// Returns how far `place` is past `mark`. The result is negative if `place` is before `mark`.
inline int32_t past(Place place, Place mark) { return static_cast<int32_t>((place - mark) << 8) >> 8; }

}  // namespace castline
