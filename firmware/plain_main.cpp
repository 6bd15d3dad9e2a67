// The main function for the build with plain avr-g++. The Arduino IDE adds its own main function.
void setup();
void loop();

int main() {
  setup();
  for (;;) loop();
}
