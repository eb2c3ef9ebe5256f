"""
Read `.nemo` archives, which are untrusted.

Nothing in them is executed, and nothing is written except one unnamed temporary file.

A `.nemo` file is a tar archive, plain or gzipped, of `model_config.yaml`, `model_weights.ckpt` and the tokenizer's
files.
"""

import gzip
import io
import lzma
import posixpath
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import torch
import yaml

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"

MAX_MEMBERS = 1000
MAX_HEADER_BYTES = 4 << 20  # that tarfile may read to find the members
MAX_CONFIG_BYTES = 4 << 20
MAX_TEXT_BYTES = 64 << 20  # of any other member without weights
MAX_WEIGHT_BYTES = 16 << 30
MAX_COMPRESSION = 200  # weights hardly compress; a file with a higher ratio is an attack
MAX_MESSAGE = 400

# Tensors that training code leaves in checkpoints, which are not part of the network.
_JUNK = re.compile(r"_(val_)?tag_labels|(loss|_wer|wer|spec_augmentation)\..*")
_WEIGHT_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
_YAML_DEPTH = 50
_YAML_SCALAR = 100_000  # PyYAML's time is quadratic in the length of some numbers
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class ConversionError(ValueError):
    """A checkpoint cannot be converted; the message says why in one line."""

    def __init__(self, message: str):
        line = " ".join(str(message).split())
        printable = "".join(char if char.isprintable() else "?" for char in line)
        super().__init__(printable if len(printable) <= MAX_MESSAGE else printable[: MAX_MESSAGE - 4] + " ...")


@contextmanager
def parsing(what: str) -> Iterator[None]:
    """
    Turn any exception into a [`ConversionError`], for reading untrusted bytes with another library's parser.

    On malformed input the parsers used here raise nearly every kind of exception, with the same meaning.

    Args:
        what: start of the error message.
    """
    try:
        yield
    except ConversionError:
        raise
    except Exception as error:
        raise ConversionError(f"{what} ({type(error).__name__}: {error}).") from error


def is_nemo(path: Path) -> bool:
    """Whether a file is a tar archive with NeMo's configuration; the rest is not checked."""
    try:
        with tarfile.open(path) as tar:
            return any(posixpath.normpath(member.name) == CONFIG for member in islice(tar, MAX_MEMBERS))
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError):
        return False


