/* Declarations for all files of the runner, the program that executes the board's firmware in libsimavr (see runner.c).
 *
 * libsimavr is under the GPL-3. This program is a test tool. Each user builds it, and no binary of it is distributed.
 */
#ifndef RUNNER_H
#define RUNNER_H

#include <stdint.h>

#include <simavr/avr_ioport.h>
#include <simavr/avr_timer.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>

#define PORTS 26 /* named A to Z; the Mega has A to L without I */

/* ---- mcu.c: the microcontroller, its resets, and corrections of simavr 1.6 ---- */
extern avr_t *avr;
extern avr_ioport_t *ports[PORTS];
extern avr_uart_t *uart0;
extern int quitting;

enum reset_cause { RESET_POWER, RESET_BUTTON, RESET_BROWN_OUT, RESET_WATCHDOG };

void mcu_start(const char *firmware, const char *boot_loader); /* `boot_loader` is a file in Intel HEX format, or NULL. */
uint64_t mcu_cycle(void); /* Cycles since the runner's start, over all resets. */
double mcu_us(uint64_t cycles);
void mcu_reset(enum reset_cause cause);
int mcu_has_boot_loader(void);
void mcu_hang(void); /* Makes the processor execute an endless loop, until the watchdog resets it. */
void mcu_run_until(uint64_t cycle);
void mcu_check(void); /* Must be called often. Repeats corrections of simavr that a reset has undone. */

/* ---- pins.c: input levels at exact cycles, and changes of outputs ---- */
int pin_set(char port, int bit, int level);
void pin_schedule(uint64_t cycle, char port, int bit, int level);
int pin_watch(const char *name); /* Reports changes of an output pin such as "F4". */
void encoder_turn(char port_a, int bit_a, char port_b, int bit_b, uint32_t cycles_per_edge, int forward);
void pins_after_reset(void);
int loop_watch(char port); /* Measures the rounds of the main loop, which writes this port once in each round. */
void loop_report(void);      /* Reports the durations of the rounds since the last call. */

/* ---- servo.c: widths of the pulses at output-compare pins ---- */
int servo_watch(const char *name); /* Reports the pulses of a timer output; "4A" means OC4A. */
extern int servo_reports_all;        /* 0: only pulses whose width differs from the previous one are reported. */
void servo_after_reset(void);

/* ---- wire.c: UART 0 to a pseudo-terminal or to the control channel ---- */
void wire_start(const char *link); /* If `link` is NULL, bytes are exchanged by `rx` commands and `tx` events. */
void wire_receive(const uint8_t *bytes, unsigned count);
void wire_poll(void); /* Must be called often. Moves bytes between the UART and the host. */
int wire_handle(void);
int wire_is_open(void);
void wire_set_dtr(int level); /* With a boot loader, a rising level resets the board, as the capacitor on a Mega does. */
void wire_stop(void);
extern uint64_t wire_in, wire_out, wire_overruns, wire_unread;

/* ---- eeprom.c: the time of a write, and a file that keeps the EEPROM ---- */
void eeprom_start(void);
void eeprom_load(const char *path);
void eeprom_save(void); /* Does nothing if the content is unchanged. */

/* ---- control.c: commands on stdin, events on stdout ---- */
void control_start(void);
void control_send(const char *format, ...) __attribute__((format(printf, 1, 2)));
void control_flush(void);
int control_wait(uint64_t until_ns); /* Handles commands until this time (0: only those that wait). Returns 0 if stdin has ended. */
extern uint64_t control_target;      /* Without --link: the cycle up to which the firmware may run. */
extern int control_run_pending;              /* Without --link: a `run` command was not answered by `paused` yet. */

uint64_t now_ns(void);
void restart_real_time(void);
extern double speed_factor;

#endif
