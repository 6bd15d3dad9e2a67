"""Switches model versions while the inspector goes on judging.

    choice on Kafka -> version found and verified -> same classes? -> loaded, warmed up, golden set -> current from the next batch on
                                 |                         |                      |
                                 +-------------------------+----------------------+--> rejected with a reason; the current version stays

The golden set is a set of pictures with recorded results. The loaded version must give the same results again.
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
from streams.supervision import SupervisedThread

log = logging.getLogger(__name__)

# Why a version was rejected. The words are values of the label `reason` of the metric `castline_model_refused_total`.
FILES, CLASSES, WARM_UP = "files", "classes", "warm-up"

# A function that finds the model version with the given name and verifies its files. It raises ModelError if the version is missing or
# damaged.
FindVersion = Callable[[str], Version]
# A function that loads a version, warms it up and checks it against its golden set. It raises ModelError if one of these steps fails.
OpenVersion = Callable[[Version], Ensemble]


class VersionRejectedError(ModelError):
    """Raised for a version that must not judge a line. `reason` names the check that failed: FILES, CLASSES or WARM_UP."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ModelAssignment:
    """The networks that judge a line, and the networks of a second version that judges on trial, or None. Trial verdicts move no gate."""

    ensemble: Ensemble
    shadow: Ensemble | None = None


class ModelSwitcher:
    """Assigns a model version to each line, as the model choices on Kafka say, and loads and unloads versions as needed."""

    def __init__(self, lines: Sequence[str], find_version: FindVersion, open_version: OpenVersion) -> None:
        self._lines = tuple(lines)
        self._find_version = find_version
        self._open_version = open_version
        self._assignments: Mapping[str, ModelAssignment] = {}
        # The loaded ensembles by version name. The version that was replaced last is at the end and is kept for a roll-back.
        self._loaded: dict[str, Ensemble] = {}
        # Versions that could not be opened, with the errors. None of them is tried again before new choices arrive.
        self._rejected: dict[str, VersionRejectedError] = {}
        self._next_choices: ModelChoices | None = None
        self._is_stopping = False
        self._changed = threading.Condition()
        self._thread = SupervisedThread("model switcher", self._run)

    @property
    def assignments(self) -> Mapping[str, ModelAssignment]:
        """Maps each line to the versions that judge it. A returned mapping never changes, because each switch makes a new mapping."""
        return self._assignments

    @property
    def loaded_versions(self) -> list[str]:
        """The names of the versions in memory."""
        return list(self._loaded)

    def start(self, choices: ModelChoices) -> None:
        """Assigns the chosen version to each line, or an earlier version if the chosen one is rejected. Then starts the thread.

        Raises ModelError if no version can judge one of the lines.
        """
        for line in self._lines:
            self._assign_first(line, choices)
        self._assign_shadows(choices)
        self._thread.start()

    def follow(self, choices: ModelChoices) -> None:
        """Makes the switcher's thread put `choices` into effect. Any thread can call this method.

        If newer choices arrive before the thread has started with `choices`, the thread uses only the newer choices.
        """
        with self._changed:
            self._next_choices = choices
            self._changed.notify()

    def stop(self) -> None:
        """Asks the thread to end when it has finished with its current choices. Does not wait until it has ended."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def wait_for_choices(self, timeout_s: float | None = None) -> ModelChoices | None:
        """Waits until `follow` gets new choices, and returns the newest. Returns None if `timeout_s` has passed or `stop` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._next_choices is not None or self._is_stopping, timeout_s)
            choices, self._next_choices = self._next_choices, None
            return None if self._is_stopping else choices

    def _run(self) -> None:
        while (choices := self.wait_for_choices()) is not None:
            try:
                self._put_choices_in_force(choices)
            except BaseException:
                # After an unexpected error, the thread ends and is started again. The new thread tries the same choices again, unless newer
                # choices have arrived.
                with self._changed:
                    self._next_choices = self._next_choices or choices
                raise

    def _put_choices_in_force(self, choices: ModelChoices) -> None:
        self._rejected.clear()
        for line in self._lines:
            self._put_in_force({**self._assignments, line: self._switch(line, choices)})
        # Shadow versions are opened last, so that no line waits for its new version while a shadow version is loaded.
        self._assign_shadows(choices)

    def _assign_first(self, line: str, choices: ModelChoices) -> None:
        """Assigns to `line` its chosen version. If this version fails the checks, assigns an earlier version of the line or the default.

        Raises VersionRejectedError if all these versions fail.
        """
        candidates = choices.list_candidates(line)
        for index, name in enumerate(candidates):
            remaining = candidates[index + 1 :]
            try:
                like = None if _is_forced(choices, line) else self._find_first(remaining)
                self._put_in_force({**self._assignments, line: ModelAssignment(self._admit(name, like))})
                return
            except VersionRejectedError as error:
                consequence = f"version {remaining[0]} is tried next" if remaining else "no version is left for this line"
                self._report_rejected(line, name, error, consequence)
                if not remaining:
                    raise

    def _assign_shadows(self, choices: ModelChoices) -> None:
        for line in self._lines:
            self._put_in_force({**self._assignments, line: self._switch_shadow(line, choices)})

    def _switch(self, line: str, choices: ModelChoices) -> ModelAssignment:
        """Returns the assignment of `line` with the chosen version, or the current assignment if the chosen version is rejected."""
        current, name = self._assignments[line], choices.find(line).version
        if name == current.ensemble.version_name:
            return current
        try:
            like = None if _is_forced(choices, line) else current.ensemble.version
            return ModelAssignment(self._admit(name, like), current.shadow)
        except VersionRejectedError as error:
            self._report_rejected(line, name, error, f"version {current.ensemble.version_name} goes on judging")
            return current

    def _switch_shadow(self, line: str, choices: ModelChoices) -> ModelAssignment:
        """Returns the assignment of `line` with the shadow version that `choices` names. The judging version does not change.

        If the switcher rejects the named shadow version, the line has no shadow version.
        """
        current, name = self._assignments[line], choices.find(line).shadow
        if name is None or name == current.ensemble.version_name:
            return ModelAssignment(current.ensemble)
        try:
            return ModelAssignment(current.ensemble, self._admit(name, None))
        except VersionRejectedError as error:
            self._report_rejected(line, name, error, "the line has no shadow version")
            return ModelAssignment(current.ensemble)

    def _admit(self, name: str, like: Version | None) -> Ensemble:
        """Returns the ensemble of version `name`, ready to judge. Loads the version if it is not in memory.

        Raises VersionRejectedError if the version cannot be opened. If `like` is given, also raises this error if the two versions have
        different classes.
        """
        start_s = time.monotonic()
        if name in self._rejected:
            raise self._rejected[name]
        loaded = self._loaded.get(name)
        try:
            version = loaded.version if loaded else self._find_version(name)
        except (ModelError, OSError) as error:
            raise self._reject(name, FILES, error) from error
        if like is not None and not version.manifest.has_same_classes(like.manifest):
            raise VersionRejectedError(
                CLASSES,
                f"Version {name} has the classes {version.manifest.describe_classes()}, but version {like.name} has the classes "
                f"{like.manifest.describe_classes()}.",
            )
        if loaded:
            return loaded
        self._unload_spare()
        try:
            ensemble = self._open_version(version)
        except Exception as error:
            # Opening a bad model version can raise any error. No such error may stop the inspector.
            raise self._reject(name, WARM_UP, error) from error
        opened_s = time.monotonic() - start_s
        metrics.model_open_seconds.observe(opened_s)
        log.info("Version %s was opened with the runtime %s in %.1f s.", name, ensemble.runtime.name, opened_s)
        self._loaded[name] = ensemble
        return ensemble

    def _reject(self, name: str, reason: str, error: Exception) -> VersionRejectedError:
        self._rejected[name] = VersionRejectedError(reason, str(error) or repr(error))
        return self._rejected[name]

    def _find_first(self, names: Sequence[str]) -> Version | None:
        for name in names:
            try:
                return self._find_version(name)
            except (ModelError, OSError):
                continue
        return None

    def _unload_spare(self) -> None:
        """Unloads the version that was kept for a roll-back, to free memory before another version is loaded."""
        assigned = _assigned_names(self._assignments)
        for name in [name for name in self._loaded if name not in assigned]:
            del self._loaded[name]
        # Networks contain reference cycles, so only the garbage collector frees their memory. Python starts the garbage collector so
        # rarely that after twenty switches, 300 MB of unused networks were still in memory.
        gc.collect()

    def _put_in_force(self, assignments: Mapping[str, ModelAssignment]) -> None:
        before, self._assignments = self._assignments, assignments
        for line, assignment in assignments.items():
            _report_assignment(line, before.get(line), assignment)
        replaced = _assigned_names(before) - _assigned_names(assignments)
        for name in replaced & self._loaded.keys():
            self._loaded[name] = self._loaded.pop(name)
        for name in [name for name in self._loaded if name not in _assigned_names(assignments)][:-1]:
            del self._loaded[name]

    def _report_rejected(self, line: str, name: str, error: VersionRejectedError, consequence: str) -> None:
        metrics.model_refused.labels(line, error.reason).inc()
        log.error("Version %s is rejected for %s. Consequence: %s. Reason: %s", name, line, consequence, error)


