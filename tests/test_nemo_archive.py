"""
Hostile and damaged archives.

Every one must end in a `ConversionError` of one line, quickly, with nothing executed and nothing on disk changed.
"""

import copy
import gzip
import io
import json
import os
import pickle
import random
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from citrinet.convert import ConversionError, convert_nemo, nemo_archive, read_nemo
from nemo_files import (
    CONFIG,
    WEIGHTS,
    files_below,
    load_tensors,
    read_config,
    read_members,
    rewrite_nemo,
    save_tensors,
    write_members,
)

LIMIT = 20.0  # seconds for one conversion, on a slow machine under load


@pytest.fixture(scope="module")
def honest(nemo_dir) -> Path:
    """A small archive with pieces, adapters and everything else."""
    return nemo_dir / "options_unigram.nemo"


@pytest.fixture(scope="module")
def members(honest) -> dict[str, bytes]:
    return read_members(honest)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder to convert in; the working directory and the place of temporary files are watched as well."""
    for name in ("work", "temporary", "models"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path


def refuse(source: Path, message: str = ".", **options) -> str:
    """Convert what must not convert and return the message."""
    before = files_below(source.parent)
    start = time.monotonic()
    with pytest.raises(ConversionError, match=message) as caught:
        convert_nemo(source, source.parent / "models" / "out", **options)
    assert time.monotonic() - start < LIMIT
    text = str(caught.value)
    assert text and text.isprintable() and len(text) <= nemo_archive.MAX_MESSAGE
    assert files_below(source.parent) == before
    return text


def survive(source: Path) -> str:
    """Read what may or may not be readable; any other exception than `ConversionError` fails the test."""
    start = time.monotonic()
    try:
        read_nemo(source)
        return ""
    except ConversionError as error:
        assert str(error).isprintable()
        return str(error)
    finally:
        assert time.monotonic() - start < LIMIT


def test_the_honest_archive_converts(honest, folder):
    """Else all that follows would prove nothing."""
    convert_nemo(honest, folder / "models" / "out")


# --- Members ----------------------------------------------------------------------------------------------------------


def add_member(source: Path, target: Path, info: tarfile.TarInfo, data: bytes = b"") -> Path:
    """Copy an archive with one member more, in front, where nothing is checked yet."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        if info.isreg():
            info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
        for name, member in read_members(source).items():
            copied = tarfile.TarInfo(name)
            copied.size = len(member)
            tar.addfile(copied, io.BytesIO(member))
    target.write_bytes(content.getvalue())
    return target


@pytest.mark.parametrize(
    "name",
    [
        "../canary",
        "a/../../canary",
        "/tmp/canary",
        "//canary",
        "..",
        "..\\canary",
        "a\\b",
        "C:/canary",
        "c:canary",
        "./../x",
    ],
)
def test_names_that_point_outside(honest, folder, name):
    source = add_member(honest, folder / "model.nemo", tarfile.TarInfo(name), b"canary")
    refuse(source, "points outside")
    assert not list(folder.rglob("*canary*"))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.GNUTYPE_SPARSE],
)
@pytest.mark.parametrize("name", ["extra", "link.pt"])
def test_links_devices_and_sparse_files(honest, folder, kind, name):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    refuse(add_member(honest, folder / "model.nemo", info), "link, a device or a sparse file")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_needed_member_that_is_a_link(members, folder, name):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for other, data in members.items():
            info = tarfile.TarInfo(other)
            if other == name:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (folder / "model.nemo").write_bytes(content.getvalue())
    refuse(folder / "model.nemo", "link")


@pytest.mark.parametrize("number", ["1.0", "0.1", "0.0"])
def test_sparse_files_of_the_newer_kinds(honest, folder, number):
    info = tarfile.TarInfo("extra")
    major, minor = number.split(".")
    info.pax_headers = {"GNU.sparse.major": major, "GNU.sparse.minor": minor, "GNU.sparse.name": "extra"}
    info.pax_headers |= {
        "GNU.sparse.realsize": "99999999999",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": "99999999999",
    }
    for data in (b"9999999999\n", b"1\n0\n1\n".ljust(512, b"\0"), b"", b"x" * 700):
        refuse(add_member(honest, folder / "model.nemo", info, data))


