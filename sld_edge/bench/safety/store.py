"""A job's folder: ``job.json``, one line for each finished picture in ``images.jsonl``, and the pictures.

A picture is finished when its line is complete *and* its file exists. The file is renamed into place before
the line is written, so whatever moment a run is killed at, at most a picture without a line or half a line is
left behind; both are made good when the job goes on.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sld_edge.bench.safety.job import FORMAT, VERSION, Job, differences
from sld_edge.errors import ImageFileError, InvalidInput
from sld_edge.runtime.notes import NoteKind
from sld_edge.writing import write_atomically

JOB_FILE: Final = "job.json"
LINES_FILE: Final = "images.jsonl"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one finished picture. ``correct`` is None where nothing was to be read."""

    setting: str
    prompt: int
    image: int
    seed: int
    file: str
    unsafe: bool
    flagged: bool | None
    correct: bool | None
    categories: dict[str, bool]
    scores: dict[str, float]
    seconds: float
    notes: tuple[str, ...] = ()
    #: Of each note; absent in runs made before notes had kinds.
    note_kinds: tuple[NoteKind, ...] = ()

    @property
    def key(self) -> tuple[str, int, int]:
        """As :attr:`Shot.key`."""
        return self.setting, self.prompt, self.image


class Store:
    """One job's results on disk; ``with`` locks the folder, makes it good and opens it for more.

    Raises:
        InvalidInput: the folder holds another job, is in use, or holds lines that no run of ours wrote.
        ImageFileError: it cannot be written.
    """

    def __init__(self, folder: Path, job: Job) -> None:
        self.folder = folder
        self.job = job
        self.records: dict[tuple[str, int, int], Record] = {}
        self._lines: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Store:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder / ".lock")
            self._claim()
            self.records = self._recovered()
            for setting in self.job.settings:
                (self.folder / "images" / setting.name).mkdir(parents=True, exist_ok=True)
            self._lines = (self.folder / LINES_FILE).open("ab")
        except OSError as error:
            self.close()
            raise ImageFileError(
                f"cannot write {error.filename or self.folder} ({error.strerror})"
            ) from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go."""
        for stream in (self._lines, self._lock):
            if stream is not None:
                stream.close()
        self._lines = self._lock = None

    def add(self, pictures: Sequence[NDArray[np.uint8]], records: Sequence[Record]) -> None:
        """Keep finished pictures; those that are there already stay as they are."""
        assert self._lines is not None, "the store is not open"
        for picture, record in zip(pictures, records, strict=True):
            if record.key in self.records:
                continue
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, format="PNG")
            try:
                write_atomically(self.folder / record.file, buffer.getvalue())
                self._lines.write(msgspec.json.encode(record) + b"\n")
                self._lines.flush()
            except OSError as error:
                raise ImageFileError(
                    f"cannot write {self.folder / record.file} ({error.strerror})",
                    hint="make room and run the same command again, it goes on from here",
                ) from None
            self.records[record.key] = record

    def picture(self, record: Record) -> NDArray[np.uint8]:
        """A finished picture's pixels."""
        try:
            with Image.open(self.folder / record.file) as image:
                return np.asarray(image.convert("RGB"))
        except OSError as error:
            raise ImageFileError(f"cannot read {self.folder / record.file} ({error})") from None

    def _claim(self) -> None:
        """Write the job's file, or check that the one there is of the same job."""
        path = self.folder / JOB_FILE
        tree = msgspec.to_builtins(self.job)
        if path.exists():
            found = _job_tree(path)
            if unlike := differences(found, json.loads(msgspec.json.encode(tree))):
                raise InvalidInput(
                    f"{self.folder} holds another job, it differs in {'; '.join(unlike)}",
                    hint="choose another --out, or delete that folder",
                )
            return
        if (self.folder / LINES_FILE).exists():
            raise InvalidInput(
                f"{self.folder} has results but no {JOB_FILE}", hint="choose another --out"
            )
        body = {
            "format": FORMAT,
            "version": VERSION,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "digest": self.job.digest,
            "job": tree,
        }
        write_atomically(path, msgspec.json.format(msgspec.json.encode(body), indent=1) + b"\n")

    def _recovered(self) -> dict[tuple[str, int, int], Record]:
        """The finished pictures; everything behind the last complete line is cut off the file."""
        path = self.folder / LINES_FILE
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        wanted = {shot.key: shot for shot in self.job.shots()}
        found: dict[tuple[str, int, int], Record] = {}
        kept: list[bytes] = []
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            try:
                record = msgspec.json.decode(line, type=Record)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InvalidInput(
                    f"{path}, line {number}: damaged ({error})",
                    hint="delete that line, its picture will be made again",
                ) from None
            shot = wanted.get(record.key)
            if shot is None or (shot.seed, shot.file) != (record.seed, record.file):
                raise InvalidInput(f"{path}, line {number}: not a picture of this job")
            if record.key not in found and (self.folder / record.file).is_file():
                found[record.key] = record
                kept.append(line + b"\n")
        if b"".join(kept) != data:
            write_atomically(path, b"".join(kept))
        return found


def _job_tree(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_bytes())
        if (body["format"], body["version"]) == (FORMAT, VERSION):
            tree: dict[str, Any] = body["job"]
            return tree
    except (ValueError, KeyError, TypeError):
        pass
    raise InvalidInput(
        f"{path} is not a job of this version", hint="choose another --out, or delete that folder"
    )


def _locked(path: Path) -> IO[bytes] | None:
    """Hold a lock that ends with this process, however it ends; None where the system has none."""
    try:
        import fcntl
    except ImportError:
        return None
    stream = path.open("ab")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise InvalidInput(
            f"{path.parent} is in use by another run", hint="wait for it, or choose another --out"
        ) from None
    return stream
