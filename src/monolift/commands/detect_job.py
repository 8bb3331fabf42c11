"""What becomes of the results of ``monolift detect``: files, a line of the manifest, what the user reads."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monolift.commands.detect_sequence import FORMATS, SEQUENCE_FORMATS, Save, SequenceWriter
from monolift.commands.output import check_writable, console, count
from monolift.errors import DiskError, InputError, MissingExtraError
from monolift.files.folders import write_error
from monolift.files.json_text import format_json
from monolift.files.manifest import DONE, FAILED, FRAME, Manifest
from monolift.files.progress import Progress

if TYPE_CHECKING:
    from monolift.data.live import LiveSource
    from monolift.inference.results import Results3D

    Source = Path | LiveSource

REASONS, LONGEST = 3, 60  # kinds of failures that the summary names, with so many letters at most


class DetectJob:
    """Takes one result after the other; keeps counts, and neither pixels nor results."""

    def __init__(
        self, writer: Writer, report: Report, manifest: Manifest, predicted: bool, rows: bool, total: int
    ) -> None:
        """rows: whether the manifest is to hold the rows of --json."""
        self.writer, self.report, self.manifest = writer, report, manifest
        self.predicted, self.rows, self.total = predicted, rows, total
        self.images = self.objects = self.skipped = self.failed_files = 0
        self.reasons: Counter[str] = Counter()
        self.began = time.monotonic()
        self._video: str | None = None
        self._frames = self._found = 0
        self._failed: str | None = None  # the file at hand, where it has failed

    def left(self, files: Sequence[Source]) -> list[Source]:
        """The files that earlier runs have not done, or whose outputs are gone; the names of the others are taken."""
        left = []
        for path in files:
            entry = self.manifest.earlier.get(str(path))
            names = _names(path, 0 if entry is None else entry.line.get("images", 0))
            if self.manifest.is_done(str(path)) and self.writer.there(path, names):
                self.skipped += 1
                self.writer.take(path, names)
            else:
                self.manifest.earlier.pop(str(path), None)
                left.append(path)
        return left

    def outcome(self, outcome: Results3D | tuple[str, Exception]) -> None:
        """A result, or the source and the exception of an image that could not be used."""
        if isinstance(outcome, tuple):
            self.failed(*outcome)
        else:
            self.done(outcome)

    def done(self, result: Results3D) -> None:
        source = str(result.path or result.name)
        self.turn(source)
        try:
            row = result.to_dict(self.predicted)
            format_json(row)  # here a number that JSON does not know costs one image, at the end all of them
            self.writer.write(result)
        except DiskError:
            raise
        except Exception as error:
            if self.writer.save and not isinstance(error, TakenError):
                check_writable(
                    self.writer.folder
                )  # a folder that is shut ends the job; one odd name does not
            self.failed(source, error)
            return
        more = {"result": row} if self.rows else {}
        if self._video is None:
            self.manifest.note(source, DONE, images=1, objects=len(result), **more)
        else:
            self._frames += 1
            self._found += len(result)
            self.manifest.note(source, FRAME, name=result.name, **more)
        self.images += 1
        self.objects += len(result)
        self.report.result(result)

    def failed(self, source: str, error: Exception) -> None:
        """Reports a file that cannot be used: bad input in the words of its error, anything else with its type."""
        self.turn(source)
        text = str(error)
        if not isinstance(error, (InputError, MissingExtraError)):
            reason = text.splitlines()[0] if text else "no message"
            text = f"{source}: {type(error).__name__}: {reason}"
        elif Path(source).name not in text:
            text = f"{source}: {text}"
        self.manifest.note(source, FAILED, error=text)
        self.failed_files += self._failed != source
        self._failed = source
        reason = text.removeprefix(f"{source}: ")
        self.reasons[reason if len(reason) <= LONGEST else reason[: LONGEST - 3] + "..."] += 1
        self.report.complain(text)

    def turn(self, source: str | None) -> None:
        """The next result is of this file, or there is none: a video before it is done."""
        if source == self.report.source:
            return
        if source is None:
            self.writer.finish()
        if self._video is not None and self._video != self._failed:
            self.manifest.note(self._video, DONE, images=self._frames, objects=self._found)
        from monolift.data.sources import is_video

        self._video = source if source is not None and is_video(source) else None
        self._frames = self._found = 0
        self._failed = None
        self.report.turn(source)

    def summary(self) -> str:
        """Images, objects, failures by reason, seconds, and where the files are."""
        text = f"{count(self.objects, 'object')} in {count(self.images, 'image')}"
        if self.failed_files:
            reasons = [f"{n} x {reason}" for reason, n in self.reasons.most_common(REASONS)]
            more = ", ..." if len(self.reasons) > REASONS else ""
            text += (
                f"; {self.failed_files} of {count(self.total, 'file')} failed ({', '.join(reasons)}{more})"
            )
        if self.skipped:
            text += f"; {count(self.skipped, 'file')} done before"
        if self.writer.written:
            text += f"; {count(self.writer.written, 'file')} in {self.writer.folder}"
        return f"{text}; {time.monotonic() - self.began:.1f} s"


def _names(path: Source, images: int) -> list[str]:
    """The names of a file's results."""
    from monolift.data.sources import is_video  # which imports torch

    return [f"{path.stem}_{k:06d}" for k in range(images)] if is_video(path) else [path.stem]


class TakenError(InputError):
    """A result's file is another's, or the image itself."""


