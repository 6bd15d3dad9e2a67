"""Which ensemble judges which line, and how another takes its place while the worker goes on judging.

    choice -> found and verified -> same classes? -> loaded, warmed up, golden set -> in force from the next batch on
                    |                    |                        |
                    +--------------------+------------------------+--> stays out and says why; the one in force stays

All of it happens in a thread of its own. The table of duties is replaced whole, so a batch that took it is judged by it to its
end. In memory are the versions in force, their shadows, and the last one relieved, so that a roll-back takes no time.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from models.inference.ensemble import Ensemble
from models.registry import Version
from streams import metrics
from streams.errors import ModelError
from streams.model_choices import ModelChoices

log = logging.getLogger(__name__)

FILES, CLASSES, WARM_UP = "files", "classes", "warm-up"  # why a version stays out: a metric's label

Find = Callable[[str], Version]  # the verified version of that name; raises ModelError
Open = Callable[[Version], Ensemble]  # warm and checked against its golden set; raises ModelError


class Refused(ModelError):
    """A version that may not serve; `reason` is one of the few words above."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Duty:
    """Who judges a line, and who judges it silently."""

    judge: Ensemble
    shadow: Ensemble | None = None


class Serving:
    """The versions that serve the worker's lines, as the choices on Kafka want it."""

    def __init__(self, lines: Sequence[str], find: Find, open_version: Open) -> None:
        self._lines = tuple(lines)
        self._find = find
        self._open = open_version
        self._duties: Mapping[str, Duty] = {}
        self._held: dict[str, Ensemble] = {}  # the one that left service last stands last
        self._failed: dict[str, Refused] = {}  # by the choices at hand: tried once, not once a line
        self._wanted: ModelChoices | None = None
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="serving", daemon=True)

    @property
    def duties(self) -> Mapping[str, Duty]:
        """By line; a snapshot that never changes."""
        return self._duties

    @property
    def held(self) -> list[str]:
        """Names of the versions in memory."""
        return list(self._held)

    def begin(self, choices: ModelChoices) -> None:
        """Puts in force what is chosen; where that cannot serve, says so and takes what was in force before.

        Raises ModelError: when there is a line that no version can serve.
        """
        for line in self._lines:
            candidates, forced = choices.list_candidates(line), self._forced(choices, line)
            for place, name in enumerate(candidates):
                try:
                    like = None if forced else self._first_found(candidates[place + 1 :])
                    self._put_in_force({**self._duties, line: Duty(self._admit(name, like))})
                    break
                except Refused as error:
                    going_on = f"{candidates[place + 1]} is tried" if place + 1 < len(candidates) else "nothing is left to serve"
                    self._say_refused(line, name, error, going_on)
                    if place + 1 == len(candidates):
                        raise
        self._bring_shadows(choices)
        self._thread.start()

    def follow(self, choices: ModelChoices) -> None:
        """Takes note of new choices, from any thread; of several that come at once only the last counts."""
        with self._changed:
            self._wanted = choices
            self._changed.notify()

    def stop(self) -> None:
        """Begins nothing more; what is being opened is not waited for."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def take(self, within_s: float | None = None) -> ModelChoices | None:
        """The choices to follow, once there are any; None when there were none in that time, or it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted is not None or self._stopping, within_s)
            choices, self._wanted = self._wanted, None
            return None if self._stopping else choices

    def _run(self) -> None:
        while (choices := self.take()) is not None:
            self._turn_to(choices)

    def _turn_to(self, choices: ModelChoices) -> None:
        self._failed.clear()
        for line in self._lines:
            self._put_in_force({**self._duties, line: self._relieved(line, choices)})
        # Afterwards, so that no line waits for another's shadow.
        self._bring_shadows(choices)

    def _bring_shadows(self, choices: ModelChoices) -> None:
        for line in self._lines:
            self._put_in_force({**self._duties, line: self._shadowed(line, choices)})

    def _relieved(self, line: str, choices: ModelChoices) -> Duty:
        """The line's duty with the judge that is chosen; with the one in force where that cannot serve."""
        duty, name = self._duties[line], choices.find(line).version
        if name == duty.judge.version_name:
            return duty
        try:
            like = None if self._forced(choices, line) else duty.judge.version
            return Duty(self._admit(name, like), duty.shadow)
        except Refused as error:
            self._say_refused(line, name, error, f"{duty.judge.version_name} goes on")
            return duty

    def _shadowed(self, line: str, choices: ModelChoices) -> Duty:
        duty, name = self._duties[line], choices.find(line).shadow
        if name is None or name == duty.judge.version_name:
            return Duty(duty.judge)
        try:
            return Duty(duty.judge, self._admit(name, None))
        except Refused as error:
            self._say_refused(line, name, error, "there is no shadow")
            return Duty(duty.judge)

    def _admit(self, name: str, like: Version | None) -> Ensemble:
        """The version `name`, ready to serve; its classes must be those of `like`. Raises Refused."""
        started_s = time.monotonic()
        if name in self._failed:
            raise self._failed[name]
        held = self._held.get(name)
        try:
            version = held.version if held else self._find(name)
        except (ModelError, OSError) as error:
            raise self._fail(name, FILES, error) from error
        if like is not None and classes(version) != classes(like):
            raise Refused(CLASSES, f"{name}: expected the classes of {like.name}, {named(like)}; found {named(version)}")
        if held:
            return held
        self._make_room()
        try:
            ensemble = self._open(version)
        except Exception as error:  # whatever a version breaks, the one in force stays and the next can be tried
            raise self._fail(name, WARM_UP, error) from error
        took_s = time.monotonic() - started_s
        metrics.model_open_seconds.observe(took_s)
        log.info("version %s is warm on %s after %.1f s", name, ensemble.runtime.name, took_s)
        self._held[name] = ensemble
        return ensemble

    def _fail(self, name: str, reason: str, error: Exception) -> Refused:
        self._failed[name] = Refused(reason, str(error) or repr(error))
        return self._failed[name]

    def _first_found(self, names: Sequence[str]) -> Version | None:
        for name in names:
            try:
                return self._find(name)
            except (ModelError, OSError):
                continue
        return None

    def _make_room(self) -> None:
        """Lets the one go that was kept for a roll-back, before another comes into memory."""
        serving = _serving(self._duties)
        for name in [name for name in self._held if name not in serving]:
            del self._held[name]
        # Networks lie in circles of references, which Python lets stand for a long time when it is left to itself:
        # twenty switches between the smallest versions took 300 MB. Where the modules are frozen it takes milliseconds.
        gc.collect()

    def _put_in_force(self, duties: Mapping[str, Duty]) -> None:
        before, self._duties = self._duties, duties
        for line, duty in duties.items():
            was = before.get(line)
            if was is None or was.judge is not duty.judge:
                since = f", before: {was.judge.version_name}" if was else ""
                log.info("%s: version %s is in force%s", line, duty.judge.version_name, since)
            if (was.shadow if was else None) is not duty.shadow:
                log.info("%s: %s judges silently", line, duty.shadow.version_name if duty.shadow else "no version")
            _tell(line, was, duty)
        relieved = _serving(before) - _serving(duties)
        for name in relieved & self._held.keys():
            self._held[name] = self._held.pop(name)
        for name in [name for name in self._held if name not in _serving(duties)][:-1]:
            del self._held[name]

    def _say_refused(self, line: str, name: str, error: Refused, going_on: str) -> None:
        metrics.model_refused.labels(line, error.reason).inc()
        log.error("%s: version %s stays out, %s: %s", line, name, going_on, error)

    @staticmethod
    def _forced(choices: ModelChoices, line: str) -> bool:
        choice = choices.find(line).choice
        return choice is not None and choice.forced


def classes(version: Version) -> tuple[frozenset[str], str]:
    """What must be the same for two versions to take each other's place: the classes, and which of them is good."""
    manifest = version.manifest
    return frozenset(manifest.classes), manifest.classes[manifest.ok_class]


def named(version: Version) -> str:
    """The classes in words."""
    known, good = classes(version)
    return f"{', '.join(sorted(known))} with {good} as the good one"


def _serving(duties: Mapping[str, Duty]) -> set[str]:
    found = {duty.judge.version_name for duty in duties.values()}
    return found | {duty.shadow.version_name for duty in duties.values() if duty.shadow}


def _tell(line: str, was: Duty | None, duty: Duty) -> None:
    for gauge, old, new in (
        (metrics.model_info, was.judge if was else None, duty.judge),
        (metrics.model_shadow_info, was.shadow if was else None, duty.shadow),
    ):
        if old is not None and old is not new:
            gauge.remove(line, old.version_name, old.runtime.name)
        if new is not None:
            gauge.labels(line, new.version_name, new.runtime.name).set(1)
