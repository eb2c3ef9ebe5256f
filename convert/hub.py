"""Upload to the Hub; the repository is created first, so that most errors show before the work starts."""

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
    Create a model repository, unless it exists. Whether an existing one is writable shows only at the upload.

    Args:
        name: `owner/name`, or `name` for a repository of the logged-in account.

    Returns:
        `owner/name`.

    Raises:
        ValueError: if the name is not valid.
        OSError: if the Hub cannot be reached, or refuses.
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
        folder: folder to upload.
        repository: result of [`create_repository`].

    Raises:
        OSError: if the upload fails; the folder is kept, and the message says how to continue.
    """
    try:
        HfApi().upload_folder(repo_id=repository, folder_path=folder, commit_message="Convert from NeMo")
    except (HTTPError, OSError) as error:
        remedy = f"run `hf upload {repository} {folder}` to go on"
        raise OSError(f"{folder} is written, but not uploaded: {_first_line(error)}; {remedy}.") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