@pytest.mark.parametrize("name", [CONFIG, f"./{WEIGHTS}", f"x/../{CONFIG}", f".//{CONFIG}"])
def test_members_that_occur_twice(honest, folder, name):
    refuse(add_member(honest, folder / "model.nemo", tarfile.TarInfo(name), b"{}"), "occurs twice")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_missing_members(honest, folder, name):
    source = rewrite_nemo(honest, folder / "model.nemo", members=lambda files: files.pop(name) and None)
    refuse(source, f"the archive has no {name}")


def test_too_many_members(honest, folder):
    source = rewrite_nemo(
        honest, folder / "model.nemo", members=lambda f: f.update({f"file{i}": b"" for i in range(1001)})
    )
    refuse(source, "more than 1000 members")


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, (1 << 63) - 1, (1 << 64) + 5, -1, -512, -1024, -(1 << 62)])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE])
def test_declared_sizes_that_are_absurd(folder, size, kind):
    source = folder / "model.nemo"
    source.write_bytes(header(CONFIG, size, kind) + bytes(10240))
    refuse(source)


@pytest.mark.parametrize("name", [CONFIG, "x_tokenizer.model", "unused.txt"])
def test_text_that_is_too_large(honest, folder, monkeypatch, name):
    monkeypatch.setattr(nemo_archive, "MAX_TEXT_BYTES", 100_000)
    source = rewrite_nemo(honest, folder / "model.nemo", members=lambda files: files.update({name: bytes(100_001)}))
    refuse(source, "too large")


def test_configuration_that_is_too_large(honest, folder):
    long = b"# " + bytes(nemo_archive.MAX_CONFIG_BYTES)
    source = rewrite_nemo(honest, folder / "model.nemo", members=lambda files: files.update({CONFIG: long}))
    refuse(source, "more than any model's")


@pytest.mark.slow
def test_header_bombs(honest, folder):
    """Extended headers are read into memory whole, and one may follow another."""
    source, content = folder / "model.nemo", gzip.decompress(honest.read_bytes())
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        source.write_bytes(gzip.compress(header("x", 64 << 20, kind) + bytes(64 << 20) + content, 1))
        refuse(source, "not a .nemo archive")
    chain = (header("x", 512, tarfile.GNUTYPE_LONGNAME) + b"a" * 512) * 3000
    source.write_bytes(chain + content)
    refuse(source, "not a .nemo archive")


