#include "text.h"

namespace castline {

int8_t find_word(WordList list, const char* text) {
  const char* requested = text;
  int8_t index = 0;
  bool same = true;
  for (;; ++list) {
    const char letter = static_cast<char>(pgm_read_byte(list));
    if (letter == ' ' || letter == '\0') {
      if (same && *requested == '\0') return index;
      if (letter == '\0') return -1;
      ++index;
      requested = text;
      same = true;
    } else if (same) {
      same = *requested == letter;
      if (same) ++requested;
    }
  }
}

bool read_number(const char* text, uint32_t& value) {
  if (text[0] == '\0' || (text[0] == '0' && text[1] != '\0')) return false;
  value = 0;
  for (; *text != '\0'; ++text) {
    if (*text < '0' || *text > '9') return false;
    const uint8_t digit = static_cast<uint8_t>(*text - '0');
    if (value > 429496729UL || (value == 429496729UL && digit > 5)) return false;
    value = value * 10 + digit;
  }
  return true;
}

}  // namespace castline