class Writer:
    """Files named like the images. Two images of one name would overwrite each other, so the second is refused."""

    def __init__(self, folder: Path, save: Save, fps: float = 10.0, predicted: bool = False) -> None:
        """fps: of videos made of a folder's images. predicted: JSON lines have the predicted parameters of each object."""
        self.folder, self.save, self.fps, self.predicted = folder, save, fps, predicted
        self.written = 0
        self._origin: dict[str, str] = {}  # of each image: all that a long job keeps in memory
        self._sequences: dict[str, Any] = {}
        self._place: Path | None = None  # of the sequence whose files are open
        self._open: SequenceWriter | None = None

    def there(self, path: Source, names: Sequence[str]) -> bool:
        """Whether all files of these results are there."""
        from monolift.data.sources import is_video

        video = is_video(path)
        kinds = self.save.frames if video else self.save.images
        whole = [self._target(path.stem, kind) for kind in self.save.videos] if video else []
        single = [self._target(name, kind) for name in names for kind in kinds]
        return all(target.is_file() for target in [*single, *whole])

    def take(self, path: Source, names: Sequence[str]) -> None:
        """Names that an earlier run has used."""
        self._origin |= dict.fromkeys(names, str(path))
        self._sequences[path.stem] = path

    def _target(self, name: str, kind: str) -> Path:
        return self.folder / (name + (FORMATS.get(kind) or SEQUENCE_FORMATS[kind]))

    def write(self, result: Results3D) -> None:
        """The files of one image, and its part of those of its sequence."""
        if not self.save:
            return
        from monolift.data.sources import is_video
        from monolift.inference.sequences import sequence_of

        place = sequence_of(result)
        video = is_video(place)
        kinds, whole = (
            (self.save.frames, self.save.videos) if video else (self.save.images, self.save.folders)
        )
        if kinds:
            if result.name in self._origin:
                raise self._taken(result.path, self._origin[result.name])
            self._origin[result.name] = str(result.path)
        for kind in kinds:
            target = self._target(result.name, kind)
            self._keep_input(target, result.path)
            _save(result, kind, target)
            self.written += 1
        if whole:
            if self._open is None or self._place != place:
                self._begin(place, whole, result)
            assert self._open is not None
            self._open.add(result)

    def _begin(self, place: Path, whole: Sequence[str], result: Results3D) -> None:
        """Opens the files of another sequence."""
        from monolift.data.live import live_source
        from monolift.data.sources import is_video

        self.finish()
        live = live_source(place)
        stem = live.stem if live else place.stem if is_video(place) else place.resolve().name or "frames"
        if stem in self._sequences or ("tracking" in whole and stem in self._origin):
            raise self._taken(place, self._sequences.get(stem) or self._origin[stem])
        for kind in whole:
            self._keep_input(self._target(stem, kind), result.path)
        fps = self.fps
        if "video" in whole and is_video(place) and live is None:
            from monolift.inference.video import frame_rate

            fps = frame_rate(place)
        self._open = SequenceWriter(self.folder, stem, whole, fps, self.predicted)
        self._place = self._sequences[stem] = place

    def finish(self) -> None:
        """The files of the sequence at hand take their names."""
        if self._open is not None:
            writer, self._open, self._place = self._open, None, None
            self.written += writer.finish()

    def discard(self, error: BaseException) -> None:
        """The files of the sequence at hand are not to appear."""
        if self._open is not None:
            writer, self._open = self._open, None
            writer.discard(error)

    def _taken(self, path: Path | None, other: Any) -> TakenError:
        return TakenError(
            f"{path}: {other} has the same name: its files in {self.folder} would be overwritten; use another --out"
        )

    @staticmethod
    def _keep_input(target: Path, path: Path | None) -> None:
        if path is not None and target.resolve() == path.resolve():
            from monolift.data.sources import is_video

            kind = "video" if is_video(target) else "image"
            raise TakenError(f"{target}: is the {kind} itself and is not overwritten; use another --out")


def _save(result: Results3D, kind: str, target: Path) -> None:
    if kind == "html":
        from monolift.viewer import save_html

        save_html(result, target)
    else:
        getattr(result, f"save_{kind}")(target)


class Log:
    """A file of dated lines, added to what is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = self._try(lambda: path.open("a", encoding="utf-8", errors="replace"))

    def line(self, text: str) -> None:
        """Adds a line. Raises InputError where it cannot, DiskError where the disk is full."""
        self._try(lambda: self._add(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n"))

    def close(self) -> None:
        """Closes the file; every line is written already."""
        self._file.close()

    def _add(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            raise write_error(self.path, error) from None


class Report:
    """What the user reads: tables for a few images, a line each for many. Standard output stays clean for --json -."""

    def __init__(
        self, progress: Progress, quiet: bool, to_stderr: bool, in_full: bool, log: Log | None = None
    ) -> None:
        self.progress, self.quiet, self.to_stderr = progress, quiet, to_stderr
        self.in_full, self.log = in_full, log
        self._warned: set[str] = set()
        self.source: str | None = None

    def turn(self, source: str | None) -> None:
        """The next result is of this file, or there is none: progress counts the one before."""
        if self.source is not None and source != self.source:
            self.progress.advance(1, Path(self.source).name)
        self.source = source

    def result(self, result: Results3D) -> None:
        for warning in result.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self.complain(f"{result.name}: warning: {warning}")
        line = f"{result}  ({sum(result.timings.values()):.2f} s)"
        self.note(line)
        if self.in_full:
            self.say(result.table() if len(result) else str(result))
        else:
            self.progress.say(line)

    def note(self, text: str) -> None:
        """A line of the log alone."""
        if self.log is not None:
            self.log.line(text)

    def say(self, content: Any) -> None:
        if not self.quiet:
            console(self.to_stderr).print(content, highlight=False, markup=False)

    def complain(self, text: str) -> None:
        """One line on standard error, also when quiet."""
        line = "monolift: " + " ".join(text.split())
        self.note(line)
        if self.progress.quiet:
            sys.stderr.write(line + "\n")
        else:
            self.progress.say(line)