def test_honest_extended_headers_are_read(members, folder):
    """Python writes one for a time stamp with a fraction."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mtime = len(data), 1700000000.25
            tar.addfile(info, io.BytesIO(data))
    (folder / "model.nemo").write_bytes(content.getvalue())
    read_nemo(folder / "model.nemo")


# --- Compression and truncation ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gzip_bomb(honest, folder):
    plain = gzip.decompress(honest.read_bytes())
    source = folder / "model.nemo"
    source.write_bytes(gzip.compress(plain.rstrip(b"\0") + bytes(200 << 20), 9))
    assert source.stat().st_size < 400_000
    refuse(source, "unpacks to more than")


def test_gzip_within_gzip(honest, folder):
    (folder / "model.nemo").write_bytes(gzip.compress(honest.read_bytes()))
    refuse(folder / "model.nemo", "not a .nemo archive")


def test_scratch_is_unnamed_and_goes_away(honest, folder, monkeypatch):
    made = []
    original = nemo_archive.tempfile.TemporaryFile
    monkeypatch.setattr(
        nemo_archive.tempfile,
        "TemporaryFile",
        lambda **kwargs: made.append((kwargs["dir"], original(**kwargs))) or made[-1][1],
    )
    convert_nemo(honest, folder / "models" / "deep" / "out")
    assert [Path(place).parent for place, _ in made] == [folder / "models"]  # on the output's disk
    assert not made[0][0].exists()
    for content in (honest.read_bytes()[:-1000], gzip.compress(bytes(1000))):
        (folder / "model.nemo").write_bytes(content)
        refuse(folder / "model.nemo")
    assert len(made) == 3 and all(file.closed for _, file in made)


@pytest.mark.parametrize("compress", [False, True])
def test_truncated_at_any_length(members, folder, compress):
    whole = write_members(folder / "whole.nemo", members, compress=compress).read_bytes()
    needed = len(whole) if compress else len(whole.rstrip(b"\0")) // 512 * 512  # the rest are the zeros of the end
    source = folder / "model.nemo"
    lengths = {0, 1, 2, 100, 511, 512, 513, 1024, 1536, needed - 513, needed - 512, needed - 1, needed}
    lengths |= set(range(0, needed, needed // 25)) | set(range(0, needed, 4096 * 5))
    for length in sorted(lengths - {len(whole)}):
        source.write_bytes(whole[:length])
        refuse(source)
    source.write_bytes(whole if compress else whole[: needed + 1024])
    read_nemo(source)


def test_truncated_between_members(members, folder):
    """All that is needed is there, but tag heads might have followed."""
    whole = write_members(folder / "model.nemo", members | {"tag_classifier.pt": b"x" * 5000}).read_bytes()
    cut = whole.index(b"./tag_classifier.pt")
    (folder / "model.nemo").write_bytes(whole[:cut])
    refuse(folder / "model.nemo", "truncated or damaged after")
    (folder / "model.nemo").write_bytes(whole[:cut] + b"garbage".ljust(512, b"x") + whole[cut + 512 :])
    refuse(folder / "model.nemo", "truncated or damaged after")


@pytest.mark.slow
@pytest.mark.parametrize("compress", [False, True])
def test_flipped_bytes(members, folder, compress):
    whole = write_members(folder / "model.nemo", members, compress=compress).read_bytes()
    generator = random.Random(0)
    outcomes = []
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 3, 30])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (folder / "model.nemo").write_bytes(damaged)
        outcomes.append(survive(folder / "model.nemo"))
    assert any(outcomes)
    assert not compress or all(outcomes)  # gzip knows its checksum


@pytest.mark.slow
def test_flipped_bytes_in_headers(members, folder):
    whole = write_members(folder / "model.nemo", members).read_bytes()
    starts = [index for index in range(0, len(whole), 512) if whole[index + 257 : index + 262] == b"ustar"]
    generator = random.Random(1)
    for _ in range(60):
        damaged = bytearray(whole)
        start = generator.choice(starts)
        field = generator.choice([range(0, 100), range(124, 136), range(156, 157), range(257, 265), range(345, 400)])
        damaged[start + generator.choice(field)] = generator.choice(
            [0, 0x80, 0xFF, 0x2F, 0x2E, generator.randrange(256)]
        )
        checksum = sum(damaged[start : start + 148]) + 8 * 32 + sum(damaged[start + 156 : start + 512])
        damaged[start + 148 : start + 156] = b"%06o\0 " % checksum
        (folder / "model.nemo").write_bytes(damaged)
        survive(folder / "model.nemo")


def test_a_flipped_weight_is_noticed(members, folder):
    """PyTorch itself does not look at the checksums in its files."""
    whole = bytearray(write_members(folder / "model.nemo", members).read_bytes())
    value = load_tensors(members[WEIGHTS])["decoder.decoder_layers.0.weight"].numpy().tobytes()[:64]
    assert whole.count(value) == 1
    whole[whole.index(value)] ^= 1
    (folder / "model.nemo").write_bytes(whole)
    refuse(folder / "model.nemo", "is damaged")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1f\x8b", b"PK\x03\x04" + bytes(600), b"{}" * 600, random.Random(5).randbytes(5000), bytes(10240)],
)
def test_not_an_archive(folder, content):
    (folder / "model.nemo").write_bytes(content)
    refuse(folder / "model.nemo", "model.nemo: ")


def test_no_file_at_all(folder):
    refuse(folder / "absent.nemo", "no such file")
    (folder / "directory.nemo").mkdir()
    refuse(folder / "directory.nemo", "holds no .nemo file")
    os.mkfifo(folder / "pipe.nemo")
    refuse(folder / "pipe.nemo", "no such file")


# --- Pickles ----------------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickles to a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("member", [WEIGHTS, "tag_classifier.pt", "other.bin", "a/b.pth", "more.ckpt"])
@pytest.mark.parametrize("command", ["system", "open", "eval"])
def test_pickles_with_code(honest, folder, member, command):
    canary = folder / "canary"
    function, argument = {
        "system": (os.system, f"touch {canary}"),
        "open": (open, (str(canary), "w")),
        "eval": (eval, f"open({str(canary)!r}, 'w')"),
    }[command]
    bomb = Bomb(function, *(argument if isinstance(argument, tuple) else (argument,)))
    content = save_tensors({"tag_classifier.heads.AGE.weight": bomb})
    source = rewrite_nemo(honest, folder / "model.nemo", members=lambda files: files.update({member: content}))
    refuse(source, "does not hold plain tensors")
    assert not canary.exists()
    torch.load(io.BytesIO(content), weights_only=False)
    assert canary.exists()  # the bomb was live


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_bare_pickles(honest, folder, protocol):
    canary = folder / "canary"
    for content in (
        pickle.dumps(Bomb(os.system, f"touch {canary}"), protocol=protocol),
        pickle.dumps({"a": [1.0]}, protocol=protocol),
    ):
        refuse(
            rewrite_nemo(honest, folder / "model.nemo", members=lambda f, c=content: f.update({WEIGHTS: c})),
            "plain tensors",
        )
    assert not canary.exists()


def test_legacy_torch_files(honest, folder):
    content = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, content, _use_new_zipfile_serialization=False)
    source = rewrite_nemo(honest, folder / "model.nemo", members=lambda f: f.update({WEIGHTS: content.getvalue()}))
    refuse(source, "plain tensors")


@pytest.mark.filterwarnings("ignore")
def test_torchscript(honest, folder):
    content = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), content)
    source = rewrite_nemo(honest, folder / "model.nemo", members=lambda f: f.update({WEIGHTS: content.getvalue()}))
    refuse(source, "plain tensors")


def repacked(content: bytes, change=lambda name, data: data, method=zipfile.ZIP_STORED) -> bytes:
    """A PyTorch file with its records changed."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return result.getvalue()


