"""
Read `.nemo` archives from strangers: nothing in them is executed and nothing is written to disk but one temporary file.

A `.nemo` is a tar, plain or gzip, of `model_config.yaml`, `model_weights.ckpt` and the tokenizer's files.
"""

import gzip
import posixpath
import re
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import torch
import yaml

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"

MAX_MEMBERS = 1000
MAX_TEXT_BYTES = 64 << 20  # configuration, tokenizer
MAX_WEIGHT_BYTES = 16 << 30
MAX_COMPRESSION = 200  # weights hardly shrink; a file that grows more than this when unpacked is an attack
_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, UnicodeError)
_WEIGHT_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message is one line that says why."""


class NemoArchive:
    """
    An open `.nemo` file.

    Args:
        path: the file.
        scratch: the folder for an unnamed temporary file, to which a compressed archive is unpacked; the system's own
            if not given.

    Raises:
        ConversionError: if it is no such archive, is cut off, or holds members that no honest archive has.
    """

    def __init__(self, path: str | Path, scratch: str | Path | None = None):
        self.path = Path(path)
        if not self.path.is_file():
            raise ConversionError(f"{self.path}: there is no such file.")
        try:
            self._tar = tarfile.open(fileobj=self._plain_tar(scratch), mode="r:")
            self._members = self._index()
        except _DAMAGE as error:
            raise ConversionError(f"{self.path}: not a .nemo archive, or a truncated one ({error}).") from error
        for required in (CONFIG, WEIGHTS):
            if required not in self._members:
                raise ConversionError(f"{self.path}: the archive has no {required}; is it a .nemo file?")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._tar.close()
        self._tar.fileobj.close()

    @property
    def names(self) -> list[str]:
        """Names of the members, without a leading `./`."""
        return list(self._members)

    def read(self, name: str) -> bytes:
        """
        One small member.

        Raises:
            ConversionError: if there is no such member, it is too large, or it is cut off.
        """
        member = self._member(name)
        if member.size > MAX_TEXT_BYTES:
            raise ConversionError(f"{self.path}: {name} has {member.size} bytes, more than the {MAX_TEXT_BYTES} allowed.")
        content = self._tar.extractfile(member).read()
        if len(content) != member.size:
            raise ConversionError(f"{self.path}: {name} is truncated.")
        return content

    def config(self) -> dict[str, Any]:
        """
        The model's configuration, read as plain data.

        Raises:
            ConversionError: if it is not YAML, asks for Python objects, or is not a mapping.
        """
        text = self.read(CONFIG)
        try:
            config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise ConversionError(f"{self.path}: {CONFIG} is not plain YAML ({reason[:200]}).") from error
        if not isinstance(config, dict):
            raise ConversionError(f"{self.path}: {CONFIG} is not a mapping.")
        return config

    def weights(self) -> dict[str, torch.Tensor]:
        """
        All tensors, by NeMo's names.

        Weights in other members (`*.ckpt`, `*.pt`, `*.pth`, `*.bin`), where tag heads may lie, are added.

        Raises:
            ConversionError: if a file of weights is not one of plain tensors, or two of them disagree.
        """
        others = [name for name in self.names if name.endswith(_WEIGHT_SUFFIXES) and name != WEIGHTS]
        weights: dict[str, torch.Tensor] = {}
        for name in [WEIGHTS, *others]:
            tensors = self._load_tensors(name)
            if name != WEIGHTS:
                tensors = {_tag_head_name(key): tensor for key, tensor in tensors.items()}
            repeated = sorted(weights.keys() & tensors.keys())
            if repeated:
                raise ConversionError(f"{self.path}: {name} holds {repeated[0]} a second time.")
            weights |= tensors
        return weights

    def _plain_tar(self, scratch: str | Path | None) -> IO[bytes]:
        """The archive without its compression, so that members can be reached in any order and sizes can be trusted."""
        file = self.path.open("rb")
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file
        limit = min(MAX_WEIGHT_BYTES, MAX_COMPRESSION * self.path.stat().st_size)
        unpacked = tempfile.TemporaryFile(dir=scratch)
        with file, gzip.open(self.path) as compressed:
            while block := compressed.read(1 << 20):
                unpacked.write(block)
                if unpacked.tell() > limit:
                    raise ConversionError(f"{self.path}: unpacks to more than {limit} bytes, which no honest archive does.")
        unpacked.seek(0)
        return unpacked

    def _index(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        for count, member in enumerate(self._tar):
            name = posixpath.normpath(member.name)
            if count >= MAX_MEMBERS:
                raise ConversionError(f"{self.path}: more than {MAX_MEMBERS} members.")
            if name.startswith(("/", "..")) or "\\" in name or re.match("[A-Za-z]:", name):
                raise ConversionError(f"{self.path}: member {member.name!r} points outside the archive.")
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise ConversionError(f"{self.path}: member {name!r} is a link, a device or a sparse file; only plain files are allowed.")
            limit = MAX_WEIGHT_BYTES if name.endswith(_WEIGHT_SUFFIXES) else MAX_TEXT_BYTES
            if member.size > limit:
                raise ConversionError(f"{self.path}: member {name!r} is too large ({member.size} bytes).")
            if name in members:
                raise ConversionError(f"{self.path}: member {name!r} occurs twice.")
            members[name] = member
        return members

    def _member(self, name: str) -> tarfile.TarInfo:
        try:
            return self._members[posixpath.normpath(name)]
        except KeyError:
            raise ConversionError(f"{self.path}: the archive has no {name}, which its configuration names.") from None

    def _load_tensors(self, name: str) -> dict[str, torch.Tensor]:
        member = self._member(name)
        with self._tar.extractfile(member) as file:
            try:
                entries = zipfile.ZipFile(file).infolist()
                file.seek(0)
                # PyTorch's zip is not compressed: entries that grow on reading are not PyTorch's.
                if sum(entry.file_size for entry in entries) > member.size:
                    raise ConversionError(f"{self.path}: {name} would grow on loading, which no PyTorch file does.")
                loaded = torch.load(file, map_location="cpu", weights_only=True)
            except ConversionError:
                raise
            except Exception as error:  # zip and torch raise many kinds, all of which mean the same here
                reason = " ".join(str(error).split())[:160]
                raise ConversionError(f"{self.path}: {name} does not hold plain tensors ({reason}).") from error
        if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
            loaded = loaded["state_dict"]
        if not isinstance(loaded, dict) or not loaded:
            raise ConversionError(f"{self.path}: {name} holds no weights.")
        tensors = {key: value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
        unreadable = [key for key in loaded if key not in tensors or not isinstance(key, str)]
        if unreadable:
            raise ConversionError(f"{self.path}: {name} holds {unreadable[0]!r}, which is not a tensor.")
        return tensors


def _tag_head_name(key: str) -> str:
    """Name of a tag head's tensor that lies in a file of its own, where the prefix may be missing."""
    return key if key.startswith("tag_classifier.") else f"tag_classifier.{key}"
