/* Measures servo pulses at the timers' compare outputs, because simavr does not set the port pins at the exact time. */
#include "runner.h"

#include <stdio.h>
#include <stdlib.h>

#include <simavr/sim_io.h>

#define SERVOS 8
#define NOTABLE 8 /* Cycles by which two different widths differ: one count of the timer, which is half a microsecond. */

int servo_reports_all;

static struct servo {
    char name[3];
    int level;
    uint64_t rise, rise_before, width;
} servos[SERVOS];
static int servo_count;

static void edge(struct avr_irq_t *irq, uint32_t value, void *param) {
    (void)irq;
    struct servo *servo = param;
    const int level = (value & 0xFF) != 0;
    if (level == servo->level) return;
    servo->level = level;
    const uint64_t now = mcu_cycle();
    if (level) {
        servo->rise_before = servo->rise;
        servo->rise = now;
        return;
    }
    const uint64_t width = now - servo->rise;
    const uint64_t difference = width > servo->width ? width - servo->width : servo->width - width;
    servo->width = width;
    if (!servo_reports_all && difference <= NOTABLE) return;
    control_send("{\"event\": \"pulse\", \"cycle\": %llu, \"servo\": \"%s\", \"us\": %.4f, \"period_us\": %.4f}",
                 (unsigned long long)servo->rise, servo->name, mcu_us(width), servo->rise_before ? mcu_us(servo->rise - servo->rise_before) : 0);
}

int servo_watch(const char *name) {
    if (servo_count == SERVOS || name[0] < '0' || name[0] > '5' || name[1] < 'A' || name[1] > 'C') return 0;
    avr_irq_t *irq = avr_io_getirq(avr, AVR_IOCTL_TIMER_GETIRQ(name[0]), TIMER_IRQ_OUT_COMP + (name[1] - 'A'));
    if (!irq) return 0;
    struct servo *servo = &servos[servo_count++];
    snprintf(servo->name, sizeof servo->name, "%s", name);
    avr_irq_register_notify(irq, edge, servo);
    return 1;
}

void servo_after_reset(void) {
    /* With a previous width of 0, the first pulse after a reset is reported. */
    for (int i = 0; i < servo_count; i++) servos[i].level = servos[i].width = 0;
}
