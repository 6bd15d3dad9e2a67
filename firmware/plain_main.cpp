// The main function for the build with plain avr-g++. The Arduino IDE has its own.
void setup();
void loop();

int main() {
  setup();
  for (;;) loop();
}
