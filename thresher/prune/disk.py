"""Pruning a model folder block by block, without ever holding the model in memory."""

from __future__ import annotations

__all__ = ["DiskOptions", "peak_memory", "prune_folder"]

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import CheckpointError, DataError, LayerError, OptionError
from ..core.files import write_text
from ..core.progress import progress_bar
from ..parts.layers import Layer, find_layers
from ..run.files.writer import CheckpointWriter
from ..run.skeleton import Skeleton
from ..stream.blocks import BlockChain, find_blocks
from ..stream.hidden import HiddenStates
from .layerwise import BlockwisePruner
from .memory import method_name, needed_statistics
from .recipe import Recipe
from .record import LayerRecord, PruneRecord, versions

_STATE_FILE = "progress.json"
_GRADIENTS = frozenset({"gradient", "squared_gradient"})


@dataclass(frozen=True)
class DiskOptions:
    """How to go about pruning a folder; none of it changes what is chosen but `dtype`.

    Parameters
    ----------
    dtype : torch.dtype, optional
        Convert weights to it; by default they stay as stored.
    include, exclude : sequence of str
        Shell patterns of layer names, see :func:`~thresher.parts.layers.find_layers`.
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

    A run that is killed goes on from its last finished block when it is started again with
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
    return _DiskRun(source, out, recipe, windows, options, calibration or {}).execute()


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
        if out.exists() and not options.overwrite:
            raise OptionError(
                f"output folder {str(out)!r} exists; choose another, or overwrite it (--overwrite)"
            )
        needs = needed_statistics(recipe)
        if needs & _GRADIENTS:
            raise OptionError(
                f"{recipe.score!r} needs gradients of the whole model; prune it in memory with "
                "thresher.prune(model, ...)"
            )
        if needs and (windows is None or not len(windows)):
            raise DataError(f"{method_name(recipe)} needs calibration text")
        self.source, self.out, self.recipe, self.options = source, out, recipe, options
        self.samples = [] if windows is None else [{"input_ids": w.unsqueeze(0)} for w in windows]
        self.skeleton = Skeleton(source, options.dtype)
        self.chain = self._find_chain()
        self.layers = self._find_layers()
        self.work = out.with_name(out.name + ".partial")
        self.fingerprint = self._fingerprint(windows)
        self.record = PruneRecord(
            model=str(source),
            method=method_name(recipe),
            recipe=repr(recipe),
            pattern=recipe.pattern.spec,
            density_asked=recipe.target,
            calibration=calibration if needs else {"source": "none"},
            versions=versions(),
        )

    def execute(self) -> PruneRecord:
        started = time.perf_counter()
        state = self._resume_state()
        writer = CheckpointWriter(self.work, self.source, self.options.dtype)
        for written in range(state["next"]):
            self.skeleton.overlay(writer.shard(written))
        steps = 2 * (len(self.chain.names) - state["next"])
        with torch.no_grad(), progress_bar(steps, self.options.progress) as advance:
            pruner = BlockwisePruner(
                self.chain,
                self.layers,
                self.recipe,
                loaded=self._block,
                autocast=fast_matmul_dtype(),
                progress=advance,
            )
            hidden, counts = self._begin(pruner, state)
            for index in range(state["next"], len(self.chain.names)):
                self._prune_block(index, pruner, writer, hidden, counts, state)
            self._write_rest(writer)
        self.record.layers = [LayerRecord(**layer) for layer in state["layers"]]
        self.record.timings = {**pruner.timings, "total": time.perf_counter() - started}
        self.record.peak_bytes = peak_memory()
        self._publish(writer)
        return self.record

    def _begin(
        self, pruner: BlockwisePruner, state: dict[str, Any]
    ) -> tuple[HiddenStates, dict[str, int]]:
        """Embed the samples and allot the counts, or take up both where they were left."""
        if not self.samples:
            return HiddenStates([]), state["counts"] or pruner.counts([])
        # A resumed run needs the first sample alone, for the blocks' other arguments.
        with self._front():
            states = self.chain.enter(self.samples if state["next"] == 0 else self.samples[:1])
        if state["next"] > 0:
            kept = HiddenStates(None, self.work, generation=state["next"], spill=self.options.spill)
            return kept, state["counts"]
        hidden = HiddenStates(states, self.work, spill=self.options.spill)
        counts = pruner.counts(hidden)
        self._save_state({"counts": counts}, state)
        return hidden, counts

    def _prune_block(
        self,
        index: int,
        pruner: BlockwisePruner,
        writer: CheckpointWriter,
        hidden: HiddenStates,
        counts: dict[str, int],
        state: dict[str, Any],
    ) -> None:
        prefix = self.chain.names[index]
        with self._block(index):
            masks, records = pruner.prune_block(index, hidden, counts)
            named = {f"{name}.weight": mask for name, mask in masks.items()}
            writer.add(index, *self.skeleton.outgoing(prefix, named))
        layers = state["layers"] + [dataclasses.asdict(record) for record in records]
        self._save_state({"next": index + 1, "counts": counts, "layers": layers}, state)
        hidden.drop_before()

    def _write_rest(self, writer: CheckpointWriter) -> None:
        """Write what belongs to no block: embeddings, norms and the head."""
        writer.add(len(self.chain.names), *self.skeleton.outgoing("", {}))

    def _publish(self, writer: CheckpointWriter) -> None:
        for leftover in self.work.glob("hidden-*"):
            shutil.rmtree(leftover)
        writer.finish(self.record.to_json())
        (self.work / _STATE_FILE).unlink(missing_ok=True)
        if self.out.exists():
            shutil.rmtree(self.out)
        os.replace(self.work, self.out)

    def _find_chain(self) -> BlockChain:
        chain = find_blocks(self.skeleton.model)
        if chain.names == [""]:
            raise LayerError(
                f"{type(self.skeleton.model).__name__} has no list of blocks to load one at a "
                "time; prune it in memory with thresher.prune(model, ...)"
            )
        return chain

    def _find_layers(self) -> list[Layer]:
        """Find the prunable layers inside the blocks; others, such as poolers, stay dense."""
        layers = find_layers(
            self.skeleton.model, include=self.options.include, exclude=self.options.exclude
        )
        prefixes = tuple(f"{name}." for name in self.chain.names)
        inside = [layer for layer in layers if f"{layer.name}.".startswith(prefixes)]
        if not inside:
            raise LayerError("every prunable layer is excluded; nothing would be pruned")
        return inside

    def _block(self, index: int) -> AbstractContextManager[None]:
        return self.skeleton.loaded(self.chain.module(index), self.chain.names[index])

    def _front(self) -> ExitStack:
        """Load what runs before the first block, which never includes the output head."""
        stack = ExitStack()
        head = getattr(self.skeleton.model, "get_output_embeddings", lambda: None)()
        prefixes = tuple(f"{name}." for name in self.chain.names)
        for name, module in self.skeleton.model.named_modules():
            inside = f"{name}.".startswith(prefixes)
            if module is head or inside or not _has_own_parameters(module):
                continue
            stack.enter_context(self.skeleton.loaded(module, name))
        return stack

    def _fingerprint(self, windows: torch.Tensor | None) -> str:
        """Identify the run, so that another one's remains are not taken up."""
        digest = hashlib.sha256()
        digest.update((self.source / "config.json").read_bytes())
        for file in sorted(self.source.glob("*.safetensors")):
            digest.update(f"{file.name}/{file.stat().st_size}".encode())
        if windows is not None:
            digest.update(windows.contiguous().numpy().tobytes())
        parts = (self.recipe, self.options.dtype, self.options.include, self.options.exclude)
        digest.update(repr([*parts, versions()]).encode())
        return digest.hexdigest()

    def _resume_state(self) -> dict[str, Any]:
        fresh = {"fingerprint": self.fingerprint, "next": 0, "counts": {}, "layers": []}
        file = self.work / _STATE_FILE
        if not self.work.exists():
            return fresh
        if file.is_file():
            state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if state["fingerprint"] == self.fingerprint:
                return state
            if not self.options.overwrite:
                raise CheckpointError(
                    f"{str(self.work)!r} holds an unfinished run with other options, data or "
                    "versions; repeat those to resume it, delete it, or pass --overwrite"
                )
        shutil.rmtree(self.work)
        return fresh

    def _save_state(self, changes: dict[str, Any], state: dict[str, Any]) -> None:
        state.update(changes)
        write_text(self.work / _STATE_FILE, json.dumps(state))


def _has_own_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def fast_matmul_dtype() -> torch.dtype | None:
    """Return bfloat16 when this processor multiplies it natively, else None."""
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if native else None


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
