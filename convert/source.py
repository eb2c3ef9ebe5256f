"""Sources of `.nemo` files: this disk, Hub repositories and URLs; and the metadata of their model cards."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HFValidationError,
    HTTPError,  # its HTTP library's
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, validate_repo_id  # type: ignore[attr-defined]
from tqdm.auto import tqdm

from .nemo_archive import MAX_WEIGHT_BYTES, ConversionError

SUFFIX = ".nemo"
CARRIED = ("license", "license_name", "license_link", "language")  # copied from the source's card into ours
STALLED_S = 60.0  # seconds without data after which a download fails
_PAGE = re.compile(r"/([^/]+/[^/]+)/(?:blob|resolve)/([^/]+)/(.+)")


@dataclass(frozen=True)
class NemoSource:
    """
    A `.nemo` file on this disk.

    Args:
        path: path of the file.
        name: original name of the file.
        repository: its Hub repository, if it has one.
        card: licence and language from the repository's model card, see `CARRIED`.
    """

    path: Path
    name: str
    repository: str | None = None
    card: dict[str, Any] = field(default_factory=dict)


@contextmanager
def open_source(
    model: str | Path, *, revision: str | None = None, token: str | None = None, file: str | None = None
) -> Iterator[NemoSource]:
    """
    Find or download a `.nemo` file, which is on this disk within the context.

    Args:
        model: a file, a folder or Hub repository with one, or the URL of one. Files from the Hub stay in its cache,
            files from other URLs are deleted after the context.
        revision: branch, tag or commit of a repository.
        token: access token of the Hub, by default that of the logged-in account.
        file: name of the file, if a repository or folder has several.

    Yields:
        [`NemoSource`].

    Raises:
        ConversionError: if there is no such file, or several to choose from.
        OSError: if it cannot be downloaded.
    """
    name = str(model)
    if re.match(r"https?://", name):
        repository, place, path = _of_hub(name)
        if repository is not None:
            yield _from_hub(repository, revision or place, token, file or path)
            return
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            base = Path(unquote(urlsplit(name).path)).name
            target = Path(folder) / f"model{SUFFIX}"
            with target.open("wb") as content:
                download(name, content)
            yield NemoSource(target, base or name)
    elif Path(name).is_dir():
        files = sorted(str(path.relative_to(name)) for path in Path(name).rglob(f"*{SUFFIX}"))
        yield NemoSource(Path(name) / _choose(name, files, file), _choose(name, files, file))
    elif Path(name).exists() or Path(name).suffix == SUFFIX or not _is_repository(name):
        yield NemoSource(Path(name), Path(name).name)
    else:
        yield _from_hub(name, revision, token, file)


def _from_hub(repository: str, revision: str | None, token: str | None, file: str | None) -> NemoSource:
    try:
        info = HfApi(token=token).model_info(repository, revision=revision)
        files = sorted(entry.rfilename for entry in info.siblings or () if entry.rfilename.endswith(SUFFIX))
        chosen = _choose(repository, files, file)
        path = hf_hub_download(repository, chosen, revision=info.sha, token=token)
    except GatedRepoError as error:
        raise OSError(f"{repository}: its owner gives access on its page; then log in, `hf auth login`.") from error
    except RevisionNotFoundError as error:
        raise ConversionError(f"{repository} has no revision {revision!r}: give a branch, tag or commit.") from error
    except RepositoryNotFoundError as error:
        raise OSError(
            f"{repository}: there is no such file, and no such repository on the Hub (a private one: `hf auth login`)."
        ) from error
    except (OfflineModeIsEnabled, HTTPError, OSError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise OSError(f"{repository} cannot be fetched from the Hub: {reason}") from error
    said = {key: getattr(info.card_data, key, None) for key in CARRIED}
    return NemoSource(Path(path), chosen, repository, {key: value for key, value in said.items() if value})


def _choose(place: str, files: list[str], wanted: str | None) -> str:
    """Choose the only file, or the requested one."""
    if wanted is not None and wanted not in files:
        raise ConversionError(f"{place} has no file {wanted!r}; its {SUFFIX} files: {', '.join(files) or 'none'}.")
    if not files:
        raise ConversionError(f"{place} holds no {SUFFIX} file: there is nothing to convert.")
    if wanted is None and len(files) > 1:
        raise ConversionError(f"{place} holds {len(files)} {SUFFIX} files, choose one with --file: {', '.join(files)}.")
    return wanted or files[0]


def _of_hub(url: str) -> tuple[str | None, str | None, str | None]:
    """Repository, revision and file of a Hub URL; `None` for each if it is another URL."""
    parts = urlsplit(url)
    found = _PAGE.fullmatch(unquote(parts.path))
    if found is None or parts.netloc not in ("huggingface.co", urlsplit(constants.ENDPOINT).netloc):
        return None, None, None
    repository, revision, path = found.groups()
    return repository, revision, path


def _is_repository(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def download(url: str, file: IO[bytes]) -> None:
    """
    Download a URL into a file, with a progress bar.

    Raises:
        OSError: if the server cannot be reached or does not return a file, or the download is too large.
    """
    session: Any = get_session()
    try:
        with session.stream("GET", url, follow_redirects=True, timeout=STALLED_S) as response:
            if response.status_code != 200:
                raise OSError(f"the server answered {response.status_code}")
            size = int(response.headers.get("content-length", 0)) or None
            with tqdm(total=size, unit="B", unit_scale=True, desc="download", disable=None, leave=False) as progress:
                for block in response.iter_bytes():
                    progress.update(len(block))
                    if progress.n > MAX_WEIGHT_BYTES:
                        raise OSError(f"more than {MAX_WEIGHT_BYTES >> 30} GiB, it may have no end")
                    file.write(block)
    except Exception as error:  # its type depends on huggingface_hub's HTTP library
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise OSError(f"{url}: {reason}.") from error
