// A position on the belt. It is counted modulo 2^24, because 3 bytes instead of 4 save RAM for each of up to 256 tracked parts. Only the
// difference of two positions has a meaning.
#pragma once
#include <stdint.h>

namespace castline {

// The unit of a place is 1/16 of an encoder step. Without an encoder, the unit is the distance that the belt runs in 64 us. This is exact
// enough, because a gate may be 1 ms late.
typedef uint32_t Place;
const Place kPlaceMask = 0xFFFFFFUL;
const uint8_t kPlacesPerStepLog2 = 4;
const uint8_t kPlacesPerStep = 1 << kPlacesPerStepLog2;
const uint16_t kPlacesPerSecond = 15625;
const uint8_t kMicrosPerPlaceLog2 = 6;

// Converts microseconds to places (us / 64). On this 8-bit processor, a shift left by 2 and right by a whole byte is four times faster than
// a shift right by 6.
inline Place places_of_us(uint32_t us) { return us << 2 >> 8; }

// The longest distance in a lane's settings, in encoder steps: 8 million units of Place. past() works up to 2^23 units (8.4 million).
const uint32_t kMaxSteps = 500000;

// Returns how far `place` is past `mark`. The result is negative if `place` is before `mark`.
inline int32_t past(Place place, Place mark) { return static_cast<int32_t>((place - mark) << 8) >> 8; }

}  // namespace castline
