// The main function that the Arduino core would add to the sketch. The build with plain avr-g++ needs nothing else of that core.
void setup();
void loop();

int main() {
  setup();
  for (;;) loop();
}
