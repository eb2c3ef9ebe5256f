"""What a command may replace on disk, and outputs that appear only when they are complete."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

# What Git hosting and file managers leave in a folder: nobody's work.
_HARMLESS = (".gitattributes", ".DS_Store")
_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
# The same in the words of libraries that pass no number on; those of Rust and of PyTorch's archives.
_FULL_WORDS = ("No space left on device", "os error 28", "os error 112", "Disk quota exceeded")


class Kind(Protocol):
    """What a command writes, by which it knows what an earlier run of it wrote."""

    def difference(self, path: Path) -> str | None:
        """Say why what is at `path` was not written by this command (`"holds notes.txt"`); None if it was."""


@dataclass(frozen=True)
class FolderKind(Kind):
    """
    A folder of files with known names.

    Args:
        name: what to call it in messages.
        files: patterns of the names of its files; it has no folders in it.
        mark: the name of one of them, and words in it that no other program's file holds.
    """

    name: str
    files: tuple[str, ...]
    mark: tuple[str, str]

    def difference(self, path: Path) -> str | None:
        """Say why a folder was not written by this command; an empty one might have been."""
        if not path.is_dir():
            return "is no folder"
        entries = sorted(path.iterdir())
        for entry in entries:
            known = any(fnmatchcase(entry.name, pattern) for pattern in (*self.files, *_HARMLESS))
            if not known or entry.is_symlink() or not entry.is_file():
                return f"holds {entry.name}, so it is not {self.name}"
        marked, words = self.mark
        if entries and words not in _text(path / marked):
            return f"is not {self.name} (it has no {marked} that says so)"
        return None


class Output:
    """
    Where a command writes. What is there is checked when this is made, and again just before it is replaced.

    An empty folder may be used. Anything else is replaced only with `force`, and only if an earlier run wrote it: never
    a link, a mount point, what holds one of the inputs, the current folder or the home folder, or other files.

    Args:
        path: the folder or file to write.
        kind: what the command writes.
        force: whether an earlier output of this kind may be replaced.
        inputs: what the command reads; what does not exist is not on this disk.

    Attributes:
        path: `path` as an absolute path.

    Raises:
        FileExistsError: if what is there may not be replaced.
        OSError: if nothing can be written there.
    """

    def __init__(self, path: str | Path, kind: Kind, *, force: bool, inputs: Iterable[str | Path] = ()):
        path = Path(path).absolute()
        self.path = path.resolve() if path.name in ("", "..") else path
        self._kind, self._force = kind, force
        self._inputs = [Path(place).resolve() for place in inputs if Path(place).exists()]
        self._needed = 0
        self._check()
        # The nearest folder above that exists has the room for what is half done: a rename cannot leave its disk.
        self._place = next((parent for parent in self.path.parents if os.path.lexists(parent)), self.path)
        if not self._place.is_dir():
            raise NotADirectoryError(f"{self.path} cannot be written: {self._place} is no folder.")
        if not os.access(self._place, os.W_OK | os.X_OK):
            raise PermissionError(
                f"{self.path} cannot be written: no permission in {self._place}, or its disk is read-only."
            )

    def require(self, size: int) -> None:
        """
        Refuse to begin what the disk has no room for.

        Args:
            size: bytes that will be written, about.

        Raises:
            OSError: if there is less room.
        """
        self._needed = size
        disk = shutil.disk_usage(self._place)
        if disk.total and disk.free < size:
            raise self._full()

    @contextmanager
    def complete(self) -> Iterator[Path]:
        """
        A path that becomes the output when the block ends well; when it does not, everything is as it was.

        The block makes the folder or the file. The folder that it is in is on the output's disk, and goes afterwards.

        Raises:
            OSError: if the disk is full, whatever a library made of it.
        """
        scratch = Path(tempfile.mkdtemp(prefix=f".{self.path.name[:40]}.", dir=self._place))
        complete, replaced = scratch / "complete", scratch / "replaced"
        try:
            yield complete
            self._check()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                shutil.copymode(self.path, complete)
            if self.path.is_dir():
                self.path.rename(replaced)
            complete.replace(self.path)
        except Exception as error:
            if _says_full(error):
                raise self._full() from error
            raise
        finally:
            if replaced.exists() and not self.path.exists():
                replaced.rename(self.path)
            shutil.rmtree(scratch, ignore_errors=True)

    def _check(self) -> None:
        if not os.path.lexists(self.path):
            return
        reason = self._protection() or self._kind.difference(self.path)
        if reason:
            raise FileExistsError(f"{self.path} {reason}: it is not replaced, write to another place.")
        is_empty = self.path.is_dir() and not any(self.path.iterdir())
        if not (self._force or is_empty):
            raise FileExistsError(
                f"{self.path} exists: write to another place, or replace it with --force (force=True)."
            )

    def _protection(self) -> str | None:
        """Why this is not to be replaced, whatever it holds."""
        if self.path.is_symlink():
            return f"is a link to {self.path.readlink()}"
        held = next((place for place in self._inputs if _holds(self.path, place)), None)
        if held is not None:
            return "is the input" if held.samefile(self.path) else f"holds the input {held}"
        if _holds(self.path, Path.cwd()):
            return "is the current folder, or holds it"
        if _holds(self.path, Path(os.path.expanduser("~")).resolve()):  # noqa: PTH111  # which never fails
            return "is the home folder, or holds it"
        return "is a mount point, not a folder in one" if os.path.ismount(self.path) else None

    def _full(self) -> OSError:
        needs = f": {self.path.name} needs about {max(self._needed / 1e6, 1):.0f} MB" if self._needed else ""
        return OSError(f"no space left on the disk of {self._place}{needs}.")


def _holds(folder: Path, place: Path) -> bool:
    """Whether `place` is `folder` or in it, by whatever names: links, mounts, letters of another case."""
    return any(above.exists() and above.samefile(folder) for above in (place, *place.parents))


def _text(path: Path) -> str:
    """A small file's text; none if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _says_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came of, is that of a full disk."""
    while error is not None:
        if getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


__all__ = ["FolderKind", "Kind", "Output"]
