"""Pruning a model folder unit by unit, without ever holding the model in memory."""

from __future__ import annotations

__all__ = ["DiskOptions", "peak_memory", "prune_folder"]

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.device import device_named
from ..core.errors import CheckpointError, DataError, OptionError, ThresherError
from ..core.machine import versions
from ..core.options import check_choice
from ..core.output import Output, check_apart
from ..core.progress import progress_bar
from ..parts.activations.attached import PRUNE_FIRST
from ..parts.coverage import cover
from ..parts.limits import check_windows
from ..parts.moments import Cross, forward
from ..run.files.activations import check_dense_folder
from ..run.files.companions import RECORD_FILE
from ..run.files.digests import file_digest, folder_digest
from ..run.files.writer import CheckpointWriter, shard_file
from ..run.skeleton import Skeleton
from ..stream.precision import Precision
from ..stream.ranks import (
    by_first,
    check_agreement,
    check_same_samples,
    is_first,
    meet,
    rank,
    share_of,
    written_by_first,
)
from ..stream.source import Folder
from ..stream.state import RunState
from ..stream.stream import Stream
from ..stream.units import find_units
from ..stream.uses import find_uses
from ..stream.visit import Visit
from .cuts import Cut, merge_masks
from .layerwise import UnitPruner
from .memory import gradients_of, method_name, needed_moments, new_record
from .recipe import Recipe
from .record import LayerRecord, PruneRecord


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
    device : str, default "auto"
        Where the model runs and its weights are pruned, ``"cpu"`` or ``"cuda:0"``; by default the
        first CUDA device, or the CPU where there is none.
    overwrite : bool, default False
        Replace an output folder that exists, and start anew where an unfinished run differs.
    progress : bool, default True
        Show a progress bar on a terminal, and write a line for every block elsewhere.
    """

    dtype: torch.dtype | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    unseen: str = "magnitude"
    precision: torch.dtype | None = None
    spill: bool = False
    device: str = "auto"
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
    the same arguments, and ends with the same bytes. Where ``torch.distributed`` is initialised
    the windows are shared out over its processes; the first one writes, where all can read.

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
        If the folder, an option or the data cannot be used, or another process writes `out`;
        nothing has then been written but an unfinished run's own folder, beside `out`.
    """
    run = DiskRun(Path(source), Path(out), recipe, windows, options, calibration or {})
    with written_by_first(Path(out), "prune") as output:
        return run.execute(output)


