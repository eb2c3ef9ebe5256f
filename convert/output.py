"""Outputs that appear only when they are complete, and checks of what a command may replace."""

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

# Files that Git hosting and file managers leave in a folder.
_HARMLESS = (".gitattributes", ".DS_Store")
_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
# The same in the messages of libraries that do not set `errno`: Rust's, and PyTorch's archives.
_FULL_WORDS = ("No space left on device", "os error 28", "os error 112", "Disk quota exceeded")


class Kind(Protocol):
    """Kind of output, which recognises the output of an earlier run."""

    def difference(self, path: Path) -> str | None:
        """Say why `path` was not written by this command (`"holds notes.txt"`); `None` if it was."""


@dataclass(frozen=True)
class FolderKind(Kind):
    """
    A folder of files with known names.

    Args:
        name: name of the kind in messages.
        files: patterns of the file names; there are no subfolders.
        mark: name of one of the files, and words in it that files of other programs do not have.
    """

    name: str
    files: tuple[str, ...]
    mark: tuple[str, str]

    def difference(self, path: Path) -> str | None:
        """Say why a folder was not written by this command; `None` if it was, or is empty."""
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
    Output of a command. An existing output is checked when the object is made, and again just before it is replaced.

    An empty folder may be used. Anything else is replaced only with `force`, and only if an earlier run wrote it: never
    other files, a link, a mount point, or a folder with an input, the current folder or the home folder in it.

    Args:
        path: the folder or file to write.
        kind: kind of output.
        force: whether an earlier output of this kind may be replaced.
        inputs: paths that the command reads; those that do not exist are ignored.

    Attributes:
        path: `path` as an absolute path.

    Raises:
        FileExistsError: if `path` exists and may not be replaced.
        OSError: if `path` cannot be written.
    """

    def __init__(self, path: str | Path, kind: Kind, *, force: bool, inputs: Iterable[str | Path] = ()):
        path = Path(path).absolute()
        self.path = path.resolve() if path.name in ("", "..") else path
        self._kind, self._force = kind, force
        self._inputs = [Path(place).resolve() for place in inputs if Path(place).exists()]
        self._needed = 0
        self._check()
        # Unfinished output goes into the nearest existing parent: a rename must stay on the same disk.
        self._place = next((parent for parent in self.path.parents if os.path.lexists(parent)), self.path)
        if not self._place.is_dir():
            raise NotADirectoryError(f"{self.path} cannot be written: {self._place} is no folder.")
        if not os.access(self._place, os.W_OK | os.X_OK):
            raise PermissionError(
                f"{self.path} cannot be written: no permission in {self._place}, or its disk is read-only."
            )

    def require(self, size: int) -> None:
        """
        Check for free disk space before writing.

        Args:
            size: approximate number of bytes that will be written.

        Raises:
            OSError: if there is less space.
        """
        self._needed = size
        disk = shutil.disk_usage(self._place)
        if disk.total and disk.free < size:
            raise self._full()

    @contextmanager
    def complete(self) -> Iterator[Path]:
        """
        Yield a path that becomes the output if the block succeeds; if it fails, nothing changes.

        The block must create the folder or the file. Its parent is a temporary folder on the same disk as the output.

        Raises:
            OSError: if the disk is full, also if a library raised another error for it.
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
        """Why this path must not be replaced, regardless of its content; `None` if it may be."""
        if self.path.is_symlink():
            return f"is a link to {self.path.readlink()}"
        held = next((place for place in self._inputs if _holds(self.path, place)), None)
        if held is not None:
            return "is the input" if held.samefile(self.path) else f"holds the input {held}"
        if _holds(self.path, Path.cwd()):
            return "is the current folder, or holds it"
        if _holds(self.path, Path(os.path.expanduser("~")).resolve()):  # noqa: PTH111  # unlike Path.home, never fails
            return "is the home folder, or holds it"
        return "is a mount point, not a folder in one" if os.path.ismount(self.path) else None

    def _full(self) -> OSError:
        needs = f": {self.path.name} needs about {max(self._needed / 1e6, 1):.0f} MB" if self._needed else ""
        return OSError(f"no space left on the disk of {self._place}{needs}.")


def _holds(folder: Path, place: Path) -> bool:
    """Whether `place` is `folder` or in it, also by other names: links, mounts, upper and lower case."""
    return any(above.exists() and above.samefile(folder) for above in (place, *place.parents))


def _text(path: Path) -> str:
    """Text of a small file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _says_full(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, means a full disk."""
    while error is not None:
        if getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


__all__ = ["FolderKind", "Kind", "Output"]
