"""Four bits that are calibrated: for ``thresher pack``, and for GGUF files."""

from __future__ import annotations

__all__ = ["export_rounded", "pack_model", "round_folder"]

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .core.errors import OptionError
from .core.output import check_apart, check_free, writing
from .core.progress import progress_bar
from .parts.calibration import file_windows, warn_of_fewer
from .parts.coverage import cover
from .parts.gptq import GPTQ
from .parts.limits import check_windows
from .parts.moments import Gram, Moment
from .parts.scores import Magnitude, Score
from .parts.statistics import Statistics
from .prune.layerwise import UnitPruner
from .prune.memory import find_uses
from .prune.recipe import Recipe
from .run.engine import Engine
from .run.engine.convert import Conversion
from .run.engine.formats import Matrix, four_bits
from .run.engine.gguf.blocks import BLOCKS, Q4_1, pack
from .run.engine.gguf.write import export_gguf
from .run.engine.loading import check_near, ends_of, probe
from .run.engine.model import LayerData, ModelData
from .run.engine.quantize import FourBits, unit_of
from .run.engine.store import STORE_FILE, write_store
from .run.files.activations import check_dense_folder
from .run.files.checkpoint import resolve
from .run.files.export import is_pruned
from .run.files.writer import CheckpointWriter
from .run.skeleton import Skeleton
from .stream.outputs import folder_logits
from .stream.precision import Precision
from .stream.source import Folder
from .stream.stream import Stream
from .stream.units import find_units
from .stream.visit import Visit
from .workflow import load_tokenizer, tell, window_length


def pack_model(
    model: str, out: Path, bits: int | None, text: Path | None, windows: int, length: int
) -> None:
    """Write a model as a folder of the engine's.

    Parameters
    ----------
    model : str
        What :class:`~thresher.run.engine.engine.Engine` takes by name.
    out : Path
        Folder to write.
    bits : {8, 4} or None
    text : Path or None
        Have four bits calibrated on it, of a model of transformers.
    windows, length : int
        How many windows of how many tokens the text is cut into, at most.

    Raises
    ------
    OptionError
        If there is nothing to calibrate.
    """
    if text is not None and bits is None:
        raise OptionError(
            "--text calibrates the rounding of weights, and without --bits they keep 16 bits; add "
            "--bits 4, or leave --text out"
        )
    if text is None or bits != 4:
        if bits is not None:
            tell(_to_nearest(bits, text))
        Engine(model, bits).save(out)
        return
    if Path(model).is_file() or (Path(model) / STORE_FILE).is_file():
        raise OptionError(
            f"--text calibrates models of transformers, and {model!r} is not a folder of one; "
            "leave --text out, or name the folder that it was made from"
        )
    folder = resolve(model)
    check_dense_folder(folder, "leave --text out, which rounds to nearest")
    check_apart(folder, out)
    cut = _windows(folder, text, windows, length)
    skeleton = Skeleton(folder)
    # Where this ends in `kill -9`, the same command clears it away.
    with writing(out, "round") as output:
        output.restart()
        data = round_folder(skeleton, cut, output.work / "rounded")
    config: Any = skeleton.model.config
    ends, tokenizer = ends_of(folder, config), load_tokenizer(folder)
    write_store(data, config.max_position_embeddings, ends, tokenizer, out)


def export_rounded(model: str, out: Path, text: Path, windows: int, length: int) -> None:
    """Write a model as a GGUF file of the type Q4_1, its codes chosen by GPTQ.

    Parameters
    ----------
    model : str
        Folder of a model of transformers, or its name on the hub.
    out : Path
        File to write.
    text : Path
        To calibrate on.
    windows, length : int
        See :func:`pack_model`.

    Raises
    ------
    ThresherError
        See :func:`~thresher.run.engine.gguf.write.export_gguf` and :func:`round_folder`.
    """
    folder = resolve(model)
    check_dense_folder(folder, "leave --text out, which rounds to nearest")
    check_free(out)
    cut = _windows(folder, text, windows, length)

    def rounded(scratch: Path) -> dict[str, Tensor]:
        rows: dict[str, Tensor] = {}
        for _, found in _rounded_blocks(Skeleton(folder), cut, scratch, unit=1.0):
            # At once: codes take twice as much in memory as in the file.
            rows |= {name: pack(BLOCKS[Q4_1], each) for name, each in found.items()}
        return rows

    export_gguf(folder, out, "q4_1", rounded)


def _windows(folder: Path, text: Path, count: int, length: int) -> Tensor:
    """Return what to calibrate on, and say so."""
    tokenizer, fitting = load_tokenizer(folder), window_length(folder, length)
    cut = file_windows(text, tokenizer, length=fitting, count=count)
    warn_of_fewer(len(cut), count, fitting, str(text))
    tell(f"rounding {folder} to 4 bits on {len(cut)} windows of {fitting} tokens ...")
    return cut