class NemoArchive:
    """
    An open `.nemo` file.

    Args:
        path: the file.
        scratch: folder for an unnamed temporary file, to which a compressed archive is unpacked; by default the
            system's temporary folder.

    Attributes:
        ignored: names of tensors that [`weights`] found and that are not part of the network.

    Raises:
        ConversionError: if it is not a `.nemo` archive, is truncated, or has members that no honest archive has.
    """

    def __init__(self, path: str | Path, scratch: str | Path | None = None):
        self.path = Path(path)
        self.ignored: list[str] = []
        self._opened: set[str] = set()
        if not self.path.is_file():
            is_folder = self.path.is_dir()
            raise ConversionError(
                f"{self.path}: {'a folder, not a .nemo file' if is_folder else 'there is no such file'}."
            )
        with parsing(f"{self.path}: not a .nemo archive, or a damaged one"), ExitStack() as stack:
            self._file: IO[bytes] = stack.enter_context(self.path.open("rb"))
            if self._file.read(2) == b"\x1f\x8b":
                self._file = self._unpacked(stack.enter_context(tempfile.TemporaryFile(dir=scratch)))
            self._members = self._index()
            self._close = stack.pop_all().close

    def __enter__(self) -> "NemoArchive":
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    @property
    def unread(self) -> list[str]:
        """Names of the members that were not read, without a leading `./`."""
        return [name for name in self._members if name not in self._opened]

    def read(self, name: str) -> bytes:
        """
        Read a small member.

        Raises:
            ConversionError: if there is no such member.
        """
        name = posixpath.normpath(name)
        if name not in self._members:
            raise ConversionError(f"{self.path}: the archive has no {name!r}, which its configuration names.")
        with self._open(name) as file:
            return file.read()

    def config(self) -> dict[str, Any]:
        """
        Read the model's configuration as plain data.

        Raises:
            ConversionError: if it is not YAML, contains Python objects, or is not a mapping.
        """
        text = self.read(CONFIG)
        if len(text) > MAX_CONFIG_BYTES:
            raise ConversionError(f"{self.path}: {CONFIG} has {len(text)} bytes, more than any model's.")
        with parsing(f"{self.path}: {CONFIG} is not plain YAML"):
            _check_yaml(text)
            config = yaml.load(text, Loader=_YamlLoader)
        if not isinstance(config, dict):
            raise ConversionError(f"{self.path}: {CONFIG} is not a mapping.")
        return config

    def weights(self) -> dict[str, torch.Tensor]:
        """
        Read all tensors, by NeMo's names.

        Other members with weights (`*.ckpt`, `*.pt`, `*.pth`, `*.bin`), which may have the tag heads, are included.

        Raises:
            ConversionError: if a member with weights has anything but plain tensors, or a tensor occurs twice.
        """
        weights = self._load_tensors(WEIGHTS)
        for name in self._members:
            if name == WEIGHTS or not name.endswith(_WEIGHT_SUFFIXES):
                continue
            for key, tensor in self._load_tensors(name).items():
                key = _tag_head_name(key)
                if key in weights:
                    raise ConversionError(f"{self.path}: {name!r} holds {key!r} a second time.")
                weights[key] = tensor
        return weights

    def _unpacked(self, target: IO[bytes]) -> IO[bytes]:
        """Decompress the archive, so that members can be read in any order and their sizes can be trusted."""
        limit = min(MAX_WEIGHT_BYTES, MAX_COMPRESSION * self.path.stat().st_size)
        with gzip.open(self.path) as compressed:
            while block := compressed.read(1 << 20):
                if target.tell() + len(block) > limit:
                    raise ConversionError(
                        f"{self.path}: unpacks to more than {limit} bytes, which no honest archive does."
                    )
                target.write(block)
        return target

    def _index(self) -> dict[str, tarfile.TarInfo]:
        """Index the files of the archive, and check that it is complete."""
        members: dict[str, tarfile.TarInfo] = {}
        end = 0
        self._file.seek(0)
        with tarfile.open(fileobj=_Headers(self._file), mode="r:") as tar:  # type: ignore[call-overload]
            for count, member in enumerate(tar):
                if count >= MAX_MEMBERS:
                    raise ConversionError(f"{self.path}: more than {MAX_MEMBERS} members.")
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if member.isdir():
                    continue
                name = self._checked_name(member)
                if name in members:
                    raise ConversionError(f"{self.path}: member {name!r} occurs twice.")
                members[name] = member
        # tarfile takes a damaged header for the end: the members after it would be missed silently.
        self._file.seek(end)
        if self._file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ConversionError(
                f"{self.path}: the archive is truncated or damaged after {len(members)} members: fetch the file again."
            )
        for required in (CONFIG, WEIGHTS):
            if required not in members:
                raise ConversionError(f"{self.path}: the archive has no {required}; is it a .nemo file?")
        return members

    def _checked_name(self, member: tarfile.TarInfo) -> str:
        name = posixpath.normpath(member.name)
        if name.startswith(("/", "..")) or "\\" in name or "\0" in name or re.match("[A-Za-z]:", name):
            raise ConversionError(f"{self.path}: member {member.name!r} points outside the archive.")
        if not member.isreg() or member.issparse():
            raise ConversionError(
                f"{self.path}: member {name!r} is a link, a device or a sparse file; only plain files are allowed."
            )
        limit = MAX_WEIGHT_BYTES if name.endswith(_WEIGHT_SUFFIXES) else MAX_TEXT_BYTES
        if not 0 <= member.size <= limit:
            raise ConversionError(f"{self.path}: member {name!r} is too large ({member.size} bytes).")
        return name

    def _open(self, name: str) -> IO[bytes]:
        member = self._members[name]
        self._opened.add(name)
        return io.BufferedReader(_Slice(self._file, member.offset_data, member.size))

    def _load_tensors(self, name: str) -> dict[str, torch.Tensor]:
        member = self._members[name]
        with self._open(name) as file, parsing(f"{self.path}: {name!r} does not hold plain tensors"):
            self._check_zip(name, file)
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
            loaded = loaded["state_dict"]
        if not isinstance(loaded, dict) or not loaded:
            raise ConversionError(f"{self.path}: {name!r} holds no weights.")
        junk = [key for key in loaded if isinstance(key, str) and _JUNK.fullmatch(key)]
        self.ignored += junk
        loaded = {key: value for key, value in loaded.items() if key not in junk}
        unusable = [key for key, value in loaded.items() if not isinstance(key, str) or not _is_plain(value)]
        if unusable:
            raise ConversionError(f"{self.path}: {name!r} holds {unusable[0]!r}, which is no plain tensor of numbers.")
        if sum(tensor.nbytes for tensor in loaded.values()) > member.size:
            raise ConversionError(f"{self.path}: {name!r} claims larger tensors than it holds.")
        return {key: tensor.detach() for key, tensor in loaded.items()}

    def _check_zip(self, name: str, file: IO[bytes]) -> None:
        """Check that the zip file would not grow on loading (PyTorch never compresses), and its checksums."""
        archive = zipfile.ZipFile(file)
        if sum(entry.file_size for entry in archive.infolist()) > self._members[name].size:
            raise ConversionError(f"{self.path}: {name!r} would grow on loading, which no PyTorch file does.")
        damaged = archive.testzip()
        if damaged:
            raise ConversionError(f"{self.path}: {name!r} is damaged (checksum of {damaged!r}): fetch the file again.")
        file.seek(0)