@pytest.mark.slow
def test_zip_bomb(honest, folder):
    bomb = repacked(save_tensors({"a": torch.zeros(50_000_000)}), method=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1_000_000
    source = rewrite_nemo(honest, folder / "model.nemo", members=lambda files: files.update({WEIGHTS: bomb}))
    refuse(source, "would grow on loading")


def test_records_of_other_sizes_than_claimed(honest, members, folder):
    for change in (lambda n, d: d[:-4] if "/data/" in n else d, lambda n, d: b"" if "/data/" in n else d):
        content = repacked(members[WEIGHTS], change)
        refuse(rewrite_nemo(honest, folder / "model.nemo", members=lambda f, c=content: f.update({WEIGHTS: c})))


@pytest.mark.slow
def test_flipped_bytes_in_the_pickle(honest, members, folder):
    generator = random.Random(2)

    def flip(name, data):
        if not name.endswith("data.pkl"):
            return data
        data = bytearray(data)
        for _ in range(generator.choice([1, 2, 10])):
            data[generator.randrange(len(data))] = generator.randrange(256)
        return bytes(data)

    outcomes = []
    for _ in range(100):
        content = repacked(members[WEIGHTS], flip)
        rewrite_nemo(honest, folder / "model.nemo", members=lambda f, c=content: f.update({WEIGHTS: c}))
        outcomes.append(survive(folder / "model.nemo"))
    assert any(outcomes)


# --- Tensors ----------------------------------------------------------------------------------------------------------

BIAS = "decoder.decoder_layers.0.bias"


def test_tensors_that_claim_terabytes(honest, folder):
    for size in ((1 << 40,), (1 << 20, 1 << 20)):
        huge = torch.zeros(1).expand(*size)
        source = rewrite_nemo(honest, folder / "model.nemo", weights=lambda w, h=huge: w.update({BIAS: h}))
        assert source.stat().st_size < 1_000_000
        refuse(source, f"{BIAS}.*no plain tensor")


def test_expanded_tensors_that_fit_the_configuration(honest, folder):
    """The configuration agrees with the claim, so only what is stored can tell."""
    filters = 1_000_000

    def change(config):
        config["encoder"]["jasper"][-1]["filters"] = filters

    def expand(weights):
        for key, tensor in weights.items():
            if key.startswith("encoder.encoder.4.") and tensor.dim():
                weights[key] = torch.zeros(1).expand(*(filters if n == 24 else n for n in tensor.shape))

    refuse(rewrite_nemo(honest, folder / "model.nemo", config=change, weights=expand), "no plain tensor")


def test_many_tensors_over_one_storage(honest, folder):
    shared = torch.zeros(20_000)
    source = rewrite_nemo(
        honest, folder / "model.nemo", weights=lambda w: w.update({f"a{i}": shared for i in range(1000)})
    )
    refuse(source, "claims larger tensors than it holds")


def sparse() -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([[0]]), torch.tensor([1.0]), (53,))


