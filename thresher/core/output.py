"""Output folders: one process at a time writes one, and it appears whole or not at all."""

from __future__ import annotations

__all__ = [
    "COMPARISON",
    "Output",
    "check_apart",
    "check_free",
    "check_growing",
    "check_replaceable",
    "is_ours",
    "writing",
]

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import CheckpointError, OptionError, ThresherError
from .files import sync, write_error

#: Says what a work folder is for, so that only such folders are ever taken up or deleted.
_MARKER = "thresher-work.json"
_RECORD = "thresher.json"
#: What a folder of a comparison has its table in.
COMPARISON = "comparison.json"


class Output:
    """A folder that is being written, and the work folder beside it.

    Made by :func:`writing`. The work folder has a name that nobody guesses and a marker inside.

    Parameters
    ----------
    out : Path
        The folder to write.
    kind : str
        What is being done, such as ``"prune"``: remains of other work are left alone.

    Attributes
    ----------
    out : Path
        Absolute, links resolved.
    work : Path
        For whatever the work needs; deleted when it has ended.
    made : Path
        Inside `work`: what :meth:`publish` makes the output folder.
    """

    def __init__(self, out: Path, kind: str) -> None:
        self.out = out.resolve()
        self.kind = kind
        self.work = self._found() or self._started()
        self.made = self.work / "made"

    def restart(self) -> None:
        """Delete what an earlier process left in the work folder."""
        for path in self.work.iterdir():
            if path.name != _MARKER:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def check_free(self, replace: bool = False) -> None:
        """Raise unless the output folder may be written; see :func:`check_free`."""
        check_free(self.out, replace)

    def publish(self, replace: bool = False) -> None:
        """Make what was collected the output folder, in one step and for good.

        Parameters
        ----------
        replace : bool, default False
            As for :func:`check_free`.
        """
        self.check_free(replace)
        try:
            for path in (*self.made.rglob("*"), self.made):
                sync(path)
            if os.path.lexists(self.out):
                # Deleted with the work folder, once the new one stands in its place.
                os.replace(self.out, Path(tempfile.mkdtemp(dir=self.work)) / "replaced")
            os.rename(self.made, self.out)
            sync(self.out.parent)
        except OSError as error:
            raise write_error(self.out, error) from error

    def close(self) -> None:
        """Delete the work folder."""
        # The marker goes last, so that what is left of a deletion that was stopped is known.
        self.restart()
        shutil.rmtree(self.work)

    def _found(self) -> Path | None:
        """Return the work folder of an earlier process that was stopped."""
        kept = None
        # As many characters as `mkdtemp` puts there.
        names = f".{glob.escape(_stem(self.out))}.{'?' * 8}.thresher"
        for folder in sorted(self.out.parent.glob(names)):
            if _read(folder / _MARKER) == self._marker:
                kept = folder
            elif set(os.listdir(folder)) <= {_MARKER} and _read(folder / _MARKER) is None:
                # Its process ended before the marker was written: there is nothing in it.
                shutil.rmtree(folder)
        return kept

    def _started(self) -> Path:
        try:
            name = tempfile.mkdtemp(".thresher", f".{_stem(self.out)}.", self.out.parent)
            (Path(name) / _MARKER).write_text(json.dumps(self._marker), encoding="utf-8")
        except OSError as error:
            raise write_error(self.out, error) from error
        return Path(name)

    @property
    def _marker(self) -> dict[str, Any]:
        return {"out": self.out.name, "kind": self.kind}


