// Lists of words in flash memory, because a string literal would take RAM on the Mega. On a PC, they are ordinary strings.
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

// A list of words: one string in flash memory, with a space between two words. The first word has index 0.
typedef const char* WordList;

// Returns the index of the word `text` in `list`, or -1 if the list does not have the word.
int8_t find_word(WordList list, const char* text);

// Reads a decimal number without sign or leading zeros. Returns false if `text` is anything else or larger than 2^32 - 1.
bool read_number(const char* text, uint32_t& value);

}  // namespace castline
