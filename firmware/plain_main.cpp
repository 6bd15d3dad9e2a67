// What the Arduino core would do around the sketch, for the build with plain avr-g++: nothing else of that core is needed.
void setup();
void loop();

int main() {
  setup();
  for (;;) loop();
}
