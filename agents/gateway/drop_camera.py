"""The camera of kind `drop`: watches a folder to which an industrial camera writes files.

When a file is complete and has not changed for `settle_s` seconds, its picture goes to the intake, which checks and stores pictures. Then
the file is moved to `sent` or `refused`.

- A file that is still incomplete `end_wait_s` seconds after its last change is given to the intake as it is.
- A file that cannot be read or moved is tried again later.
- A link, or a file that is not a picture, stays where it is.
- An overwritten picture is kept in memory until the intake gets it.
- Hidden files and unfinished transfers (.part, .tmp) are ignored.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event

from agents.gateway.capture_time import read_file_time
from agents.gateway.drop_folder import REFUSED, SENT, DropFolder, FileState, FolderListing, make_printable, sort_naturally
from agents.gateway.intake import TOO_LARGE, CameraFrame, PictureRefusedError
from agents.gateway.picture_end import PictureEnd, find_picture_end
from agents.gateway.spool import PictureReceipt
from streams import metrics
from streams.backoff import Backoff
from streams.complaints import Complaints
from streams.errors import SpoolFullError
from streams.identity import UNKNOWN_CONTENT_TYPE, sniff_content_type
from streams.picture_files import JUDGED_SUFFIXES, OTHER_PICTURE_SUFFIXES
from streams.settings import CameraSettings

log = logging.getLogger(__name__)

_TRANSFER_SUFFIXES = (".part", ".partial", ".tmp", ".filepart", ".crdownload")
# A file with one of these suffixes counts as a picture, even if it is damaged. The part of a damaged picture gets the label `review`.
_PICTURE_SUFFIXES = JUDGED_SUFFIXES + OTHER_PICTURE_SUFFIXES
# A file with one of these suffixes is never a picture. Cameras write such files beside their pictures.
_SIDECAR_SUFFIXES = (".xml", ".txt", ".csv", ".json", ".log", ".ini", ".db", ".md5", ".sha256", ".htm", ".html", ".pdf", ".svg", ".yaml")
_MAX_POLL_S = 0.1
# After each listing of the folder, DropCamera makes a pause, so that it does not overload a slow network folder. The pause is this many
# times as long as the listing was.
_PAUSE_FACTOR = 2.0
_FULL_SPOOL_PAUSE_S = 1.0
# An empty file is usually an upload that has just begun. So DropCamera waits ten times `settle_s` before it handles the
# file.
_EMPTY_FILE_FACTOR = 10
# If a file could not be read or moved after this many attempts, a complaint names the file. Further attempts follow.
_TRIES = 3
_FIRST_RETRY_S = 0.25
_LONGEST_RETRY_S = 60.0
_LONGEST_FOLDER_RETRY_S = 5.0
# If the listing of the folder takes longer than this many seconds, the folder counts as out of reach.
_SLOW_LISTING_S = 10.0
# The gateway sees a new file only when it lists the folder. If more than this many seconds lie between two listings, the time of arrival
# of a new file counts as unknown.
_MAX_LOOK_GAP_S = 1.0
# If a file keeps changing for longer than this many seconds, a complaint names it.
_RESTLESS_S = 15.0
# A program on another machine may still write to a file that was moved. So the gateway checks for this many seconds whether the moved file
# changes.
_WATCH_MOVED_S = 15.0
_MAX_WATCHED = 2000
_CLEANING_INTERVAL_S = 30.0
# Some cameras write another file, such as XML, beside every picture. The log names at most this many of these files.
_MAX_NAMED_SIDECARS = 1_000
# The texts of complaints about links, folders and other entries that the camera does not read. The keys are values of the metric label
# `reason`.
_UNREAD_TEXTS = {
    "link": "links are not followed; let the camera write files in place of links",
    "special": "entries are neither files nor folders; remove them",
    "too-deep": "folders lie too deep and are not read; let the camera use at most 4 levels",
    "not-readable": "entries cannot be read; give the gateway the permission to read them",
}
_SECONDS_A_DAY = 86_400.0


@dataclass(eq=False)
class _FileVersion:
    """One version of a file. Each change of the file makes a new version.

    - `since_s`: when this version was first seen (monotonic time).
    - `name_seen_s`: when a file of this name was first seen.
    - `content`: the bytes of a complete picture. None after the gateway has stored the picture.
    - `previous`: the version before this one, if it was a complete picture that the camera has perhaps overwritten. Otherwise None.
    - `destination`: the folder to which the gateway moves the file, and the reason if the gateway refused the picture. None before the
      gateway has decided.
    - `is_arrival_known`: False if the file came during a long pause between two listings.
    """

    path: str
    state: FileState
    since_s: float
    name_seen_s: float
    content: bytes | None = None
    end: PictureEnd | None = None
    previous: _FileVersion | None = None
    is_offered: bool = False
    destination: tuple[str, str] | None = None
    key: str = ""
    is_ignored: bool = False
    backoff: Backoff = field(default_factory=lambda: Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S))
    retry_at_s: float = 0.0
    problem: str = ""
    is_arrival_known: bool = True

    @property
    def is_whole(self) -> bool:
        return self.content is not None and self.end is PictureEnd.FOUND

    @property
    def is_put_aside(self) -> bool:
        return self.backoff.failures >= _TRIES

    def is_continued_by(self, later: _FileVersion, content: bytes) -> bool:
        """Returns True if the camera has only added bytes to this version of the file.

        `later` is a newer version of the same file. `content` holds the bytes of the newer version.
        """
        return self.state.inode == later.state.inode and self.content is not None and content.startswith(self.content)


def _count_bytes(versions: Iterable[_FileVersion]) -> int:
    return sum(len(version.content or b"") for version in versions)


class DropCamera:
    """Yields the picture in each file of a folder. If a file is overwritten, its new picture is yielded too.

    After a crash, the picture in a file can be yielded a second time. The spool recognises the picture by its idempotency key.
    """

    def __init__(
        self,
        line: str,
        settings: CameraSettings,
        max_bytes: int,
        forget_key: Callable[[str], None],
        folder: DropFolder | None = None,
        buffer_bytes: int = 2**25,
    ) -> None:
        """Creates the camera of `line`.

        - `forget_key`: deletes an idempotency key from the spool.
        - `folder`: if given, it is used in place of the folder at `settings.path`.
        - `buffer_bytes`: the largest total size of the pictures that are read in advance. For pictures whose files were overwritten, there
          is a second limit of the same size.
        """
        assert settings.path is not None  # The path is never None, because CameraSettings requires a path for this kind of camera.
        self._line = line
        self._settings = settings
        self._folder = folder or DropFolder(settings.path)
        self._max_bytes = max_bytes
        self._buffer_bytes = buffer_bytes
        self._forget_key = forget_key
        self._files: dict[str, _FileVersion] = {}
        # Complete pictures that exist only in memory, because their files were overwritten. They wait for the intake.
        self._overwritten: deque[_FileVersion] = deque()
        # Files that must now be given to the intake or be moved. The file at the end of the list is handled first.
        self._due: list[_FileVersion] = []
        # The moved files that the gateway still checks for changes. Each entry has the path, the state when the file was read (inode,
        # size and time of change), and the end of the check.
        self._moved: deque[tuple[str, FileState, float]] = deque(maxlen=_MAX_WATCHED)
        # Paths of files that the gateway does not read and has already counted as ignored.
        self._mentioned: set[str] = set()
        # The number of files beside pictures, such as .xml files, whose names were written to the log.
        self._named_sidecars = 0
        # Protects `_moved`, because two threads change it: the thread of the camera, and the thread that calls `_finish`.
        self._lock = threading.Lock()
        self._paused_until_s = 0.0
        self._looked_at_s = float("-inf")
        self._clean_at_s = 0.0
        self._complaints = Complaints()
        self._outage = ""
        # The monotonic time at which the present listing of the folder began, or None if the folder is not being listed.
        self._listing_since_s: float | None = None
        self._folder_backoff = Backoff(_FIRST_RETRY_S, _LONGEST_FOLDER_RETRY_S)
        # If the folder cannot be made, `_scan` reports the problem later.
        with suppress(OSError):
            settings.path.mkdir(parents=True, exist_ok=True)

    def find_outage(self) -> str:
        began_s = self._listing_since_s
        if began_s is not None and (waited_s := time.monotonic() - began_s) > _SLOW_LISTING_S:
            path = self._settings.path
            return f"the folder {path} of {self._line} has not answered for {waited_s:.0f} s; check the network and the server of the share"
        return self._outage

    def list_complaints(self) -> list[str]:
        # While the folder does not answer, `_scan` hangs and reports nothing. So this method reports the outage.
        outage = self.find_outage()
        return [*([outage] if outage else []), *self._complaints.list_texts()]

    def frames(self, stopping: Event) -> Iterator[CameraFrame]:
        poll_s = min(_MAX_POLL_S, self._settings.settle_s / 4)
        wait_s = poll_s
        # After an error, the gateway calls this method again. Pictures that were yielded before the error are yielded again if the intake
        # has not answered.
        for known in self._files.values():
            known.is_offered = False
        while not stopping.wait(wait_s):
            started_s = time.monotonic()
            if (listing := self._scan()) is None:
                wait_s = self._folder_backoff.failed()
                continue
            self._update(listing, started_s)
            wait_s = max(poll_s, _PAUSE_FACTOR * (time.monotonic() - started_s))
            while (version := self._find_next()) is not None and not stopping.is_set():
                if (frame := self._try_offer(version)) is not None:
                    yield frame
            self._check_moved(time.monotonic())
            self._clean(time.monotonic())
            self._update_complaints(time.monotonic())

    def _scan(self) -> FolderListing | None:
        """Lists the folder. If that fails, for example because a network folder is not mounted, reports an outage and returns None."""
        self._listing_since_s = time.monotonic()
        try:
            listing = self._folder.scan()
        except OSError as error:
            text = f"the folder {self._settings.path} of {self._line} cannot be read: {error.strerror}"
            if not self._folder_backoff.failures:
                metrics.camera_failures.labels(self._line).inc()
                log.error("%s.", text)
            self._outage = f"{text}; mount the share, or correct lines.camera.path"
            return None
        finally:
            self._listing_since_s = None
        self._folder_backoff.succeeded()
        self._outage = ""
        return listing

    def _update(self, listing: FolderListing, now_s: float) -> None:
        """Compares a new listing of the folder with the last one.

        Makes a `_FileVersion` for each new or changed file, and updates the list of files to handle.
        """
        known, self._files = self._files, {}
        for path, state in listing.files.items():
            if path.lower().endswith(_TRANSFER_SUFFIXES):
                continue
            before = known.pop(path, None)
            if before is None:
                self._files[path] = _FileVersion(path, state, now_s, now_s, is_arrival_known=now_s - self._looked_at_s <= _MAX_LOOK_GAP_S)
            elif before.state == state:
                self._files[path] = before
            else:
                self._files[path] = _FileVersion(path, state, now_s, before.name_seen_s, previous=self._keep_overwritten(before, state))
        self._looked_at_s = now_s
        # `_mentioned` holds the paths that are already counted as ignored. Paths that are no longer in the folder are removed here, so that
        # the set does not grow without limit.
        self._mentioned &= listing.files.keys() | {path for paths in listing.unread.values() for path in paths}
        for gone in known.values():
            if gone.previous:
                self._add_overwritten(gone.previous)
        for reason, text in _UNREAD_TEXTS.items():
            self._mention_unread(reason, text, listing.unread.get(reason, []))
        self._read_settled(now_s)
        self._due = sorted(
            (version for version in self._files.values() if self._is_due(version, now_s)),
            key=lambda version: (version.state.changed_ns, sort_naturally(version.path)),
            reverse=True,
        )

    def _keep_overwritten(self, before: _FileVersion, state: FileState) -> _FileVersion | None:
        """Keeps the old picture of a file that has changed, so that the picture is not lost.

        `before` is the old version of the file. `state` holds the present inode and size of the file.

        - If the file was replaced or has become smaller, keeps the old picture in memory and returns None.
        - If the file has grown, returns the old version. The camera has perhaps only added bytes to the old picture, so the caller later
          compares the old version with the complete file.
        """
        if before.is_offered or before.destination or before.is_ignored:
            return None
        if not before.is_whole:
            # A new inode means that another file has replaced the old file. If the old file was not read before, its picture is lost.
            if before.end is None and before.state.size and state.inode != before.state.inode:
                self._count_lost(before.path)
            return before.previous
        if before.previous:
            self._add_overwritten(before.previous)
            before.previous = None
        if state.inode == before.state.inode and state.size >= before.state.size:
            return before
        self._add_overwritten(before)
        return None

    def _add_overwritten(self, version: _FileVersion) -> None:
        if _count_bytes(self._overwritten) + len(version.content or b"") <= self._buffer_bytes:
            self._overwritten.append(version)
        else:
            self._count_lost(version.path)

    def _count_lost(self, path: str) -> None:
        metrics.pictures_lost.labels(self._line, "overwritten").inc()
        name = make_printable(path)
        log.error("The file %s of %s was overwritten before the gateway had read it. Its picture is lost.", name, self._line)
        self._complaints.add_event(
            "lost",
            f"{name} was overwritten before the gateway had read it, so a picture of {self._line} is lost; "
            "let the camera give each file a new name",
        )

    def _read_settled(self, now_s: float) -> None:
        """Reads the files that have not changed since the last listing, and finds out whether their pictures are complete."""
        previous = [version.previous for version in self._files.values() if version.previous]
        waiting_bytes = _count_bytes(self._files.values()) + _count_bytes(previous)
        for version in sorted(self._files.values(), key=lambda version: version.state.changed_ns):
            # While the buffer is full, no more files are read. Reading goes on when the intake has taken pictures out of the buffer.
            if waiting_bytes and waiting_bytes + min(version.state.size, self._max_bytes) > self._buffer_bytes:
                return
            if version.end is None and version.since_s < now_s and version.retry_at_s <= now_s:
                self._attempt(version, "not-readable", self._read_first)
                waiting_bytes += len(version.content or b"")

    def _read_first(self, version: _FileVersion) -> None:
        """Reads a new or changed file, and finds out whether it is a complete picture.

        If the file has replaced an older picture under the same name, saves the older picture.
        """
        is_picture_name = version.path.lower().endswith(_PICTURE_SUFFIXES)
        if not version.state.size or version.path.lower().endswith(_SIDECAR_SUFFIXES):
            version.end, version.is_ignored = PictureEnd.UNKNOWN, not is_picture_name
        else:
            content = self._read(version)
            if content is None:
                return
            version.end = find_picture_end(content) if version.state.size <= self._max_bytes else PictureEnd.UNKNOWN
            version.is_ignored = sniff_content_type(content) == UNKNOWN_CONTENT_TYPE and not is_picture_name
            if version.previous and not version.previous.is_continued_by(version, content):
                self._add_overwritten(version.previous)
            version.previous = None
            version.content = content if version.end is PictureEnd.FOUND and not version.is_ignored else None
        if version.is_ignored and version.state.size:
            self._mention_once(version.path, "no-picture")

    def _read(self, version: _FileVersion) -> bytes | None:
        """Returns the content of a file, or None if the file has changed since it was listed. The next listing finds the new version."""
        found = self._folder.read(version.path, self._max_bytes + 1)
        return found[0] if found and found[1] == version.state else None

    def _is_due(self, version: _FileVersion, now_s: float) -> bool:
        if version.is_offered or version.is_ignored or version.retry_at_s > now_s:
            return False
        if version.destination or version.end is None:
            return version.destination is not None
        quiet_s, settle_s = now_s - version.since_s, self._settings.settle_s
        if not version.state.size:
            return quiet_s >= settle_s * _EMPTY_FILE_FACTOR
        is_over = version.end is PictureEnd.FOUND or version.state.size > self._max_bytes
        return quiet_s >= (settle_s if is_over else max(settle_s, self._settings.end_wait_s))

    def _find_next(self) -> _FileVersion | None:
        """Returns the next file to handle, as a `_FileVersion`. Returns None if no file is due, or if the spool is full.

        Pictures whose files were overwritten come first, because they exist only in memory. Then come the files, the oldest first. If two
        files have the same time, `2.jpg` comes before `10.jpg`.
        """
        if time.monotonic() < self._paused_until_s:
            return None
        if self._overwritten:
            return self._overwritten.popleft()
        return self._due.pop() if self._due else None

    def _try_offer(self, version: _FileVersion) -> CameraFrame | None:
        frames: list[CameraFrame] = []
        if version.destination:
            self._attempt(version, "not-movable", self._move)
        else:
            self._attempt(version, "not-readable", lambda found: frames.extend(self._make_frame(found)))
        return frames[0] if frames else None

    def _make_frame(self, version: _FileVersion) -> list[CameraFrame]:
        """Reads a file and returns a list with its picture. The list is empty if the file is still being written or is too large."""
        is_current = self._files.get(version.path) is version
        if is_current and self._folder.is_open_for_writing(version.path):
            version.since_s = time.monotonic()
            return []
        if version.state.size > self._max_bytes:
            self._refuse_too_large(version)
            return []
        value = version.content if version.content is not None else self._read(version)
        if value is None:
            return []
        if is_current:
            self._mention_missing_end(version)
        version.key = f"file:{make_printable(version.path)}:{version.state.changed_ns}:{hashlib.sha256(value).hexdigest()}"
        waited_s = time.monotonic() - version.since_s if version.is_arrival_known else None
        frame = CameraFrame(value, read_file_time(version.state.changed_ns / 1e9), idempotency_key=version.key, waited_s=waited_s)
        version.is_offered, version.content = True, None
        frame.receipt.add_done_callback(partial(self._finish, version, frame))
        return [frame]

    def _refuse_too_large(self, version: _FileVersion) -> None:
        reason = f"expected at most {self._max_bytes} bytes, received {version.state.size}"
        metrics.pictures_received.labels(self._line).inc()
        metrics.pictures_refused.labels(self._line, TOO_LARGE).inc()
        log.warning("The file %s of %s is refused: %s", make_printable(version.path), self._line, reason)
        version.destination = REFUSED, reason
        self._attempt(version, "not-movable", self._move)

    def _mention_missing_end(self, version: _FileVersion) -> None:
        if version.end is PictureEnd.FOUND or not version.state.size:
            return
        name = make_printable(version.path)
        metrics.files_incomplete.labels(self._line).inc()
        text = f"{name} is still incomplete {self._settings.end_wait_s:g} s after its last change and is taken as it is"
        log.warning("%s.", text)
        self._complaints.add_event("incomplete", f"{text}; look for a transfer that breaks off, and let the camera use FTP in binary mode")

    def _finish(self, version: _FileVersion, frame: CameraFrame, receipt: Future[PictureReceipt]) -> None:
        """Moves a file to `sent` or `refused`, depending on the intake's answer. If the spool is full, the file stays and is read again."""
        error = receipt.exception()
        is_current = self._files.get(version.path) is version
        if error is None:
            version.destination = SENT, ""
            self._attempt(version, "not-movable", self._move)
        elif isinstance(error, PictureRefusedError):
            version.destination = REFUSED, str(error)
            self._attempt(version, "not-movable", self._move)
        elif isinstance(error, SpoolFullError):
            self._paused_until_s = time.monotonic() + _FULL_SPOOL_PAUSE_S
        else:
            self._fail(version, "internal", error)
        if version.destination is None and not is_current and not version.is_put_aside:
            version.content = frame.value  # The file now holds a newer picture, so the older picture is kept in memory.
            self._add_overwritten(version)
        version.is_offered = False

    def _move(self, version: _FileVersion) -> None:
        """Moves a file to its destination. A file that has changed stays where it is, because it now holds another picture."""
        assert version.destination is not None
        folder, reason = version.destination
        if self._folder.find_state(version.path) == version.state:
            moved = self._folder.move(version.path, folder, reason)
            with self._lock:
                self._moved.append((moved, version.state, time.monotonic() + _WATCH_MOVED_S))
        # A file in the folder `sent` is not read again, so the spool no longer needs the file's idempotency key.
        if folder == SENT:
            self._forget_key(version.key)

    def _attempt(self, version: _FileVersion, reason: str, act: Callable[[_FileVersion], object]) -> None:
        """Calls `act(version)`. If `act` fails, logs the error and plans another try, so that one bad file does not stop the others."""
        try:
            act(version)
        except FileNotFoundError as error:
            # This error has two possible causes. If the file itself is gone, nothing is left to do. If the file still exists, its
            # destination folder is missing, and the move has failed.
            if self._is_there(version):
                self._fail(version, reason, error)
        except Exception as error:  # noqa: BLE001  One file must not stop the others. The failure is counted and shown.
            self._fail(version, reason if isinstance(error, OSError) else "internal", error)
        else:
            version.problem = ""
            if not version.is_offered:
                version.backoff.succeeded()

    def _is_there(self, version: _FileVersion) -> bool:
        try:
            return self._folder.find_state(version.path) is not None
        except OSError:
            return True

    def _fail(self, version: _FileVersion, reason: str, error: BaseException) -> None:
        wait_s = version.backoff.failed()
        version.retry_at_s = time.monotonic() + wait_s
        version.problem = f"{reason}: {getattr(error, 'strerror', None) or error}"
        name = make_printable(version.path)
        log.warning(
            "The file %s of %s could not be processed: %s. The next attempt follows in %.1f s.", name, self._line, version.problem, wait_s
        )
        if version.backoff.failures == _TRIES:
            metrics.files_put_aside.labels(self._line, reason).inc()

    def _check_moved(self, now_s: float) -> None:
        """Checks the files that were moved to `sent` or `refused`.

        A file that has changed since it was read is moved back and read again.
        """
        with self._lock:
            watched, self._moved = self._moved, deque(maxlen=_MAX_WATCHED)
        kept = []
        for path, state, until_s in watched:
            try:
                found = self._folder.find_state(path)
                if found is not None and found != state:
                    self._take_again(path)
                elif found is not None and now_s < until_s:
                    kept.append((path, state, until_s))
            except OSError as error:
                log.warning(
                    "The gateway cannot check whether the moved file %s of %s has changed: %s", make_printable(path), self._line, error
                )
        with self._lock:
            self._moved.extendleft(reversed(kept))

    def _take_again(self, path: str) -> None:
        self._folder.move_back(path)
        metrics.files_changed_after_move.labels(self._line).inc()
        name = make_printable(path)
        log.warning("The file %s of %s changed after it was read, so it is read again.", name, self._line)
        self._complaints.add_event(
            "changed",
            f"{name} changed after the gateway had read it, so it is read again; set lines.camera.settle_s to more than the "
            "longest pause of the program that writes the file",
        )

    def _clean(self, now_s: float) -> None:
        """Deletes old files in `sent` and `refused`. A failure only adds a complaint, because no picture is affected."""
        if now_s < self._clean_at_s:
            return
        self._clean_at_s = now_s + _CLEANING_INTERVAL_S
        settings, text = self._settings, ""
        for folder, days, max_bytes in (
            (SENT, settings.sent_keep_days, settings.sent_max_bytes),
            (REFUSED, settings.refused_keep_days, settings.refused_max_bytes),
        ):
            try:
                self._folder.delete_old(folder, days * _SECONDS_A_DAY, max_bytes)
            except OSError as error:
                text = f"the folder {folder} of {self._line} cannot be made or cleaned: {error.strerror}; let the gateway write to it"
        self._complaints.set("cleaning", text)

    def _mention_once(self, path: str, reason: str) -> None:
        """Counts and logs a path in the folder that the gateway does not read. Later calls with the same path do nothing.

        Some cameras write a second file, such as XML, beside each picture. Only the first 1,000 of these second files are logged.
        """
        if path in self._mentioned:
            return
        self._mentioned.add(path)
        metrics.files_ignored.labels(self._line, reason).inc()
        if path.lower().endswith(_SIDECAR_SUFFIXES):
            self._named_sidecars += 1
            if self._named_sidecars > _MAX_NAMED_SIDECARS:
                return
        log.warning("The gateway does not read %s in the folder of %s. Reason: %s", make_printable(path), self._line, reason)

    def _mention_unread(self, reason: str, text: str, paths: list[str]) -> None:
        for path in paths:
            self._mention_once(path, reason)
        complaint = f"{self._line}: {len(paths)} {text}; the first is {make_printable(min(paths))}" if paths else ""
        self._complaints.set(f"unread-{reason}", complaint)

    def _update_complaints(self, now_s: float) -> None:
        aside = sorted((make_printable(version.path), version.problem) for version in self._files.values() if version.is_put_aside)
        first = ", ".join(f"{name} ({problem})" for name, problem in aside[:3])
        self._complaints.set(
            "aside",
            f"{len(aside)} files of {self._line} could not be read or moved: {first}; correct their permissions or names, or remove them"
            if aside
            else "",
        )
        restless = [make_printable(version.path) for version in self._files.values() if self._is_restless(version, now_s)]
        self._complaints.set(
            "restless",
            f"{min(restless)} of {self._line} has been written to without a pause for more than {_RESTLESS_S:g} s; let the camera number "
            "its files, or lower lines.camera.settle_s"
            if restless
            else "",
        )

    def _is_restless(self, version: _FileVersion, now_s: float) -> bool:
        is_changing = now_s - version.since_s < self._settings.settle_s and not version.is_whole
        return is_changing and version.since_s - version.name_seen_s > _RESTLESS_S