TENSORS = {
    "complex": lambda: torch.zeros(53, dtype=torch.complex64),
    "bool": lambda: torch.zeros(53, dtype=torch.bool),
    "bytes": lambda: torch.zeros(53, dtype=torch.uint8),
    "float8": lambda: torch.zeros(53).to(torch.float8_e4m3fn),
    "sparse": sparse,
    "compressed rows": lambda: torch.eye(53).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(53), 0.1, 0, torch.qint8),
    "meta": lambda: torch.zeros(53, device="meta"),
    "negated": lambda: torch._neg_view(torch.zeros(53)),
    "number": lambda: 1.0,
    "list": lambda: [0.0] * 53,
    "text": lambda: "bias",
    "none": lambda: None,
    "mapping": lambda: {"a": torch.zeros(53)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TENSORS)
def test_other_things_than_dense_floats(honest, folder, kind):
    source = rewrite_nemo(honest, folder / "model.nemo", weights=lambda w: w.update({BIAS: TENSORS[kind]()}))
    refuse(source, "plain tensor")


def test_whole_numbers_for_floats(honest, folder):
    source = rewrite_nemo(honest, folder / "model.nemo", weights=lambda w: w.update({BIAS: torch.zeros(53).long()}))
    refuse(source, "numbers of type torch.int64")


def test_parameters_are_tensors(honest, folder):
    source = rewrite_nemo(
        honest, folder / "model.nemo", weights=lambda w: w.update({BIAS: torch.nn.Parameter(w[BIAS])})
    )
    read_nemo(source)


@pytest.mark.parametrize("content", [{}, [], None, 3, "x", torch.zeros(3), {"state_dict": {}}, {3: torch.zeros(1)}])
def test_other_things_than_named_weights(honest, folder, content):
    source = rewrite_nemo(honest, folder / "model.nemo", members=lambda f: f.update({WEIGHTS: save_tensors(content)}))
    refuse(source, "no weights|plain tensor")


