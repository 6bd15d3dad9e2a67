/* Keeps the EEPROM in a file. A new file is written and then renamed, so that the old file stays whole if the program crashes. */
#include "runner.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <simavr/avr_eeprom.h>
#include <simavr/sim_io.h>

static const char *path;
static uint8_t saved[4096];

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
