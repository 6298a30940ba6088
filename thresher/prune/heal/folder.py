"""Healing a pruned model folder into a new one."""

from __future__ import annotations

__all__ = ["heal_folder"]

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...core.device import device_named
from ...core.errors import CheckpointError, OptionError
from ...core.files import write_text
from ...core.machine import versions
from ...core.output import Output, check_apart
from ...core.records import restored
from ...parts.coverage import cover
from ...run.files.checkpoint import Checkpoint
from ...run.files.companions import RECORD_FILE
from ...run.files.digests import folder_digest
from ...run.files.export import write_dense
from ...run.files.recount import kept_in_folder
from ...run.files.writer import CheckpointWriter
from ...run.skeleton import Skeleton
from ...stream.ranks import by_first, is_first, written_by_first
from ...stream.units import find_units
from ..record import PruneRecord
from .record import HealRecord
from .session import HealOptions, Session, check_teacher
from .state import HealState
from .student import check_pruned, trained_parameters


def heal_folder(
    source: Path,
    teacher: Path,
    out: Path,
    read: Callable[[Any], list[Any]],
    text: str,
    options: HealOptions,
    device: str = "auto",
    overwrite: bool = False,
) -> HealRecord:
    """Heal a pruned folder into a new one, see :func:`~thresher.prune.heal.memory.heal`.

    A run that is killed goes on from its last evaluation when it is started again with the same
    arguments, with as much time as it had left then.

    Parameters
    ----------
    source : Path
        A folder with zeros, ours or stored dense, or one that is smaller than the teacher's.
    teacher : Path
        The dense model's folder.
    out : Path
        Folder to write; it appears only when it is complete.
    read : callable
        Returns samples to read for a model, see :func:`thresher.stream.samples.as_samples`.
    text : str
        Name of the text, for the record.
    options : HealOptions
        How to go about it.
    device : str, default "auto"
        Where both models run.
    overwrite : bool, default False
        Replace an output folder that Thresher wrote, and an unfinished run that differs.

    Returns
    -------
    HealRecord
        Also in ``out/thresher.json``, if the source has such a record.

    Raises
    ------
    ThresherError
        If a folder, an option or the text cannot be used; nothing has then been written but an
        unfinished run's own folder, beside `out`.
    """
    check_apart(source, out)
    pruned = _fitting_record(source)
    place = device_named(device)
    skeletons = [Skeleton(folder) for folder in (source, teacher)]
    check_teacher(*(skeleton.model for skeleton in skeletons))
    for skeleton in skeletons:
        _fill(skeleton, place)
    model, dense = (skeleton.model for skeleton in skeletons)
    check_pruned(model, dense)
    if pruned is not None:
        _warn_of_another(teacher, pruned.model)
    trained = _stored_names(skeletons[0])
    samples = read(model)
    mark = _fingerprint(source, teacher, samples, options, place)
    names = {"teacher": str(teacher), "text": text}
    if (done := _finished(out, mark)) is not None:
        return done
    with written_by_first(out, "heal") as output:
        state = by_first(lambda: _begun(output, mark, overwrite))
        session = Session(model, dense, samples, options, names, output.work, state, keep=True)
        with session.healed() as record:
            if is_first():
                _write(skeletons[0], trained, output, pruned, record)
        if is_first():
            output.publish(overwrite)
    return record


def _warn_of_another(teacher: Path, dense: str) -> None:
    """Warn where a folder was made of another model than the teacher, as far as names tell."""
    if Path(dense).is_dir() and not teacher.samefile(dense):
        warnings.warn(
            f"the record says that the model was made of {dense!r}, and {str(teacher)!r} is the "
            "teacher; a model learns best from the one that it was made of",
            stacklevel=3,
        )


def _finished(out: Path, mark: str) -> HealRecord | None:
    """Return the record of the very same run, if it has ended before."""
    try:
        held = PruneRecord.from_json((out / RECORD_FILE).read_text(encoding="utf-8")).healing
        return restored(HealRecord, held) if held.get("fingerprint") == mark else None
    except (OSError, ValueError, RecursionError):
        return None


