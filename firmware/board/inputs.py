"""On-off inputs of a simulated board that ignore short pulses, and the speed of a belt without an encoder."""

from __future__ import annotations


class Contact:
    """An on-off input, such as the emergency stop, that ignores short pulses.

    After a change of the level, the class adds up the time at the new level and subtracts the time at the old level. `is_on` changes when
    the sum reaches `hold_us`. For example, with a `hold_us` of 10 ms, 14 ms at the new level and 4 ms at the old level are enough, because
    14 - 4 is 10.

    If `restarts` is True, the new level must last for `hold_us` without interruption. Each pulse of the old level sets the sum back to 0.
    """

    def __init__(self, restarts: bool = False) -> None:
        self.is_on = False
        self._restarts = restarts
        self._level = False
        self._ticked_us = 0
        # The time at level "on" minus the time at level "off", in microseconds. The value always stays between 0 and `hold_us`.
        self._sum_us = 0

    def assume_on(self, hold_us: int) -> None:
        """Treats the input as on until its level has been off for `hold_us`.

        So if a button is already pressed when the board starts, this press does not count. A person must release the button first.
        """
        self.is_on, self._sum_us = True, hold_us

    @property
    def level(self) -> bool:
        """The last level of the input, even if this level was only a short pulse."""
        return self._level

    def invert(self, hold_us: int) -> None:
        """Exchanges on and off. Called when the setting `eye_light_on` changes, because this setting reverses the meaning of the levels."""
        self.is_on, self._level, self._sum_us = not self.is_on, not self._level, max(0, hold_us - self._sum_us)

    def change(self, level: bool, at_us: int, hold_us: int) -> None:
        """Stores a new level of the input."""
        self.advance(at_us, hold_us)
        self._level = level
        if self._restarts and level == self.is_on:
            self._sum_us = hold_us if level else 0

    def advance(self, now_us: int, hold_us: int) -> bool:
        """Moves the time forward to `now_us`. Returns whether `is_on` has changed."""
        passed_us = max(0, now_us - self._ticked_us)
        self._ticked_us += passed_us
        if not (self._level or self.is_on or self._sum_us) and hold_us:
            return False  # This return saves time, because the simulation checks each input every millisecond, and most inputs are off.
        self._sum_us = min(hold_us, self._sum_us + passed_us) if self._level else max(0, self._sum_us - passed_us)
        if self._sum_us != (0 if self.is_on else hold_us):
            return False
        self.is_on = not self.is_on
        return True


# A push-button counts if it is pressed for at least MIN_PRESS_US and released within MAX_PRESS_US.
MIN_PRESS_US, MAX_PRESS_US = 50_000, 3_000_000


class Button:
    """A push-button. Only a short press counts, so a button that is stuck or held by a tool does nothing."""

    def __init__(self) -> None:
        self._contact = Contact(restarts=True)
        self._since_us = 0
        self.forget_press()

    def forget_press(self) -> None:
        """Ignores the button until a person has released it."""
        self._contact.assume_on(MIN_PRESS_US)
        self._counts = False

    @property
    def is_pressed(self) -> bool:
        """True if the button is pressed now."""
        return self._contact.is_on

    def change(self, pressed: bool, at_us: int) -> None:
        """Stores a new level of the input."""
        self._contact.change(pressed, at_us, MIN_PRESS_US)

    def advance(self, now_us: int) -> bool:
        """Moves the time forward to `now_us`. Returns True when a short press has ended."""
        has_changed = self._contact.advance(now_us, MIN_PRESS_US)
        if has_changed and self.is_pressed:
            self._counts, self._since_us = True, now_us
        if self.is_pressed and now_us - self._since_us >= MAX_PRESS_US:
            self._counts = False
        return has_changed and not self.is_pressed and self._counts


class Drive:
    """The speed of a belt without an encoder. It is computed from the times at which the belt was switched on and off.

    `speed` is 0 while the belt stands still, and 1 at full speed.
    """

    def __init__(self) -> None:
        self.speed = 0.0

    def advance(self, runs: bool, passed_us: int, ramp_us: int) -> float:
        """Moves the time forward by `passed_us`. Returns how far the belt has moved, as microseconds of travel at full speed.

        For example, the belt moves as far in 1000 us at half speed as in 500 us at full speed, so in both cases the result is 500.
        `ramp_us` is the time in which the belt speeds up to full speed, or slows down to a standstill.
        """
        target, before = float(runs), self.speed
        changing_us = min(passed_us, abs(target - before) * ramp_us)
        self.speed = target if changing_us < passed_us or not ramp_us else before + (changing_us if runs else -changing_us) / ramp_us
        return changing_us * (before + self.speed) / 2 + (passed_us - changing_us) * target