def test_weights_given_twice(honest, members, folder):
    heads = save_tensors({"tag_classifier.heads.AGE.bias": torch.zeros(2)})
    source = rewrite_nemo(honest, folder / "model.nemo", members=lambda f: f.update({"a.pt": heads, "b.pt": heads}))
    refuse(source, "a second time")


# --- Configuration ----------------------------------------------------------------------------------------------------


def with_config(honest, folder, text: str | bytes) -> Path:
    text = text if isinstance(text, bytes) else text.encode()
    return rewrite_nemo(honest, folder / "model.nemo", members=lambda files: files.update({CONFIG: text}))


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {canary}']",
        "!!python/object/apply:subprocess.check_call [[touch, '{canary}']]",
        "!!python/object/new:os.system ['touch {canary}']",
        "!!python/name:os.system",
        "!!python/module:antigravity",
        "!!python/tuple [1]",
        "!include /etc/passwd",
    ],
)
def test_yaml_tags(honest, members, folder, tag):
    text = members[CONFIG].decode() + f"\nextra: {tag.format(canary=folder / 'canary')}\n"
    refuse(with_config(honest, folder, text), "not plain YAML")
    assert not (folder / "canary").exists()


def alias_bomb(merge: bool) -> str:
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x, x]"]
    for i in range(1, 40):
        last = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} " + (f"{{<<: [{last}]}}" if merge else f"[{last}]"))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("place", ["extra", "encoder"])
def test_alias_bombs(honest, members, folder, merge, place):
    text = alias_bomb(merge)
    text += members[CONFIG].decode() if place == "extra" else "encoder: *a39\n"
    refuse(with_config(honest, folder, text), "repeats a part of itself")


def test_a_value_may_be_repeated(honest, members, folder):
    """As hand-written configurations do; only parts with parts of their own can grow."""
    text = (
        members[CONFIG]
        .decode()
        .replace("feat_in: 80", "feat_in: *mels", 1)
        .replace("features: 80", "features: &mels 80")
    )
    read_nemo(with_config(honest, folder, text))


def test_a_part_may_not_take_the_name_of_a_value(honest, folder):
    refuse(with_config(honest, folder, "a: &a 1\nb: &a [1]\nc: [*a, *a]\n"), "repeats a part")
    refuse(with_config(honest, folder, "a: &a [*a]\n"), "repeats a part")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 500 + "]" * 500,
        "a: " + "{a: " * 60 + "1" + "}" * 60,
        "\n".join("  " * depth + "a:" for depth in range(900)),
        "- " * 50_000 + "1",
        "? " * 50_000 + "1",
    ],
)
def test_deeply_nested_yaml(honest, folder, text):
    refuse(with_config(honest, folder, text), CONFIG)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "- 1",
        "a: b: c",
        "\x00",
        b"\xff\xfe\xfa",
        b"a: \xc3\x28",
        "a: !!int x",
        "a: !!bool x",
        "a: !!float x",
        "a: !!timestamp x",
        "a: 2001-99-99",
        "a: " + "9" * 5000,
        "{[a]: 1}",
        "{{a: 1}: 1}",
        "a: !!binary x",
        "a: *missing",
        "%YAML 9.9\n---\na: 1",
        "a: 1\n---\nb: 2",
        "a: 'unterminated",
        '"\\ud800": 1',
        "null: 1",
    ],
)
def test_odd_yaml(honest, folder, text):
    refuse(with_config(honest, folder, text))


def test_a_number_that_takes_forever(honest, folder):
    """To the base of sixty, in time quadratic in its length."""
    refuse(with_config(honest, folder, "a: " + ":".join(["59"] * 100_000)), "too long")


ODD_VALUES = [
    None,
    "x",
    [],
    [1],
    [[]],
    {},
    {"x": {}},
    0,
    -1,
    3.5,
    True,
    float("nan"),
    float("inf"),
    10**30,
    "\ud7ff\n",
    "${x}",
]


