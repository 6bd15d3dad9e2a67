// The main function for the build with plain avr-g++. The Arduino IDE would take it from the Arduino core, which this build does not use.
void setup();
void loop();

int main() {
  setup();
  for (;;) loop();
}