def _is_forced(choices: ModelChoices, line: str) -> bool:
    choice = choices.find(line).choice
    return choice is not None and choice.forced


def _assigned_names(assignments: Mapping[str, ModelAssignment]) -> set[str]:
    names = {assignment.ensemble.version_name for assignment in assignments.values()}
    return names | {assignment.shadow.version_name for assignment in assignments.values() if assignment.shadow}


def _report_assignment(line: str, previous: ModelAssignment | None, current: ModelAssignment) -> None:
    """Logs a change of the versions of `line`, and sets the metrics that name its versions."""
    if previous is None or previous.ensemble is not current.ensemble:
        before = previous.ensemble.version_name if previous else "none"
        log.info("The version that judges %s is now %s. Before, it was %s.", line, current.ensemble.version_name, before)
    if (previous.shadow if previous else None) is not current.shadow:
        log.info("The shadow version of %s is now %s.", line, current.shadow.version_name if current.shadow else "none")
    for gauge, old, new in (
        (metrics.model_info, previous.ensemble if previous else None, current.ensemble),
        (metrics.model_shadow_info, previous.shadow if previous else None, current.shadow),
    ):
        if old is not None and old is not new:
            gauge.remove(line, old.version_name, old.runtime.name)
        if new is not None:
            gauge.labels(line, new.version_name, new.runtime.name).set(1)
