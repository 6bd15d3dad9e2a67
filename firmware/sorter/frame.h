// Reads and writes frames of the gate protocol byte by byte. See firmware/PROTOCOL.md, "Frames".
#pragma once
#include "text.h"

namespace castline {

// Largest lengths of a frame and of a command, newline included. See PROTOCOL.md, "Frames".
const uint8_t kMaxFrameBytes = 84;
const uint8_t kMaxCommandBytes = 60;
// Largest number of fields that are stored. A newer host may send more fields, which are ignored.
const uint8_t kMaxFields = 6;

// Finds the frames in a stream of bytes. The states, and what leads from one to the next:
//   dropped --'>'--> collecting --newline after a valid frame--> frame
//   collecting --'>'--> collecting a new frame
//   collecting --newline after a damaged frame | unprintable byte | too many bytes--> dropped
class Deframer {
 public:
  // Takes the next byte. Returns true if it completes a valid frame. Until the next call, seq(), name() and field() describe this frame.
  bool feed(uint8_t byte);

  uint8_t seq() const { return seq_; }
  const char* name() const { return line_ + kNameAt; }
  uint8_t fields() const { return fields_; }
  const char* field(uint8_t index) const { return line_ + field_[index]; }

  uint32_t good = 0;
  uint32_t damaged = 0;

 private:
  static const uint8_t kNameAt = 4;

  bool parse();
  void drop();

  char line_[kMaxCommandBytes + 1];
  uint8_t length_ = 0;
  bool open_ = false;
  uint8_t seq_ = 0;
  uint8_t fields_ = 0;
  // For each field, the index in line_ at which the field begins.
  uint8_t field_[kMaxFields];
};

// Writes one frame into a buffer of kMaxFrameBytes bytes. The tests check that no frame is longer.
class FrameWriter {
 public:
  FrameWriter(char* buffer, char start, uint8_t seq);
  // Adds a space and a word from `list` to the frame. `index` is 0 for the first word of the list.
  FrameWriter& word(WordList list, uint8_t index = 0);
  // Adds a space and a text from RAM to the frame.
  FrameWriter& text(const char* letters);
  // Adds a space and a number to the frame.
  FrameWriter& number(uint32_t value);
  // Adds a space and four hexadecimal digits to the frame.
  FrameWriter& digest(uint16_t crc);
  // Ends the frame with its checksum and a newline. Returns the length of the frame.
  uint8_t close();

 private:
  void put(char letter);
  void hex4(uint16_t value);

  char* buffer_;
  uint8_t length_ = 0;
};

}  // namespace castline