def _fitting_record(folder: Path) -> PruneRecord | None:
    """Return the record of a folder, None if it has none.

    Raises
    ------
    CheckpointError
        If it is damaged, or counts other weights than there are.
    """
    file = folder / RECORD_FILE
    if not file.is_file():
        return None
    remedy = f"to heal the weights as they are, move {str(file)!r} away"
    try:
        record = PruneRecord.from_json(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{str(file)!r} is not a pruning record: {error}; {remedy}"
        ) from error
    found = kept_in_folder(folder, [layer.name for layer in record.layers])
    wrong = [each for each in record.layers if not each.fits(found.get(each.name, each.kept))]
    if wrong:
        first = wrong[0]
        raise CheckpointError(
            f"{str(file)!r} does not fit the weights: it counts {first.kept} kept weights in "
            f"{first.name!r}, which has {found[first.name]} (and {len(wrong) - 1} more layers "
            "differ): the model was trained or merged since, and zeros were lost. Prune it again, "
            f"or put the zeros back with thresher.hold(...).apply(); {remedy}"
        )
    return record


def _fill(skeleton: Skeleton, device: torch.device) -> None:
    """Give a model all its weights."""
    skeleton.load(skeleton.model, "")
    # Loaded one by one, modules that share a weight hold a parameter each.
    skeleton.model.tie_weights()  # type: ignore[operator]
    skeleton.model.to(device)


def _begun(output: Output, mark: str, overwrite: bool) -> HealState:
    """Return how far an earlier process has come, if it was the same run."""
    output.check_free(overwrite)
    state = HealState.load(output.work)
    if state is not None and state.fingerprint == mark:
        return state
    if state is not None and not overwrite:
        raise OptionError(
            f"{str(output.work)!r} holds an unfinished run with other options, text, models or "
            "versions; repeat those to resume it, delete it, or pass --overwrite"
        )
    output.restart()
    return HealState(mark)


def _fingerprint(
    source: Path, teacher: Path, samples: list[Any], options: HealOptions, device: torch.device
) -> str:
    digest = hashlib.sha256()
    for folder in (source, teacher):
        digest.update(folder_digest(folder).encode())
    for sample in samples:
        digest.update(sample["input_ids"].cpu().numpy().tobytes())
    chosen = (options.minutes, options.length, options.seed, options.precision, device.type)
    digest.update(repr([*chosen, versions()]).encode())
    return digest.hexdigest()


def _write(
    skeleton: Skeleton,
    trained: list[str],
    output: Output,
    pruned: PruneRecord | None,
    record: HealRecord,
) -> None:
    """Collect the folder: what was trained from memory, everything else as it was stored."""
    with skeleton.checkpoint.opened():
        supports = {name: _support(skeleton, name) for name in trained}
    dtypes = {name: skeleton.stored_dtype(name) for name in trained}
    for name, dtype in dtypes.items():
        parameter = skeleton.model.get_parameter(name)
        parameter.data = parameter.data.to(dtype)
    # Without zeros it is written as it was found, to load anywhere.
    stock = all(bool(support.all()) for support in supports.values())
    folder = output.work / "stored" if stock else output.made
    writer = CheckpointWriter(folder, skeleton.checkpoint.folder)
    units = find_units(skeleton.model, cover(skeleton.model).layers)
    for number, unit in enumerate(units):
        writer.add(number, *skeleton.outgoing(unit.name, supports))
    writer.add(len(units), *skeleton.outgoing("", supports))
    text = None if pruned is None else record.added_to(pruned).to_json()
    writer.finish(text)
    if stock:
        write_dense(Checkpoint(folder), output.made)
        if text is not None:
            write_text(output.made / RECORD_FILE, text)


def _support(skeleton: Skeleton, name: str) -> torch.Tensor:
    """Return which weights of a parameter are kept: a folder may keep one that is zero."""
    group = skeleton.names.groups[name]
    supports = {}
    for stored in group.stored:
        tensor, mask = skeleton.checkpoint.tensor_and_mask(stored)
        supports[stored] = tensor != 0 if mask is None else mask
    found = skeleton.names.forward(group, supports)[name]
    # A vector is stored whole.
    return found if found.dim() > 1 else torch.ones_like(found)


def _stored_names(skeleton: Skeleton) -> list[str]:
    """Return the names that what is trained is stored for: a shared weight has several."""
    trained = {id(parameter) for parameter in trained_parameters(skeleton.model).values()}
    found: dict[int, str] = {}
    for name, parameter in skeleton.model.named_parameters(remove_duplicate=False):
        if id(parameter) in trained and name in skeleton.names.groups:
            found.setdefault(id(parameter), name)
    return list(found.values())