class DiskRun:
    """A run of :func:`prune_folder`, for callers that hold the output folder for longer.

    Parameters
    ----------
    source, out, recipe, windows, options, calibration
        See :func:`prune_folder`.
    curve : sequence of float, optional
        Densities to cut the model to besides, from the same moments; see :meth:`cut`. A run
        that is gone on with has those that it was begun with.
    """

    def __init__(
        self,
        source: Path,
        out: Path,
        recipe: Recipe,
        windows: torch.Tensor | None,
        options: DiskOptions,
        calibration: dict[str, Any],
        curve: Sequence[float] = (),
    ) -> None:
        check_choice("unseen", options.unseen, ("magnitude", "dense"))
        check_apart(source, out)
        device = device_named(options.device)
        needs = needed_moments(recipe)
        if needs and (windows is None or not len(windows)):
            raise DataError(f"{method_name(recipe)} needs calibration text")
        self.recipe, self.options, self.curve = recipe, options, tuple(curve)
        self.folder = source
        check_dense_folder(source, PRUNE_FIRST)
        self.skeleton = Skeleton(source, options.dtype)
        self.coverage = cover(self.skeleton.model, include=options.include, exclude=options.exclude)
        self.samples = []
        if needs and windows is not None:
            check_windows(self.skeleton.model, windows)
            self.samples = [{"input_ids": window.unsqueeze(0).to(device)} for window in windows]
        self.precision = self._precision(device)
        self.source = Folder(self.skeleton, self.precision, device)
        self.fingerprint = self._fingerprint(windows)
        self.record = new_record(str(source), recipe, device)
        self.record.fingerprint = self.fingerprint
        if needs:
            self.record.calibration = calibration

    def execute(self, output: Output) -> PruneRecord:
        """Prune, or go on where an earlier process was stopped, or find that one had finished.

        Parameters
        ----------
        output : Output
            Held by the caller; its work folder is then left for the caller's own work.
        """
        check_same_samples(self.samples)
        check_agreement(self.fingerprint, "the model, an option or a version")
        state, finished = by_first(lambda: self._begun(output))
        if finished is not None:
            return finished
        self.curve = tuple(state.curve)
        self._earlier, self._started = dict(state.timings), time.perf_counter()
        writer = CheckpointWriter(output.made, self.folder, self.options.dtype)
        for index in range(state.next):
            self.skeleton.overlay(writer.shard(index))
        with torch.no_grad():
            stream = self._stream(state, output)
            left = len(stream.units) - state.next
            show = self.options.progress and is_first()
            with progress_bar(left, show, lines=True) as advance:
                pruner = UnitPruner(
                    stream,
                    self.coverage.layers,
                    self.recipe,
                    gradients=self.gradients,
                    unseen=self.options.unseen,
                    stored=self._dtypes(),
                    progress=advance,
                )
                self._prune(stream, pruner, writer, state, output)
        self.record.layers = [LayerRecord(**layer) for layer in state.layers]
        self.record.unseen = state.unseen
        if is_first():
            self.record.warn_of_revived()
        self.record.coverage = self.coverage.summary()
        self._count(pruner, state)
        self.record.timings, self.record.peak_bytes = state.timings, state.peak_bytes
        # The others may still read what is about to be moved.
        meet()
        if is_first():
            writer.add(len(stream.units), *self._stored(self.skeleton.outgoing("", {})))
            writer.finish(self.record.to_json())
            state.published = True
            state.save(output.work)
            output.publish(self.options.overwrite)
        return self.record

    def _begun(self, output: Output) -> tuple[RunState, PruneRecord | None]:
        """Return how far an earlier process has come, and its record if it has ended."""
        state = self._resume_state(output)
        if state.published and output.made.exists():
            output.publish(self.options.overwrite)
        if state.published or (output.out.exists() and not self.options.overwrite):
            return state, self._finished(output)
        output.check_free(self.options.overwrite)
        return state, None

    @staticmethod
    def cut(output: Output, density: float) -> Path:
        """Return the folder of weights that were cut to another density; it has nothing else."""
        return output.work / f"density-{density:g}"

    def _finished(self, output: Output) -> PruneRecord:
        """Return the record of the very same run, which has ended before.

        Raises
        ------
        OptionError
            If something else stands where the output is to be.
        """
        file = output.out / RECORD_FILE
        try:
            record = PruneRecord.from_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            record = None
        if record is None or record.fingerprint != self.fingerprint:
            raise OptionError(
                f"output folder {str(output.out)!r} exists, and is not of this run; choose "
                "another, or overwrite it (--overwrite)"
            )
        return record

    def _stream(self, state: RunState, output: Output) -> Stream:
        try:
            return self._begun_stream(state, output)
        except ThresherError:
            raise
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(
                f"{type(self.skeleton.model).__name__} does not run on token ids alone: {error}; "
                "prune it in memory, with thresher.prune(model, ..., data=...)"
            ) from error

    def _begun_stream(self, state: RunState, output: Output) -> Stream:
        find_uses(self.source, self.coverage, self.samples)
        layers = self.coverage.layers
        # Of a run that is gone on with the budget has been consulted.
        needs = self.recipe.needs if state.counts else needed_moments(self.recipe)
        self.gradients = gradients_of(
            self.source, layers, needs, self.samples, progress=self.options.progress, lines=True
        )
        stream = Stream(
            self.source,
            find_units(self.skeleton.model, layers),
            share_of(self.samples) if forward(needed_moments(self.recipe)) else [],
            precision=self.precision,
            spill=output.work / f"states-{rank()}" if self.options.spill else None,
            dense=Cross in self.recipe.needs,
            attention=self.recipe.tokens.by_attention,
            scratch=output.work,
            order=state.order,
        )
        state.units, state.whole = stream.order.units, sorted(stream.order.whole)
        return stream

    def _prune(
        self,
        stream: Stream,
        pruner: UnitPruner,
        writer: CheckpointWriter,
        state: RunState,
        output: Output,
    ) -> None:
        if not state.counts:
            state.counts = pruner.counts([self.recipe.target, *self.curve])
            if is_first():
                state.save(output.work)
        counts, *others = state.counts
        cuts = [Cut(each) for each in others]
        with closing(stream.visits(state.next)) as visits:
            for visit in visits:
                masks, records = pruner.prune(visit, counts, cuts)
                if is_first():
                    self._write_cuts(visit, cuts, output)
                    self._write(visit, masks, writer)
                meet()
                # What is run or loaded again, a unit or a tied weight, is the pruned one.
                self.skeleton.overlay(writer.shard(visit.index))
                state.layers += [dataclasses.asdict(record) for record in records]
                state.unseen, pruner.idle = state.unseen + pruner.idle, []
                state.next = visit.index + 1
                if is_first():
                    state.digests.append(file_digest(writer.shard(visit.index)))
                    self._count(pruner, state)
                    state.save(output.work)

    def _count(self, pruner: UnitPruner, state: RunState) -> None:
        """Note what the run has taken, earlier processes included."""
        spent = {**pruner.timings, "total": time.perf_counter() - self._started}
        phases = dict.fromkeys([*self._earlier, *spent])
        state.timings = {x: self._earlier.get(x, 0.0) + spent.get(x, 0.0) for x in phases}
        state.peak_bytes = max(state.peak_bytes, peak_memory())

    def _write_cuts(self, visit: Visit, cuts: Sequence[Cut], output: Output) -> None:
        layers = visit.unit.layers
        kept = {layer.name: layer.weight.clone() for layer in layers} if cuts else {}
        for density, cut in zip(self.curve, cuts, strict=True):
            masks = {name: mask.cpu() for name, mask in cut.apply(layers).items()}
            outgoing = self.skeleton.outgoing(visit.unit.name, masks, last=False)
            writer = CheckpointWriter(self.cut(output, density), self.folder, self.options.dtype)
            writer.add(visit.index, *self._stored(outgoing))
        for layer in layers if cuts else ():
            layer.overwrite(kept[layer.name])

    def _write(
        self, visit: Visit, masks: dict[str, torch.Tensor], writer: CheckpointWriter
    ) -> None:
        found = merge_masks(visit.unit.layers, masks)
        by_parameter = {name: mask.cpu() for name, mask in found.items()}
        writer.add(
            visit.index, *self._stored(self.skeleton.outgoing(visit.unit.name, by_parameter))
        )

    def _stored(
        self, outgoing: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return tensors in the dtype to store, where they were held in another one."""
        tensors, masks = outgoing
        checkpoint = self.skeleton.checkpoint
        with checkpoint.opened():
            found = {}
            for name, tensor in tensors.items():
                dtype = self.skeleton.cast(checkpoint.outline(name)).dtype
                found[name] = tensor.to(dtype)
        return found, masks

    def _precision(self, device: torch.device) -> Precision:
        """Return the precision of passes: of layers in several dtypes, one that holds them all."""
        dtypes = {*self._dtypes().values()} or {torch.float32}
        shortest = min(dtypes, key=lambda dtype: torch.finfo(dtype).bits)
        together = torch.float32 if len(dtypes) > 1 else None
        return Precision.natural(shortest, device, self.options.precision or together)

    def _dtypes(self) -> dict[str, torch.dtype]:
        """Return what layers are stored in: some of a folder may be longer than others."""
        # A tied head that is included is stored under the embedding's name.
        layers = [x for x in self.coverage.layers if x.parameter in self.skeleton.names.groups]
        with self.skeleton.checkpoint.opened():
            found = {x.parameter: self.skeleton.stored_dtype(x.parameter) for x in layers}
        return {x.name: found[x.parameter] for x in layers}

    def _fingerprint(self, windows: torch.Tensor | None) -> str:
        """Identify the run, so that another one's remains are not taken up."""
        digest = hashlib.sha256()
        digest.update(folder_digest(self.folder).encode())
        if windows is not None:
            digest.update(str(tuple(windows.shape)).encode())
            digest.update(windows.contiguous().numpy().tobytes())
        options = self.options
        chosen = (options.dtype, tuple(options.include), tuple(options.exclude), options.unseen)
        digest.update(
            repr(
                [
                    self.recipe,
                    *chosen,
                    self.precision,
                    device_named(options.device).type,
                    versions(),
                ]
            ).encode()
        )
        return digest.hexdigest()

    def _resume_state(self, output: Output) -> RunState:
        """Return how far an earlier process has come, if it was the same run."""
        if RunState.is_in(output.work):
            state = RunState.load(output.work)
            if state.fingerprint == self.fingerprint:
                _check_unchanged(output, state)
                if output.made.exists() or output.out.exists() or not state.published:
                    return state
            elif not self.options.overwrite:
                raise of_another_run(output)
        # Of another run, or of one whose model somebody has deleted since.
        output.restart()
        return RunState(self.fingerprint, curve=list(self.curve))


def of_another_run(output: Output) -> CheckpointError:
    """Return the error that a work folder is not of this run."""
    return CheckpointError(
        f"{str(output.work)!r} holds an unfinished run with other options, data or "
        "versions; repeat those to resume it, delete it, or pass --overwrite"
    )


def _check_unchanged(output: Output, state: RunState) -> None:
    """Raise unless the shards that a run has written are there as it wrote them."""
    if state.published:
        return
    for number, digest in enumerate(state.digests):
        file = shard_file(output.made, number)
        if not file.is_file() or file_digest(file) != digest:
            raise CheckpointError(
                f"{str(file)!r} of the unfinished run is missing or was changed since it was "
                f"written; delete {str(output.work)!r} to start anew"
            )


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
