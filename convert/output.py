"""Folders that appear only when they are complete."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def output_folder(output: str | Path, force: bool) -> tuple[Path, Path]:
    """
    Find out where a folder is to be written, before the work.

    Args:
        output: the folder to write.
        force: whether it may replace an existing one.

    Returns:
        `output` as an absolute path, and the nearest folder above it that exists, which has room for what is half done.

    Raises:
        FileExistsError: if `output` exists and may not be replaced.
    """
    output = Path(output).absolute()
    if output.exists() and not (force and output.is_dir()):
        remedy = "replace it with --force (force=True)" if output.is_dir() else "it is no folder"
        raise FileExistsError(f"{output} exists: choose another folder, or {remedy}.")
    return output, next((parent for parent in output.parents if parent.is_dir()), output)


@contextmanager
def replaced_when_complete(output: Path, place: Path) -> Iterator[Path]:
    """A folder in `place` that becomes `output` when the block ends well, and is removed when it does not."""
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=place))
    complete, replaced = folder / "complete", folder / "replaced"
    try:
        complete.mkdir()
        yield complete
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.exists():
            output.rename(replaced)
        complete.rename(output)
    finally:
        if replaced.exists() and not output.exists():
            replaced.rename(output)
        shutil.rmtree(folder, ignore_errors=True)