def places(config: dict, depth: int) -> list[tuple]:
    """Where a value stands in the configuration, to some depth, with the first and the last of every list."""
    found: list[tuple] = []
    items = config.items() if isinstance(config, dict) else [(0, config[0]), (-1, config[-1])] if config else []
    for name, value in items:
        found.append((name,))
        if depth > 1 and isinstance(value, (dict, list)):
            found += [(name, *rest) for rest in places(value, depth - 1)]
    return found


@pytest.mark.slow
def test_any_value_anywhere_in_the_configuration(members, folder, monkeypatch):
    """Values of wrong kinds at every place, four levels deep: refused or harmless."""
    weights = load_tensors(members[WEIGHTS])
    monkeypatch.setattr(torch, "load", lambda *_, **__: dict(weights))  # half of the time, for the same tensors
    unread = ("decoding", "optim", "train_ds", "validation_ds", "spec_augment", "tag_classifier")
    config = {name: value for name, value in read_config(members).items() if name not in unread}
    generator, outcomes = random.Random(3), []
    for place in places(config, 4):
        for value in generator.sample(ODD_VALUES, 5 if len(place) < 3 else 2):
            outcomes.append(survive_config(config, members, folder, place, value))
    assert sum(map(bool, outcomes)) > 50 and outcomes.count("") > 20


def survive_config(config, members, folder, place, value) -> str:
    config = copy.deepcopy(config)
    target = config
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value
    text = yaml.dump(config, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True)
    path = write_members(folder / "model.nemo", members | {CONFIG: text.encode()})
    return survive(path)


@pytest.mark.slow
def test_odd_tokens(members, folder):
    config = read_config(members)
    for token in ("", "x" * 10_000, "\n", "\x00", " ", "<blank>", "▁▁▁▁", "\U0010ffff", "\ufffe", "(?i)[", "ENTITY_"):
        survive_config(config, members, folder, ("decoder", "vocabulary", 7), token)
    assert "is no token" in survive_config(config, members, folder, ("decoder", "vocabulary", 7), "x" * 10_000)


# --- Tokenizer and label map ------------------------------------------------------------------------------------------


def with_tokenizer(members: dict[str, bytes], folder: Path, content: bytes) -> Path:
    name = next(name for name in members if name.endswith("tokenizer.model"))
    return write_members(folder / "model.nemo", members | {name: content})


def tokenizer_of(members: dict[str, bytes]) -> bytes:
    return next(content for name, content in members.items() if name.endswith("tokenizer.model"))


