// Words that are kept in flash. On the Mega a plain string literal takes RAM; a PC has no such difference.
#pragma once
#include <stdint.h>
#include <string.h>

#ifdef __AVR__
#include <avr/pgmspace.h>
#else
#define PROGMEM
inline uint8_t pgm_read_byte(const void* at) { return *static_cast<const uint8_t*>(at); }
inline uint16_t pgm_read_word(const void* at) { return *static_cast<const uint16_t*>(at); }
inline uint32_t pgm_read_dword(const void* at) { return *static_cast<const uint32_t*>(at); }
#endif

namespace castline {

// A list of words is one string in flash, separated by spaces; a word is named by its index from 0.
typedef const char* WordList;

// Index of `text` in `list`, -1 when it is not there.
int8_t find_word(WordList list, const char* text);

// A decimal number without sign or leading zeros, as the protocol writes it. False when `text` is anything else or above 2^32 - 1.
bool read_number(const char* text, uint32_t& value);

}  // namespace castline
