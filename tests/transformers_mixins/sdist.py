"""The test mixins of the installed Transformers, which only its source distribution holds."""

import functools
import importlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import types
from pathlib import Path

import pytest
import transformers
from transformers import testing_utils

# Their package is called `tests` at home, as is the folder of this very file: here it has a name of its own.
PACKAGE = "transformers_tests"
_TEST_FILE = re.compile(r"[^/]+/tests/((?:\w+/)*\w+\.py)")  # no dots but the last, hence no way out of the folder


class Unavailable(Exception):
    """The source distribution cannot be had; the message says why."""


def load(module: str) -> types.ModuleType:
    """
    Import a module of Transformers' tests.

    Args:
        module: its name, such as `"test_modeling_common"`.

    Returns:
        The module. Where it cannot be had the calling test file is skipped.
    """
    pytest.importorskip("parameterized", reason="Transformers' tests import the package parameterized")
    found = _find_tests()
    if isinstance(found, Unavailable):
        pytest.skip(str(found), allow_module_level=True)
    _install_package(found)
    return importlib.import_module(f"{PACKAGE}.{module}")


def markers() -> set[str]:
    """Names of the pytest markers in Transformers' tests and their tools."""
    found = _find_tests()
    files = [] if isinstance(found, Unavailable) else [*found.rglob("*.py"), Path(testing_utils.__file__)]
    return {name for file in files for name in re.findall(r"\bmark\.(\w+)", file.read_text(encoding="utf-8"))}


@functools.cache
def _find_tests() -> Path | Unavailable:
    """The folder of the test files, or why there is none: asked once, lest every test file wait for the network."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "citrinet-tests"
    folder = cache / f"transformers-{transformers.__version__}"
    try:
        if not folder.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                _fill(folder, Path(temporary))
    except (Unavailable, OSError, tarfile.TarError) as error:
        return Unavailable(f"the source of transformers {transformers.__version__} cannot be had: {error}")
    return folder / "tests"  # by this name Transformers looks for it


def _fill(folder: Path, temporary: Path) -> None:
    """Download, unpack, and only then rename, so that an interrupted run leaves nothing that looks complete."""
    tests = temporary / "unpacked" / "tests"
    _unpack_tests(_download(temporary), tests)
    (tests / "__init__.py").touch()  # the configuration test imports it
    sample = tests / "fixtures" / "sample_text.txt"  # the tokenizer tests open it and use nothing of it
    sample.parent.mkdir(exist_ok=True)
    sample.touch()
    try:
        tests.parent.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another run was faster
            raise


def _download(destination: Path) -> Path:
    """
    The source distribution, by pip, which knows the index, the proxy and the checksum.

    pip prepares the metadata of what it downloads: in an environment of its own, or, where it cannot make one, in this.
    """
    command = [sys.executable, "-m", "pip", "download", f"transformers=={transformers.__version__}", "--no-deps"]
    command += ["--no-binary", "transformers", "--dest", str(destination), "--quiet", "--retries", "1", "--no-input"]
    for options in ([], ["--no-build-isolation"]):
        run = subprocess.run(command + options, capture_output=True, text=True, check=False)
        archive = next(destination.glob("transformers-*.tar.gz"), None)
        if archive is not None:
            return archive
    raise Unavailable(f"pip: {(run.stderr.strip().splitlines() or ['no message'])[-1]}")


def _unpack_tests(archive: Path, destination: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            match = _TEST_FILE.fullmatch(member.name)
            if match and member.isfile():
                target = destination / match[1]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(member).read())
    if not destination.is_dir():
        raise Unavailable(f"{archive.name} holds no tests")


def _install_package(folder: Path) -> None:
    """Make `PACKAGE` importable from the folder, with stand-ins for what the source distribution leaves out."""
    if PACKAGE in sys.modules:
        return
    _stand_in(PACKAGE).__path__ = [str(folder)]
    if not (folder / "exporters").is_dir():
        _stand_in(f"{PACKAGE}.exporters")
        _stand_in(f"{PACKAGE}.exporters.test_export", ExportTesterMixin=object)
    if not (folder / "generation").is_dir():
        _stand_in(f"{PACKAGE}.generation")
        _stand_in(f"{PACKAGE}.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
    if not (folder / "utils").is_dir():
        _stand_in(f"{PACKAGE}.utils")
        _stand_in(f"{PACKAGE}.utils.test_configuration_utils", config_common_kwargs=_CONFIG_KWARGS)
    # It fetches sample images, videos and recordings, none of which these tests may need.
    _stand_in("fetch_hub_objects_for_ci", url_to_local_path=lambda url, *args, **kwargs: url)


def _stand_in(name: str, **content) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = []
    vars(module).update(content)
    sys.modules[name] = module
    return module


# What every configuration takes besides its own, at values other than the defaults.
_CONFIG_KWARGS = {
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["CitrinetForCTC"],
    "id2label": {0: "label"},
    "label2id": {"label": "0"},
    "problem_type": "regression",
}
