"""Pruning a model folder unit by unit, without ever holding the model in memory."""

from __future__ import annotations

__all__ = ["DiskOptions", "peak_memory", "prune_folder"]

import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.errors import CheckpointError, DataError, OptionError
from ..core.options import check_choice
from ..core.progress import progress_bar
from ..parts.coverage import cover
from ..parts.moments import forward
from ..run.files.companions import RECORD_FILE
from ..run.files.writer import CheckpointWriter
from ..run.skeleton import Skeleton
from ..stream.precision import Precision
from ..stream.samples import check_windows
from ..stream.source import Folder
from ..stream.state import RunState
from ..stream.stream import Stream, Visit
from ..stream.units import find_units
from .layerwise import UnitPruner, merge_masks
from .memory import gradients_of, in_use, method_name, needed_moments, new_record
from .recipe import Recipe
from .record import LayerRecord, PruneRecord, versions

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class DiskOptions:
    """How to go about pruning a folder.

    Parameters
    ----------
    dtype : torch.dtype, optional
        Convert weights to it; by default they stay as stored.
    include, exclude : sequence of str
        Shell patterns of layer names, see :func:`~thresher.parts.coverage.find_layers`.
    unseen : {"magnitude", "dense"}, default "magnitude"
        What becomes of layers that the data never reaches.
    precision : torch.dtype, optional
        Of forward passes; by default that of the weights where the processor multiplies it at
        full speed, otherwise float32.
    spill : bool, default False
        Keep hidden states on disk instead of in memory.
    overwrite : bool, default False
        Replace an output folder that exists, and start anew where an unfinished run differs.
    progress : bool, default True
        Show a progress bar on a terminal.
    """

    dtype: torch.dtype | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    unseen: str = "magnitude"
    precision: torch.dtype | None = None
    spill: bool = False
    overwrite: bool = False
    progress: bool = True


def prune_folder(
    source: Path,
    out: Path,
    recipe: Recipe,
    windows: torch.Tensor | None,
    options: DiskOptions = DiskOptions(),
    calibration: dict[str, Any] | None = None,
) -> PruneRecord:
    """Prune a Hugging Face folder into a new one, reading and writing one block at a time.

    A run that is killed goes on from its last finished unit when it is started again with
    the same arguments, and ends with the same bytes.

    Parameters
    ----------
    source : Path
        Folder with config.json and safetensors, dense or already sparse.
    out : Path
        Folder to write; it appears only when it is complete.
    recipe : Recipe
        How to prune.
    windows : Tensor of shape (windows, length), int64, or None
        Token ids to calibrate on; None for recipes that look at no data.
    options : DiskOptions
        How to go about it.
    calibration : dict, optional
        Description of the windows, for the record.

    Returns
    -------
    PruneRecord
        Also written to ``out/thresher.json``.

    Raises
    ------
    ThresherError
        If the folder, an option or the data cannot be used; nothing has then been written
        but the unfinished run's own folder, ``OUT.partial``.
    """
    return _DiskRun(Path(source), Path(out), recipe, windows, options, calibration or {}).execute()