@contextmanager
def writing(out: Path, kind: str, *, keep: bool = False) -> Iterator[Output]:
    """Hold an output folder for this process while the context lasts.

    Parameters
    ----------
    out : Path
        The folder to write; its parents are made.
    kind : str
        See :class:`Output`.
    keep : bool, default False
        Whether the work folder stays where the work fails, to go on with.

    Raises
    ------
    OptionError
        If another process holds it.
    CheckpointError
        If nothing can be written there.
    """
    out = out.resolve()
    if not out.name or out == Path.cwd():
        raise OptionError(
            f"{str(out)!r} cannot be written as a whole; name a folder inside it as the output"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from error
    with _locked(out):
        output = Output(out, kind)
        try:
            yield output
        except BaseException as error:
            if not keep or os.listdir(output.work) == [_MARKER]:
                output.close()
            if isinstance(error, OSError) and not isinstance(error, ThresherError):
                raise write_error(out, error) from error
            raise
        output.close()


def is_ours(folder: Path) -> bool:
    """Return whether a folder holds nothing, or a model that Thresher wrote."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    if not any(folder.iterdir()):
        return True
    config = _read(folder / "config.json")
    quantization = config.get("quantization_config") if isinstance(config, dict) else None
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    record = _read(folder / _RECORD)
    activations = isinstance(config, dict) and "thresher_activations" in config
    return (
        method == "thresher"
        or activations
        or (isinstance(record, dict) and {"recipe", "layers"} <= set(record))
    )


def check_replaceable(out: Path) -> None:
    """Raise if something stands where a folder is to be written that Thresher did not write.

    Raises
    ------
    OptionError
        Naming it.
    """
    if os.path.lexists(out) and not is_ours(out):
        raise OptionError(
            f"{str(out)!r} was not written by Thresher and is not overwritten; choose another "
            "output folder, or delete it yourself"
        )


def check_free(out: Path, replace: bool = False) -> None:
    """Raise unless an output folder may be written.

    Parameters
    ----------
    out : Path
        Folder to write.
    replace : bool, default False
        Whether a folder that Thresher wrote may stand there, to be replaced.

    Raises
    ------
    OptionError
        Naming what stands there.
    """
    if os.path.lexists(out) and not replace:
        raise OptionError(f"output folder {str(out)!r} exists; choose another")
    check_replaceable(out)


def check_growing(out: Path) -> None:
    """Raise unless an output folder may be written, or holds a comparison that may grow.

    Raises
    ------
    OptionError
        Naming what stands there.
    CheckpointError
        If nothing can be written where it would lie.
    """
    if not (out / COMPARISON).is_file():
        check_free(out)
    parent = next(each for each in out.absolute().parents if each.exists())
    try:
        # Permissions alone do not tell, of file systems that may only be read and of root.
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise write_error(out, error) from error


def check_apart(source: Path, out: Path) -> None:
    """Raise if a model would be written over itself, or into itself.

    Parameters
    ----------
    source : Path
        Folder that is read.
    out : Path
        Folder to write.

    Raises
    ------
    OptionError
        If one lies in the other.
    """
    read, written = source.resolve(), out.resolve()
    if read.is_relative_to(written) or written.is_relative_to(read):
        raise OptionError(
            f"output folder {str(out)!r} and the model's folder {str(source)!r} lie in one "
            "another, so that writing would change what is read; choose another output folder"
        )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the lock of an output folder, which ends with the process however that ends."""
    import fcntl

    file = out.with_name(f".{_stem(out)}.thresher-lock")
    while True:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise write_error(file, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise OptionError(
                f"another process is writing {str(out)!r}; wait until it has ended, or choose "
                "another output folder"
            ) from None
        except OSError as error:
            os.close(handle)
            raise CheckpointError(
                f"{str(file)!r} cannot be locked ({error}), so that two runs could write "
                f"{str(out)!r} at once; choose a folder on another file system"
            ) from error
        if _still_there(file, handle):
            break
        # Whoever held it deleted it meanwhile.
        os.close(handle)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(handle)


def _still_there(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(file), os.fstat(handle))
    except FileNotFoundError:
        return False


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _stem(out: Path) -> str:
    """Return what names beside an output folder begin with: its own, if there is room for it."""
    name = os.fsencode(out.name)
    return out.name if len(name) < 200 else hashlib.sha256(name).hexdigest()