def _to_nearest(bits: int, text: Path | None) -> str:
    if text is not None:
        return (
            f"weights are rounded to the nearest of {bits} bits, which no text would make better; "
            f"{text} is not read"
        )
    calibrate = "; --text FILE would choose them by what the model computes" if bits == 4 else ""
    return f"weights are rounded to the nearest of {bits} bits{calibrate}"


def round_folder(skeleton: Skeleton, windows: Tensor, scratch: Path) -> ModelData:
    """Return the engine's model of a folder, its weights rounded to four bits by GPTQ.

    One block is in memory at a time, besides what is returned; each is calibrated on what the
    rounded ones before it give. Zeros of a matrix that was pruned stay zero. Layers that the data
    never reaches are rounded to nearest.

    Parameters
    ----------
    skeleton : Skeleton
        Of the folder.
    windows : Tensor of shape (windows, length), int64
        Token ids to calibrate on.
    scratch : Path
        Folder for rounded blocks, which the engine's model is held against in the end.

    Raises
    ------
    ThresherError
        If the engine does not run the model, or a weight or the data cannot be used.
    """
    model, folder = skeleton.model, skeleton.checkpoint.folder
    conversion = Conversion(model, 4)
    layers = {}
    for block, found in _rounded_blocks(skeleton, windows, scratch):
        index = conversion.blocks.index(block)
        layers[index] = conversion.layer(index, found)
    data = _whole(skeleton, conversion, layers)
    ids = probe(data.embedding.rows, model.config)
    with closing(folder_logits(folder, ids[None], overlay=scratch)) as logits:
        check_near(data, ids, next(logits)[:], type(model).__name__)
    return data


@torch.no_grad()
def _rounded_blocks(
    skeleton: Skeleton, windows: Tensor, scratch: Path, unit: float | None = None
) -> Iterator[tuple[nn.Module, dict[str, Matrix]]]:
    """Yield blocks, loaded and rounded, and what their layers were rounded to by name."""
    model = skeleton.model
    coverage = cover(model)
    check_windows(model, windows)
    samples = [{"input_ids": window.unsqueeze(0)} for window in windows]
    stored = skeleton.stored_dtype(coverage.layers[0].parameter)
    precision = Precision.natural(stored, torch.device("cpu"))
    source = Folder(skeleton, precision)
    find_uses(source, coverage, samples)
    units = find_units(model, coverage.layers)
    rounding = _Rounding(unit=unit)
    counts = {layer.name: layer.weight.numel() for layer in coverage.layers}
    writer = CheckpointWriter(scratch, skeleton.checkpoint.folder)
    with progress_bar(len(units), lines=True) as advance:
        stream = Stream(source, units, samples, precision=precision)
        pruner = UnitPruner(stream, coverage.layers, rounding, unseen="dense", progress=advance)
        with closing(stream.visits()) as visits:
            for visit in visits:
                pruner.prune(visit, counts)
                yield visit.unit.module, rounding.found
                rounding.found.clear()
                writer.add(visit.index, _outgoing(skeleton, visit), {})


def _outgoing(skeleton: Skeleton, visit: Visit) -> dict[str, Tensor]:
    """Return what a rounded block would write; weights without a mask would be as they were."""
    layers = visit.unit.layers
    changed = {x.parameter: torch.ones(x.weight.shape, dtype=torch.bool) for x in layers}
    return skeleton.outgoing(visit.unit.name, changed, last=False)[0]


def _whole(
    skeleton: Skeleton, conversion: Conversion, layers: Mapping[int, LayerData]
) -> ModelData:
    outside = (conversion.embedding, conversion.positions, conversion.final_norm, conversion.head)
    with ExitStack() as stack:
        for module in (each for each in outside if each is not None):
            stack.enter_context(skeleton.loaded(module, conversion.names[module]))
        return conversion.model_of([layers[index] for index in range(len(conversion.blocks))])


@dataclass(frozen=True)
class _Rounding(Recipe):
    """Round every layer to four bits by GPTQ, one group of a block's layers after another.

    Parameters
    ----------
    unit : float, optional
        See :class:`~thresher.run.engine.quantize.FourBits`.  [default: of each block]
    found : dict of str to Matrix
        What layers were rounded to, by name.
    """

    done = "rounded"

    score: Score = Magnitude()
    density: float | None = 1.0
    stages: bool = True
    unit: float | None = None
    found: dict[str, Matrix] = field(default_factory=dict)

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """The second moment."""
        return GPTQ.needs

    def together(
        self, visit: Visit, statistics: Mapping[str, Statistics], counts: Mapping[str, int]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Round layers; those that the engine joins have one unit."""
        layers = [layer for layer in visit.unit.layers if layer.name in statistics]
        for layer in layers:
            layer.check_finite()
        unit = self.unit or unit_of(layer.weight for layer in layers)
        rounded = {}
        for layer in layers:
            known, weight = statistics[layer.name], layer.matrix()
            if not known.saw_any(Gram):
                continue
            mask = weight != 0 if is_pruned(weight) else None
            matrix = four_bits(GPTQ()(weight, FourBits(unit), known, mask), unit)
            self.found[layer.name] = matrix
            stays = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
            rounded[layer.name] = matrix.dense(), stays
        return rounded
