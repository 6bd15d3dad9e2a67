/* The EEPROM: the time that a write takes, and a file that keeps the content. A new file is written and then renamed, so that the old file stays whole if the program crashes. */
#include "runner.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <simavr/avr_eeprom.h>
#include <simavr/sim_io.h>

/* The control register of the EEPROM, and two of its bits. */
#define EECR 0x3F
#define EEPE 0x02
#define EEMPE 0x04

#define BUSY_US 3300 /* The hardware needs this time to write a byte. */

static const char *path;
static uint8_t saved[4096];

/* ---- correction: the flag that a byte is being written (EEPE) ----
 * simavr clears the flag at once, so a firmware could write the whole EEPROM in no time. Here the flag stays set as long as in hardware. */
static avr_io_addr_t control;
static avr_io_write_t control_write;
static void *control_param;

static avr_cycle_count_t byte_written(avr_t *mcu, avr_cycle_count_t when, void *param) {
    (void)when;
    (void)param;
    mcu->data[control] &= ~EEPE;
    return 0;
}

static void on_control_write(avr_t *mcu, avr_io_addr_t address, uint8_t value, void *param) {
    (void)param;
    const int begins = (mcu->data[address] & EEMPE) && (value & EEPE);
    control_write(mcu, address, value, control_param);
    if (!begins) return;
    mcu->data[address] |= EEPE;
    avr_cycle_timer_register_usec(mcu, BUSY_US, byte_written, NULL);
}

void eeprom_start(void) {
    control = EECR;
    control_write = avr->io[AVR_DATA_TO_IO(control)].w.c;
    control_param = avr->io[AVR_DATA_TO_IO(control)].w.param;
    avr->io[AVR_DATA_TO_IO(control)].w.c = on_control_write;
}

/* ---- the file ---- */

void eeprom_load(const char *file) {
    path = file;
    memset(saved, 0xFF, sizeof saved);
    const int handle = open(path, O_RDONLY);
    if (handle < 0) return;
    if (read(handle, saved, sizeof saved) == (ssize_t)sizeof saved) {
        avr_eeprom_desc_t content = {.ee = saved, .offset = 0, .size = sizeof saved};
        avr_ioctl(avr, AVR_IOCTL_EEPROM_SET, &content);
    }
    close(handle);
}

void eeprom_save(void) {
    if (!path) return;
    uint8_t bytes[sizeof saved];
    avr_eeprom_desc_t content = {.ee = bytes, .offset = 0, .size = sizeof bytes};
    avr_ioctl(avr, AVR_IOCTL_EEPROM_GET, &content);
    if (!memcmp(bytes, saved, sizeof saved)) return;
    char staged[4096];
    snprintf(staged, sizeof staged, "%s.partial", path);
    const int handle = open(staged, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (handle < 0) return;
    const int whole = write(handle, bytes, sizeof bytes) == (ssize_t)sizeof bytes;
    close(handle);
    if (whole && rename(staged, path) == 0) memcpy(saved, bytes, sizeof saved);
}