class _Headers:
    """File that limits how much tarfile reads to find members, since headers can claim any size."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._left = MAX_HEADER_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise tarfile.ReadError("its headers are too large")
        self._left -= size
        return self._file.read(size)


class _Slice(io.RawIOBase):
    """A member of the archive as a seekable file."""

    def __init__(self, file: IO[bytes], start: int, size: int):
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = min(max(origin + offset, 0), self._size)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._position)
        part = memoryview(buffer)[: self._size - self._position]
        count: int = self._file.readinto(part)  # type: ignore[attr-defined]  # typing.IO lacks it, files have it
        self._position += count
        return count


def _check_yaml(text: bytes) -> None:
    """Refuse aliases of collections, deep nesting and long values, which NeMo never writes and an attack may use."""
    depth, scalars = 0, set()
    for event in yaml.parse(text, Loader=_YamlLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            scalars.discard(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            scalars.add(event.anchor)
        elif isinstance(event, yaml.AliasEvent) and event.anchor not in scalars:
            raise ConversionError(f"{CONFIG} repeats a part of itself (`*{event.anchor}`), which NeMo never writes.")
        if depth > _YAML_DEPTH or len(getattr(event, "value", "")) > _YAML_SCALAR:
            raise ConversionError(f"{CONFIG} is nested too deep, or holds a value too long.")


def _is_plain(value: Any) -> bool:
    """Whether a value is a dense CPU tensor of a supported dtype, with storage for every element."""
    if not isinstance(value, torch.Tensor) or type(value) not in (torch.Tensor, torch.nn.Parameter):
        return False
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_neg():
        return False
    return value.dtype in (*_FLOATS, torch.int64) and value.nbytes <= value.untyped_storage().nbytes()


def _tag_head_name(key: str) -> str:
    """Name of a tag head's tensor from a separate file, where the prefix may be missing."""
    return key if key.startswith("tag_classifier.") else f"tag_classifier.{key}"