@pytest.mark.slow
def test_hostile_tokenizers(members, folder):
    honest = tokenizer_of(members)
    for content in (
        b"",
        b"\x00",
        random.Random(6).randbytes(10_000),
        b"\x0a" * 5000,
        honest[: len(honest) // 2],
        honest[:-1],
        b"x" + honest,
    ):
        refuse(with_tokenizer(members, folder, content), "tokenizer")


def test_a_huge_tokenizer(members, folder, monkeypatch):
    monkeypatch.setattr(nemo_archive, "MAX_TEXT_BYTES", 1 << 20)
    refuse(with_tokenizer(members, folder, bytes(2 << 20)), "too large")


@pytest.mark.slow
def test_flipped_bytes_in_the_tokenizer(members, folder):
    honest, generator = tokenizer_of(members), random.Random(4)
    outcomes = []
    for _ in range(60):
        damaged = bytearray(honest)
        for _ in range(generator.choice([1, 5, 50])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        outcomes.append(survive(with_tokenizer(members, folder, bytes(damaged))))
    assert any(outcomes)


def test_a_tokenizer_path_that_points_elsewhere(honest, folder):
    (folder / "secret.model").write_bytes(b"secret")
    for path in ("../secret.model", str(folder / "secret.model"), "nemo:../secret.model", ".", "nemo:", "\0"):

        def change(config, path=path):
            config["tokenizer"]["model_path"] = path

        source = rewrite_nemo(honest, folder / "model.nemo", config=change)
        refuse(source, "the archive has no|names no SentencePiece model")


OTHER_LABELS = {"DIALECT": ["NONE", "N", "O", "S"], "GENDER": ["NONE", "F", "M"]}


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "nonsense", "3", "[]", "null", "[" * 100_000, '{"AGE": ["NONE"]}', "{}"])
def test_files_that_are_no_label_map(nemo_dir, folder, content):
    (folder / "model.nemo").write_bytes((nemo_dir / "zh_small.nemo").read_bytes())
    (folder / "labels.json").write_text(content)
    refuse(folder / "model.nemo", "labels.json", tag_labels=folder / "labels.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (3, "AGE should be"),
        (None, "AGE should be"),
        ("NONE", "AGE should be"),
        ([1, 2, 3, 4, 5], "AGE should be"),
        ([["a"]], "AGE should be"),
        (["", "a", "b", "c", "d"], "AGE should be"),
        ({"0": "NONE", "2": "A"}, "AGE should be"),
        ({"a": "NONE"}, "AGE should be"),
        (["NONE", "NONE", "A", "B", "C"], "AGE names a label twice"),
        ({}, "has 5 outputs but 0 labels"),
        (["NONE", "A", "B", "C", "D", "E"], "has 5 outputs but 6 labels"),
    ],
)
def test_label_maps_of_other_shapes(nemo_dir, folder, labels, message):
    (folder / "model.nemo").write_bytes((nemo_dir / "zh_small.nemo").read_bytes())
    (folder / "labels.json").write_text(json.dumps(OTHER_LABELS | {"AGE": labels}))
    refuse(folder / "model.nemo", message, tag_labels=folder / "labels.json")


def test_label_maps_that_are_no_text(nemo_dir, folder):
    source = folder / "model.nemo"
    source.write_bytes((nemo_dir / "zh_small.nemo").read_bytes())
    (folder / "labels.json").write_bytes(b"\xff\xfe" + bytes(100))
    refuse(source, "labels.json", tag_labels=folder / "labels.json")
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        read_nemo(source, tag_labels=folder / "absent.json")


@pytest.mark.slow
def test_stated_labels_of_other_shapes(nemo_dir, folder):
    members = read_members(nemo_dir / "zh_small.nemo")
    config = read_config(members)
    for value in (3, "x", [], ["NONE"], {"0": "NONE"}, [[1]]):
        assert "AGE" in survive_config(config, members, folder, ("tag_classifier", "categories", "AGE"), value)


# --- Messages ---------------------------------------------------------------------------------------------------------


def test_a_message_is_one_short_printable_line():
    error = ConversionError("first\nsecond\t\x1b[31m\u202e" + "x" * 10_000)
    assert str(error).startswith("first second ?[31m?xxx") and str(error).endswith(" ...")
    assert len(str(error)) == nemo_archive.MAX_MESSAGE
    assert json.loads(json.dumps(str(error))) == str(error)


def test_programming_errors_are_not_hidden(honest, monkeypatch):
    """Only parsers of the file's own bytes may fail in any way; ours must not."""
    monkeypatch.setattr("citrinet.convert.nemo_to_hf.count_parameters", lambda model: {}["bug"])
    with pytest.raises(KeyError, match="bug"):
        read_nemo(honest)


def test_central_directory_that_lies(honest, members, folder):
    """Python's view of a zip and PyTorch's differ where there are two; neither may be fooled."""
    bomb = repacked(save_tensors({"a": torch.zeros(5_000_000)}), method=zipfile.ZIP_DEFLATED)
    for content in (members[WEIGHTS] + bomb, bomb + members[WEIGHTS], bomb + struct.pack("<H", 0) * 9):
        source = rewrite_nemo(honest, folder / "model.nemo", members=lambda f, c=content: f.update({WEIGHTS: c}))
        survive(source)
