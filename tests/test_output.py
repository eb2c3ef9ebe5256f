"""What commands may replace on disk, and that half an output is never seen."""

import errno
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from citrinet.convert.hf_to_nemo import _NemoFile
from citrinet.convert.output import FolderKind, Output
from nemo_files import files_below

KIND = FolderKind("a test's output", files=("made.txt", "part-*.bin"), mark=("made.txt", "by this test"))


@pytest.fixture
def made(tmp_path) -> Path:
    """An earlier output."""
    return fill(tmp_path / "made")


def fill(folder: Path, text: str = "by this test") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "made.txt").write_text(f"{text}, the first time" if text == "by this test" else text)
    (folder / "part-1.bin").write_bytes(b"old")
    return folder


def write(path: Path, force: bool = True, inputs=(), size: int = 0) -> None:
    """What a command does."""
    output = Output(path, KIND, force=force, inputs=inputs)
    output.require(size)
    with output.complete() as folder:
        fill(folder)
        (folder / "part-1.bin").write_bytes(b"new")


def refuse(path: Path, message: str, root: Path, **options) -> None:
    """A refusal of one line that changes nothing below `root`."""
    before = files_below(root)
    with pytest.raises(OSError, match=message) as caught:
        write(path, **options)
    assert "\n" not in str(caught.value)
    assert files_below(root) == before


# --- What may be replaced ---------------------------------------------------------------------------------------------


def test_an_earlier_output_is_replaced_with_force_alone(made, tmp_path):
    refuse(made, r"made exists: .*--force", tmp_path, force=False)
    (made / ".gitattributes").write_text("*.bin filter=lfs")
    (made / "part-2.bin").write_text("of an older version")
    write(made)
    assert sorted(path.name for path in made.iterdir()) == ["made.txt", "part-1.bin"]
    assert (made / "part-1.bin").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("force", [False, True])
def test_an_empty_folder_may_be_used(tmp_path, force):
    (tmp_path / "empty").mkdir(mode=0o700)
    write(tmp_path / "empty", force=force)
    assert (tmp_path / "empty" / "made.txt").is_file()
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "name", ["notes.txt", ".env", "checkpoint-100", "runs", "training_args.bin", "zz.bin", "made.txt.orig"]
)
@pytest.mark.parametrize("force", [False, True])
def test_other_files_are_never_replaced(made, tmp_path, name, force):
    (made / name).write_text("mine")
    refuse(made, f"holds {name}, so it is not a test's output", tmp_path, force=force)


@pytest.mark.parametrize("name", [".git", "part-7.bin", "sub"])
def test_folders_are_never_replaced_even_by_the_name_of_a_file(made, tmp_path, name):
    (made / name).mkdir()
    refuse(made, f"holds {name}", tmp_path)


def test_links_in_a_folder_are_other_files(made, tmp_path):
    (tmp_path / "blob").write_text("a cache's")
    (made / "part-2.bin").symlink_to(tmp_path / "blob")
    refuse(made, r"holds part-2.bin", tmp_path)


@pytest.mark.parametrize("text", ["", "another program made this", None])
def test_files_of_the_same_names_need_the_mark(tmp_path, text):
    folder = fill(tmp_path / "theirs", text or "")
    if text is None:
        (folder / "made.txt").unlink()
    refuse(folder, "no made.txt that says so", tmp_path)


def test_a_link_is_never_replaced_wherever_it_leads(made, tmp_path):
    for target in (made, tmp_path / "nowhere"):
        link = tmp_path / f"to-{target.name}"
        link.symlink_to(target)
        refuse(link, f"is a link to {target}", tmp_path)


def test_what_holds_the_input_is_never_replaced(made, tmp_path):
    refuse(made, "holds the input .*made.txt", tmp_path, inputs=[made / "made.txt"])
    refuse(made, "is the input", tmp_path, inputs=[made])
    (tmp_path / "link").symlink_to(made / "part-1.bin")
    refuse(made, "holds the input .*part-1.bin", tmp_path, inputs=["owner/name", tmp_path / "link"])
    (tmp_path / "other-name").symlink_to(tmp_path, target_is_directory=True)
    refuse(tmp_path / "other-name" / "made", "is the input", tmp_path, inputs=[made])


def test_an_output_inside_the_input_or_beside_it(made, tmp_path):
    write(made / "inside", inputs=[made])
    assert (made / "inside" / "made.txt").is_file() and (made / "part-1.bin").read_bytes() == b"old"


