"""Uploads to the Hub; what cannot end well is refused before the work begins."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HFValidationError,
    HTTPError,  # its HTTP library's
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

_LOG_IN = "check the name, and log in with `hf auth login` and a token that may write there"


def create_repository(name: str) -> str:
    """
    Make a model's repository, unless it is there. Whether others' may be written to shows only when files arrive.

    Args:
        name: `owner/name`, or `name` for one of the account that is logged in.

    Returns:
        `owner/name`.

    Raises:
        ValueError: if there can be no repository of this name.
        OSError: if the Hub cannot be asked, or refuses.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"{name!r} is no name of a Hub repository, such as owner/name: {error}") from error
    try:
        repository: str = HfApi().create_repo(name, exist_ok=True).repo_id
    except (HTTPError, OSError) as error:
        raise OSError(f"{name} cannot be written on the Hub: {_first_line(error)}; {_LOG_IN}.") from error
    return repository


def upload(folder: Path, repository: str) -> None:
    """
    Upload a finished folder.

    Args:
        folder: what to upload.
        repository: what [`create_repository`] returned.

    Raises:
        OSError: if it does not arrive; the folder stays, and the message says how to go on.
    """
    try:
        HfApi().upload_folder(repo_id=repository, folder_path=folder, commit_message="Convert from NeMo")
    except (HTTPError, OSError) as error:
        remedy = f"run `hf upload {repository} {folder}` to go on"
        raise OSError(f"{folder} is written, but not uploaded: {_first_line(error)}; {remedy}.") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