class _DiskRun:
    def __init__(
        self,
        source: Path,
        out: Path,
        recipe: Recipe,
        windows: torch.Tensor | None,
        options: DiskOptions,
        calibration: dict[str, Any],
    ) -> None:
        check_choice("unseen", options.unseen, ("magnitude", "dense"))
        needs = needed_moments(recipe)
        if needs and (windows is None or not len(windows)):
            raise DataError(f"{method_name(recipe)} needs calibration text")
        self.out, self.recipe, self.options = out, recipe, options
        self.folder = source
        self.skeleton = Skeleton(source, options.dtype)
        self.coverage = cover(self.skeleton.model, include=options.include, exclude=options.exclude)
        self.samples = []
        if needs and windows is not None:
            check_windows(self.skeleton.model, windows)
            self.samples = [{"input_ids": window.unsqueeze(0)} for window in windows]
        self.precision = self._precision()
        self.source = Folder(self.skeleton, self.precision)
        self.work = out.with_name(out.name + ".partial")
        self.fingerprint = self._fingerprint(windows)
        self.record = new_record(str(source), recipe)
        self.record.fingerprint = self.fingerprint
        if needs:
            self.record.calibration = calibration

    def execute(self) -> PruneRecord:
        if self.out.exists() and not self.options.overwrite:
            return self._finished()
        started = time.perf_counter()
        state = self._resume_state()
        writer = CheckpointWriter(self.work, self.folder, self.options.dtype)
        for index in range(state.next):
            self.skeleton.overlay(writer.shard(index))
        with torch.no_grad():
            stream = self._stream(state)
            left = len(stream.units) - state.next
            with progress_bar(left, self.options.progress) as advance:
                pruner = UnitPruner(
                    stream,
                    self.coverage.layers,
                    self.recipe,
                    gradients=self.gradients,
                    unseen=self.options.unseen,
                    stored=self.precision.stored,
                    progress=advance,
                )
                self._prune(stream, pruner, writer, state)
        writer.add(len(stream.units), *self._stored(self.skeleton.outgoing("", {})))
        self.record.layers = [LayerRecord(**layer) for layer in state.layers]
        self.record.unseen = state.unseen
        self.record.coverage = self.coverage.summary()
        self.record.timings = {**pruner.timings, "total": time.perf_counter() - started}
        self.record.peak_bytes = peak_memory()
        self._publish(writer)
        return self.record

    def _finished(self) -> PruneRecord:
        """Return the record of the very same run, which has ended before.

        Raises
        ------
        OptionError
            If something else stands where the output is to be.
        """
        file = self.out / RECORD_FILE
        try:
            record = PruneRecord.from_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            record = None
        if record is None or record.fingerprint != self.fingerprint:
            raise OptionError(
                f"output folder {str(self.out)!r} exists, and is not of this run; choose another, "
                "or overwrite it (--overwrite)"
            )
        return record

    def _stream(self, state: RunState) -> Stream:
        layers = in_use(self.source, self.coverage.layers, self.samples)
        self.coverage.layers = layers
        self.gradients = gradients_of(self.source, layers, self.recipe, self.samples)
        stream = Stream(
            self.source,
            find_units(self.skeleton.model, layers),
            self.samples if forward(needed_moments(self.recipe)) else [],
            precision=self.precision,
            spill=self.work / "states" if self.options.spill else None,
            order=state.order,
        )
        state.units, state.whole = stream.order.units, sorted(stream.order.whole)
        return stream

    def _prune(
        self, stream: Stream, pruner: UnitPruner, writer: CheckpointWriter, state: RunState
    ) -> None:
        if not state.counts:
            state.counts = pruner.counts()
            state.save(self.work)
        with closing(stream.visits(state.next)) as visits:
            for visit in visits:
                masks, records = pruner.prune(visit, state.counts)
                self._write(visit, masks, writer)
                state.layers += [dataclasses.asdict(record) for record in records]
                state.unseen, pruner.idle = state.unseen + pruner.idle, []
                state.next = visit.index + 1
                state.save(self.work)

    def _write(
        self, visit: Visit, masks: dict[str, torch.Tensor], writer: CheckpointWriter
    ) -> None:
        by_parameter = merge_masks(visit.unit.layers, masks)
        writer.add(
            visit.index, *self._stored(self.skeleton.outgoing(visit.unit.name, by_parameter))
        )
        # A unit that is run again, or a tied weight that is loaded again, is the pruned one.
        self.skeleton.overlay(writer.shard(visit.index))

    def _stored(
        self, outgoing: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return tensors in the dtype to store, where they were held in a longer one."""
        tensors, masks = outgoing
        if not self.precision.widens:
            return tensors, masks
        checkpoint = self.skeleton.checkpoint
        with checkpoint.opened():
            found = {}
            for name, tensor in tensors.items():
                dtype = self.skeleton.cast(checkpoint.outline(name)).dtype
                found[name] = tensor.to(dtype)
        return found, masks

    def _precision(self) -> Precision:
        layer = self.coverage.layers[0]
        checkpoint = self.skeleton.checkpoint
        with checkpoint.opened():
            name = next(iter(self.skeleton.names.groups[layer.parameter].stored))
            stored = self.skeleton.cast(checkpoint.outline(name)).dtype
        return Precision.natural(stored, _CPU, self.options.precision)

    def _publish(self, writer: CheckpointWriter) -> None:
        shutil.rmtree(self.work / "states", ignore_errors=True)
        writer.finish(self.record.to_json())
        RunState.remove(self.work)
        if self.out.exists():
            shutil.rmtree(self.out)
        os.replace(self.work, self.out)

    def _fingerprint(self, windows: torch.Tensor | None) -> str:
        """Identify the run, so that another one's remains are not taken up."""
        digest = hashlib.sha256()
        digest.update((self.folder / "config.json").read_bytes())
        for file in sorted(self.folder.glob("*.safetensors")):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
        if windows is not None:
            digest.update(windows.contiguous().numpy().tobytes())
        options = self.options
        chosen = (options.dtype, options.include, options.exclude, options.unseen)
        digest.update(repr([self.recipe, *chosen, self.precision, versions()]).encode())
        return digest.hexdigest()

    def _resume_state(self) -> RunState:
        fresh = RunState(self.fingerprint)
        if not self.work.exists():
            return fresh
        if RunState.is_in(self.work):
            state = RunState.load(self.work)
            if state.fingerprint == self.fingerprint:
                return state
            if not self.options.overwrite:
                raise CheckpointError(
                    f"{str(self.work)!r} holds an unfinished run with other options, data or "
                    "versions; repeat those to resume it, delete it, or pass --overwrite"
                )
        shutil.rmtree(self.work)
        return fresh


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