@pytest.mark.parametrize("name", [".", "", "made/..", "../made", "sub/.."])
def test_the_current_folder_is_never_replaced(made, tmp_path, monkeypatch, name):
    monkeypatch.chdir(made)
    refuse(Path(name) if name != "made/.." else tmp_path / name, "current folder|holds made", tmp_path)
    (made / "made.txt").unlink()
    (made / "part-1.bin").unlink()  # not even an empty one: a shell in it would be nowhere
    refuse(Path(), "current folder", tmp_path, force=False)


def test_home_root_and_mounts_are_never_replaced(made, tmp_path, monkeypatch):
    refuse(Path("/"), "current folder", tmp_path)
    monkeypatch.setenv("HOME", str(made))
    refuse(made, "home folder", tmp_path)
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == made)
    refuse(made, "is a mount point", tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    refuse(tmp_path / "file", "is no folder", tmp_path)
    refuse(tmp_path / "file" / "out", r"file is no folder", tmp_path)
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe", "is no folder", tmp_path / "file")


def test_what_comes_while_the_work_is_done_is_not_replaced(made, tmp_path):
    output = Output(made, KIND, force=True)
    with pytest.raises(FileExistsError, match=r"holds notes.txt"), output.complete() as folder:
        fill(folder)
        (made / "notes.txt").write_text("mine")
    assert files_below(tmp_path).keys() == {"made", "made/made.txt", "made/part-1.bin", "made/notes.txt"}
    output = Output(tmp_path / "new", KIND, force=False)
    with pytest.raises(FileExistsError, match="--force"), output.complete() as folder:
        fill(folder)
        fill(tmp_path / "new", "by this test")
    assert (tmp_path / "new" / "part-1.bin").read_bytes() == b"old"


def test_only_archives_with_nemos_configuration_are_nemo_files(nemo_dir, tmp_path):
    kind = _NemoFile()
    for name in ("zh_small", "options_unigram"):  # plain and compressed
        assert kind.difference(nemo_dir / f"{name}.nemo") is None
    (tmp_path / "text").write_text("mine")
    (tmp_path / "empty").touch()
    (tmp_path / "cut").write_bytes((nemo_dir / "options_unigram.nemo").read_bytes()[:50])
    with tarfile.open(tmp_path / "backup.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "text", "text")
    os.mkfifo(tmp_path / "pipe")
    for name in ("text", "empty", "cut", "backup.tar.gz", "pipe"):
        assert kind.difference(tmp_path / name) == "is no NeMo checkpoint"
    assert kind.difference(tmp_path) == "is a folder"


# --- Half-written output ----------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_before_the_work(made, tmp_path):
    refuse(made, r"no space left on the disk of .*: made needs about 1000000000000 MB\.$", tmp_path, size=10**18)


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_disk_that_fills_up_is_one_line_whatever_a_library_says(made, tmp_path, error, wrapped):
    before = files_below(tmp_path)
    output = Output(made, KIND, force=True)
    output.require(3_000_000)
    with pytest.raises(OSError, match=r"^no space left .*: made needs about 3 MB\.$"), output.complete() as folder:
        fill(folder)
        if wrapped:
            raise ValueError("the file cannot be read") from error
        raise error
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("error", [ValueError("bad"), OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_other_failures_stay_what_they_are(made, tmp_path, error):
    before = files_below(tmp_path)
    with pytest.raises(type(error)) as caught, Output(made, KIND, force=True).complete() as folder:
        fill(folder)
        raise error
    assert caught.value is error and files_below(tmp_path) == before


def test_a_failure_while_replacing_puts_the_old_folder_back(made, tmp_path, monkeypatch):
    before = files_below(tmp_path)

    def fail(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write(made)
    assert files_below(tmp_path) == before


def test_a_place_that_cannot_be_written(made, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refuse(tmp_path / "new", "no permission in .*, or its disk is read-only", tmp_path)
    refuse(tmp_path / "a" / "b" / "new", "no permission in .*, or its disk is read-only", tmp_path)


def test_a_long_name(tmp_path):
    write(tmp_path / ("语" * 80))
    assert (tmp_path / ("语" * 80) / "made.txt").is_file()


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 300 kB; only root can make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(tiny_disk, tmp_path):
    """Where the size is not known before, and writing fails in the middle."""
    with (
        pytest.raises(OSError, match=r"^no space left on the disk of .*disk\.$"),
        Output(tiny_disk / "new", KIND, force=False).complete() as folder,
    ):
        fill(folder)
        (folder / "part-2.bin").write_bytes(bytes(500_000))
    assert list(tiny_disk.iterdir()) == []
    with pytest.raises(FileExistsError, match="mount point"):
        write(tiny_disk)
