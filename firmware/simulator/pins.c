/* The pins: input levels at exact cycles, turning encoders, and changes of the outputs. */
#include "runner.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <simavr/sim_io.h>

static uint8_t driven[PORTS], levels[PORTS];

int pin_set(char port, int bit, int level) {
    const int index = port - 'A';
    if (index < 0 || index >= PORTS || !ports[index] || bit < 0 || bit > 7) return 0;
    driven[index] |= 1 << bit;
    levels[index] = (levels[index] & ~(1 << bit)) | (level ? 1 << bit : 0);
    /* Without this call, a write to the port's output register would set the pin back to the level of the pull-up. */
    avr_ioport_external_t external = {.name = port, .mask = driven[index], .value = levels[index]};
    avr_ioctl(avr, AVR_IOCTL_IOPORT_SET_EXTERNAL(port), &external);
    avr_raise_irq(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(port), bit), level);
    return 1;
}

/* ---- scheduled levels, earliest first ---- */

static struct change {
    uint64_t cycle;
    char port;
    int bit, level;
} *changes;
static size_t change_first, change_end, change_room;

static avr_cycle_count_t apply(avr_t *mcu, avr_cycle_count_t when, void *param);

static void arm(void) {
    if (change_first == change_end) return;
    const uint64_t at = changes[change_first].cycle, now = mcu_cycle();
    avr_cycle_timer_cancel(avr, apply, NULL);
    avr_cycle_timer_register(avr, at > now ? at - now : 1, apply, NULL);
}

static avr_cycle_count_t apply(avr_t *mcu, avr_cycle_count_t when, void *param) {
    (void)mcu;
    (void)param;
    while (change_first < change_end && changes[change_first].cycle <= mcu_cycle()) {
        const struct change change = changes[change_first++];
        pin_set(change.port, change.bit, change.level);
    }
    if (change_first == change_end) return 0;
    const uint64_t at = changes[change_first].cycle, now = mcu_cycle();
    return when + (at > now ? at - now : 1);
}

void pin_schedule(uint64_t cycle, char port, int bit, int level) {
    if (change_end == change_room) {
        if (change_first > change_room / 2) {
            memmove(changes, changes + change_first, (change_end - change_first) * sizeof *changes);
            change_end -= change_first;
            change_first = 0;
        } else {
            change_room = change_room ? change_room * 2 : 256;
            changes = realloc(changes, change_room * sizeof *changes);
        }
    }
    size_t at = change_end++;
    while (at > change_first && changes[at - 1].cycle > cycle) {
        changes[at] = changes[at - 1];
        at--;
    }
    changes[at] = (struct change){cycle, port, bit, level};
    if (at == change_first) arm();
}

/* ---- turning encoders ---- */

static struct encoder {
    char port[2];
    int bit[2];
    uint32_t cycles;
    int phase, step;
} encoders[4];
static int encoder_count;

static avr_cycle_count_t turn(avr_t *mcu, avr_cycle_count_t when, void *param) {
    (void)mcu;
    struct encoder *encoder = param;
    if (!encoder->cycles) return 0;
    encoder->phase = (encoder->phase + encoder->step) & 3;
    const int a = encoder->phase == 1 || encoder->phase == 2, b = encoder->phase >= 2;
    /* If the encoder turns forward, A changes at the start of phases 1 and 3, and B at the start of phases 2 and 0. */
    const int changed = (encoder->phase & 1) == (encoder->step > 0 ? 1 : 0) ? 0 : 1;
    pin_set(encoder->port[changed], encoder->bit[changed], changed ? b : a);
    return when + encoder->cycles;
}

void encoder_turn(char port_a, int bit_a, char port_b, int bit_b, uint32_t cycles_per_edge, int forward) {
    struct encoder *encoder = NULL;
    for (int i = 0; i < encoder_count; i++) {
        if (encoders[i].port[0] == port_a && encoders[i].bit[0] == bit_a) encoder = &encoders[i];
    }
    if (!encoder) {
        if (encoder_count == 4) return;
        encoder = &encoders[encoder_count++];
        *encoder = (struct encoder){{port_a, port_b}, {bit_a, bit_b}, 0, 0, 1};
        pin_set(port_a, bit_a, 0);
        pin_set(port_b, bit_b, 0);
    }
    encoder->cycles = cycles_per_edge;
    encoder->step = forward ? 1 : -1;
    avr_cycle_timer_cancel(avr, turn, encoder);
    if (cycles_per_edge) avr_cycle_timer_register(avr, cycles_per_edge, turn, encoder);
}

/* ---- outputs ---- */

static void send_change(struct avr_irq_t *irq, uint32_t value, void *param) {
    (void)irq;
    control_send("{\"event\": \"pin\", \"cycle\": %llu, \"pin\": \"%s\", \"level\": %d}", (unsigned long long)mcu_cycle(), (char *)param,
                 (value & 0xFF) != 0);
}

int pin_watch(const char *name) {
    const int index = name[0] - 'A';
    if (index < 0 || index >= PORTS || !ports[index] || !isdigit((unsigned char)name[1]) || name[1] > '7') return 0;
    avr_irq_t *irq = avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(name[0]), name[1] - '0');
    irq->flags |= IRQ_FLAG_FILTERED; /* Report changes only. */
    avr_irq_register_notify(irq, send_change, strdup(name));
    return 1;
}

/* ---- durations of the rounds of the firmware's main loop, which writes one port once in each round ---- */

static uint64_t loop_last, loop_longest, loop_sum, loop_count;

static void passed(struct avr_irq_t *irq, uint32_t value, void *param) {
    (void)irq;
    (void)value;
    (void)param;
    const uint64_t now = mcu_cycle(), duration = now - loop_last;
    if (loop_last) {
        loop_sum += duration;
        loop_count++;
        if (duration > loop_longest) loop_longest = duration;
    }
    loop_last = now;
}

int loop_watch(char port) {
    const int index = port - 'A';
    if (index < 0 || index >= PORTS || !ports[index]) return 0;
    avr_irq_t *irq = avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(port), IOPORT_IRQ_REG_PORT);
    irq->flags &= ~IRQ_FLAG_FILTERED; /* Report every write, even of the same value. */
    avr_irq_register_notify(irq, passed, NULL);
    return 1;
}

void loop_report(void) {
    control_send("{\"event\": \"loop\", \"count\": %llu, \"mean_us\": %.1f, \"longest_us\": %.1f}", (unsigned long long)loop_count,
                 loop_count ? mcu_us(loop_sum) / loop_count : 0, mcu_us(loop_longest));
    loop_last = loop_longest = loop_sum = loop_count = 0;
}

void pins_after_reset(void) {
    for (int i = 0; i < PORTS; i++) {
        if (ports[i]) avr->data[ports[i]->r_pin] = levels[i] & driven[i];
    }
    for (int i = 0; i < encoder_count; i++) {
        if (encoders[i].cycles) avr_cycle_timer_register(avr, encoders[i].cycles, turn, &encoders[i]);
    }
    arm();
}
