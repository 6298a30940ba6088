"""Sending folders to the Hugging Face hub."""

from __future__ import annotations

__all__ = ["check_login", "push"]

from pathlib import Path

from ...core.errors import CheckpointError, OptionError
from ...core.paths import is_hub_name


def check_login(repository: str) -> None:
    """Raise, before any work, where nothing could be sent to a repository afterwards.

    Parameters
    ----------
    repository : str
        Its name, ``"OWNER/NAME"``.

    Raises
    ------
    OptionError
        If it can be no such name.
    CheckpointError
        If nobody is logged in, or the hub does not answer.
    """
    if not is_hub_name(repository):
        raise OptionError(
            f"{repository!r} is no name of a repository on the hub, which is OWNER/NAME"
        )
    from huggingface_hub import whoami
    from huggingface_hub.errors import LocalTokenNotFoundError

    try:
        whoami()
    except LocalTokenNotFoundError as error:
        raise CheckpointError(
            f"nothing can be sent to {repository!r}: nobody is logged in to the hub here; "
            "`hf auth login` does that"
        ) from error
    except Exception as error:  # of whatever the network and the hub raise
        raise CheckpointError(
            f"nothing can be sent to {repository!r}: {_first_line(error)}"
        ) from error


def push(folder: Path, repository: str) -> str:
    """Send a folder to a repository on the hub, which is made where there is none.

    Parameters
    ----------
    folder : Path
        All of it is sent.
    repository : str
        Its name.

    Returns
    -------
    str
        Where it is to be seen.

    Raises
    ------
    CheckpointError
        If it could not be sent; the folder is as it was.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="thresher")
    try:
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository)
    except Exception as error:
        raise CheckpointError(
            f"{str(folder)!r} is whole, but was not sent to {repository!r}: {_first_line(error)}; "
            f"`hf upload {repository} {folder}` tries again"
        ) from error
    return f"{api.endpoint}/{repository}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
