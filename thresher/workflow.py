"""What the commands do, on folders and terminals; the library proper prints nothing."""

from __future__ import annotations

__all__ = [
    "EVALUATION_WINDOWS",
    "PruneJob",
    "bench_folder",
    "check_language_model",
    "check_room",
    "described",
    "export_folder_as_onnx",
    "is_causal_language_model",
    "load_model",
    "load_tokenizer",
    "read_record",
    "samples_of",
    "save_record",
    "show_info",
    "show_recipe",
    "tell",
    "weight_sizes",
    "window_length",
    "written",
]

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from rich.console import RenderableType
from rich.text import Text

from .activate.record import ActivationRecord
from .core.columns import Fitted
from .core.device import device_named, free_memory
from .core.dtypes import dtype_named
from .core.errors import CheckpointError, DataError, OptionError
from .core.files import read_json, write_text
from .core.machine import check_quiet
from .core.numbers import percent, times
from .core.output import Output, check_free, writing
from .core.progress import progress_bar
from .core.records import restored_from
from .core.terminal import manner, say, show
from .parts.calibration import EMBEDDED, file_windows, split_windows, warn_of_fewer
from .parts.limits import fitting_length
from .prune.disk import DiskOptions, DiskRun, peak_memory
from .prune.memory import as_recipe
from .prune.recipe import Recipe
from .prune.record import PruneRecord, circumstances
from .report.activations import activation_kinds, activation_layers, activation_summary
from .report.outcome import outcome
from .report.pages import write_pages
from .report.tables import kind_table, layer_table, recipe_table, record_data, summary_table
from .run.continuations import sample_texts
from .run.evaluate import compare, perplexity
from .run.files.checkpoint import Checkpoint, read_config, resolve
from .run.files.companions import ACTIVATIONS_RECORD, RECORD_FILE
from .run.files.hub import check_login, push
from .run.files.recount import describe, kept_in_folder
from .run.files.tokenizers import holds_tokenizer, read_tokenizer
from .run.files.whole import load_whole
from .run.skeleton import build_model
from .stream.outputs import folder_logits
from .stream.precision import Precision
from .stream.ranks import is_first, joined, speaks, written_by_first

#: Of the memory that pruning took, what a whole model may take: two are loaded, each from its file,
#: and what they took stays with the process. At 0.6 SmolLM2's peak rose from 1.0 to 1.4 GB.
_SHARE_OF_PEAK = 0.2
_NO_RECORD = "no record was kept of how the model was pruned"
_REMEDY = "delete it to go on without a record, or fetch the model again"
#: Most windows that perplexity is measured on. Of SmolLM2's, eight give the logarithm of pruned
#: over dense perplexity to a standard error of 0.02 at 50 %, and less at smaller cuts.
EVALUATION_WINDOWS = 8
_CURVE_DENSITIES = (0.8, 0.7, 0.6, 0.5)


class PruneJob:
    """``thresher prune``: prune a folder, evaluate it, and write its report.

    Parameters
    ----------
    model : str
        Folder or hub name.
    **options : Any
        The command's options, see ``thresher prune --help``.
    """

    def __init__(self, model: str, **options: Any) -> None:
        self.options = options
        self.recipe = self._read_recipe()
        if repository := options.get("push_to_hub"):
            check_login(repository)
        self.source = resolve(model, options.get("revision"))
        self.out = Path(options["out"])
        Checkpoint(self.source)  # raises now if there are no weights that can be read
        self.dtype = dtype_named(options["dtype"])
        device_named(options["device"])
        self.tokenizer = load_tokenizer(self.source)
        self.length = window_length(self.source, int(options["length"]))
        self.text_source = str(options["calibration"] or EMBEDDED)
        self.calibration, self.held_out = self._windows()
        self.densities = self._curve_densities()

    def run(self) -> None:
        """Prune, evaluate, write the report and print the table.

        Every step is noted where it ends, so that the same command goes on after it. Of processes
        that torchrun starts all prune, on their shares of the windows, and the first does the rest.
        """
        self._announce()
        with ExitStack() as group:
            group.enter_context(joined())
            with written_by_first(self.out, "prune") as output:
                record = self._disk_run().execute(output)
                first = is_first()
                # From here on the first process is alone: evaluation may prune once more.
                group.close()
                if first:
                    self._finish(record, output)

    def _announce(self) -> None:
        """Say what begins, and what of the model its user may not know."""
        self._begin("pruning", f"pruning {self.source} ...")
        for said in (self._pruned_before(), _about_width(self.source, self.dtype)):
            if said:
                tell(said)

    @property
    def phases(self) -> list[str]:
        """What there is to do, one after another, as far as is known before."""
        phases = ["pruning"]
        if self.options["evaluate"] and self.held_out is not None:
            phases += ["evaluating"] if is_causal_language_model(self.source) else []
        return phases + (["curve"] if self.densities else [])

    def _begin(self, phase: str, text: str) -> None:
        """Say what begins, and which phase of how many it is of."""
        phases = self.phases
        manner().phase = f"{phases.index(phase) + 1}/{len(phases)}" if len(phases) > 1 else ""
        tell(f"{manner().phase} {text}".lstrip())

    def _pruned_before(self) -> str:
        """Return a sentence on a model that is pruned already, empty of any other."""
        try:
            record = restored_from(self.source / RECORD_FILE, PruneRecord, "a record", _REMEDY)
        except CheckpointError:
            return ""
        return (
            f"it is pruned already, by {record.method} to {percent(record.density)}; what is dense "
            f"in the figures below is this model, and {record.model} is the one before"
        )

    def _read_recipe(self) -> Any:
        return _recipe(self.options)

    def _finish(self, record: PruneRecord, output: Output) -> None:
        """Evaluate what was pruned, and write and print what there is to say of it."""
        if command := manner().typed:
            record.made.setdefault("command", command)
        self._keep_what_is_of_this_text(record)
        self._evaluate_all(record, output)
        write_pages(record, self.out)
        told = outcome(record, self.out)
        data = record_data(record) | {"out": self.out, "outcome": told.plain}
        show(data, summary_table(record), told)
        self._tell_and_send()

    def _evaluate_all(self, record: PruneRecord, output: Output) -> None:
        """Evaluate what is asked for, and note how long that took."""
        started, before = time.monotonic(), dict(record.evaluation)
        if self.options["evaluate"]:
            self._evaluate(record)
        if self.densities:
            self._curve(record, output)
        if record.evaluation != before:
            # With that of the command which was stopped and is gone on with.
            spent = record.timings.get("measuring", 0.0) + time.monotonic() - started
            record.timings["measuring"] = spent
            self._note(record, {})

    def _tell_and_send(self) -> None:
        """Say where the model lies, and send it on where that is wanted."""
        manner().phase = ""
        tell(f"wrote {self.out} and {self.out / 'report.html'}")
        if repository := self.options["push_to_hub"]:
            tell(f"sending {self.out} to {repository} ...")
            tell(f"sent to {push(self.out, repository)}")

    def _disk_run(self) -> DiskRun:
        described = {"windows": len(self.calibration), "length": self.length}
        return DiskRun(
            self.source,
            self.out,
            self.recipe,
            self.calibration,
            self._disk_options(),
            {"source": self.text_source, **described},
            self.densities,
        )

    def _note(self, record: PruneRecord, found: dict[str, Any]) -> None:
        record.evaluation |= found
        record.peak_bytes = max(record.peak_bytes, peak_memory())
        write_text(self.out / RECORD_FILE, record.to_json())

    def _disk_options(self) -> DiskOptions:
        return DiskOptions(
            dtype=self.dtype,
            unseen=self.options["unseen"],
            precision=dtype_named(self.options["precision"]),
            include=self.options["include"],
            exclude=self.options["exclude"],
            spill=self.options["spill"],
            device=self.options["device"],
            overwrite=self.options["overwrite"],
        )

    @property
    def evaluated_on(self) -> str:
        """What the held-out windows are of."""
        return str(self.options["text"] or f"{self.text_source}, held out")

    def _windows(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Cut calibration windows, and evaluation windows that do not overlap them."""
        wanted = self.options["windows"]
        if wanted < 1:
            raise OptionError(f"--windows {wanted} leaves nothing to calibrate on; use 1 or more")
        named = self.text_source
        if self.options["text"]:
            held_out = self._cut(self.options["text"], EVALUATION_WINDOWS)
            used = self._cut(self.options["calibration"], wanted)
        else:
            both = self._cut(self.options["calibration"], wanted + EVALUATION_WINDOWS)
            used, held_out = split_windows(both, wanted, EVALUATION_WINDOWS)
            named += ", without windows to evaluate on,"
        warn_of_fewer(len(used), wanted, self.length, named)
        return used, held_out if len(held_out) else None

    def _cut(self, file: Path | None, count: int) -> torch.Tensor:
        return file_windows(file, self.tokenizer, length=self.length, count=count)

    def _keep_what_is_of_this_text(self, record: PruneRecord) -> None:
        """Forget evaluation and curve of another text than this command's."""
        of: dict[str, Any] = {}
        if self.held_out is not None:
            of = described(self.evaluated_on, self.held_out)
        if not is_causal_language_model(self.source):
            of["no_text"] = True
        if not record.evaluation or not of.items() <= record.evaluation.items():
            record.evaluation.clear()
            self._note(record, weight_sizes(self.out) | of)

    def _evaluate(self, record: PruneRecord) -> None:
        if self.held_out is None:
            tell("not evaluated: the calibration text has no window to spare; pass --text FILE")
            return
        if not is_causal_language_model(self.source):
            tell("not evaluated: no causal language model, which perplexity is of")
            return
        if "pruned_perplexity" not in record.evaluation:
            self._begin("evaluating", f"evaluating on {len(self.held_out)} windows ...")
            with progress_bar(2 * record.blocks, lines=True) as advance:
                dense, pruned = (self._logits(each, advance) for each in (self.source, self.out))
                found = asdict(compare(dense, pruned, self.held_out))
            self._note(record, found)
        if not {"samples", "no_samples"} & set(record.evaluation):
            precision = dtype_named(self.options["precision"])
            options = (self.tokenizer, self.dtype, precision, self.options["device"])
            # What was pruned block by block may not fit into memory whole.
            most = _SHARE_OF_PEAK * record.peak_bytes
            self._note(record, samples_of(self.source, self.out, self.held_out, *options, most))

    def _logits(
        self, folder: Path, advance: Callable[[str], None], overlay: Path | None = None
    ) -> Any:
        assert self.held_out is not None
        precision = dtype_named(self.options["precision"])
        device = self.options["device"]
        return folder_logits(folder, self.held_out, self.dtype, precision, overlay, device, advance)

    def _curve_densities(self) -> list[float]:
        """Return what to cut the model to besides, to draw what a smaller cut costs."""
        if not self.options["curve"]:
            return []
        if not is_causal_language_model(self.source):
            tell("no curve: it needs a causal language model")
            return []
        if self.held_out is None or self.recipe.pattern.density is not None:
            tell("no curve: it needs held-out text and a pattern of free density")
            return []
        # The model itself marks its own density in the report.
        return [d for d in _CURVE_DENSITIES if d != self.recipe.target]

    def _curve(self, record: PruneRecord, output: Output) -> None:
        """Evaluate the other cuts, which were made from the same moments."""
        points = list(record.evaluation.get("curve", ()))
        left = set(self.densities) - {point["density"] for point in points}
        if any(not DiskRun.cut(output, density).exists() for density in left):
            self._begin("curve", "pruning once more, for a curve that was not asked for before ...")
            with writing(output.work / "again", "prune", keep=True) as again:
                self._disk_run().execute(again)
                self._measure(record, points, left, again)
        else:
            self._measure(record, points, left, output)

    def _measure(
        self, record: PruneRecord, points: list[Any], densities: set[float], output: Output
    ) -> None:
        assert self.held_out is not None
        for density in sorted(densities, reverse=True):
            self._begin("curve", f"curve: evaluating density {density:g} ...")
            with progress_bar(record.blocks, lines=True) as advance:
                cut = DiskRun.cut(output, density)
                value = perplexity(self._logits(self.source, advance, cut), self.held_out)
            point = {"density": density, "perplexity": value, "method": record.method}
            points.append(point | {"bytes": self._bytes_with(cut)})
            self._note(record, {"curve": points})

    def _bytes_with(self, cut: Path) -> int:
        """Return what the weights would take on disk with another cut's in place of theirs."""
        changes = [
            file.stat().st_size - (self.out / file.name).stat().st_size
            for file in cut.glob("*.safetensors")
        ]
        return weight_sizes(self.out)["sparse_bytes"] + sum(changes)


def _about_width(source: Path, dtype: torch.dtype | None) -> str:
    """Return a sentence on weights that are written in more bytes than need be, empty if not."""
    checkpoint = Checkpoint(source)
    outlines = [checkpoint.outline(name) for name in checkpoint]
    stored = sum(each.nbytes for each in outlines)
    written = stored if dtype is None else sum(each.numel() * dtype.itemsize for each in outlines)
    short = 2 * sum(each.numel() for each in outlines)
    if written > 1.5 * stored:
        return (
            f"--dtype {str(dtype)[6:]} takes {times(written, stored)} the room of the weights as "
            "they are stored; without it they stay as they are"
        )
    if written > 1.5 * short:
        return (
            f"the weights are stored in float32, and stay so; --dtype bfloat16 takes "
            f"{times(short, written)} the room"
        )
    return ""


def described(text: str, windows: torch.Tensor) -> dict[str, Any]:
    """Return what is evaluated on, as the record says it."""
    count, length = windows.shape
    digest = hashlib.sha256(windows.numpy().tobytes()).hexdigest()
    return {"text": text, "windows": count, "length": length, "digest": digest}


def samples_of(
    dense: Path,
    pruned: Path,
    windows: torch.Tensor,
    tokenizer: Any,
    dtype: torch.dtype | None,
    precision: torch.dtype | None,
    device: str,
    most: float = math.inf,
) -> dict[str, Any]:
    """Return texts that two folders' models write, for a record; or why there are none.

    None are written where a whole model takes more than `most` bytes, or than are free.
    """
    place = device_named(device)

    def make(folder: Path) -> Any:
        model = load_model(folder, dtype)
        used = Precision.natural(model.dtype, place, precision)
        return (model.to(used.passes) if used.widens else model).to(place)

    # Of float32, which shorter weights may be widened to.
    needed = 4 * sum(each.numel() for each in build_model(dense).parameters())
    if needed > free_memory(place):
        return {"no_samples": "the models do not fit into memory whole"}
    if needed > most:
        return {
            "no_samples": "a whole model would have taken more memory than pruning block by block; "
            "`thresher eval --save --dense MODEL` writes some"
        }
    return written(
        {"dense": partial(make, dense), "pruned": partial(make, pruned)}, tokenizer, windows
    )


def written(
    models: Mapping[str, Callable[[], Any]], tokenizer: Any, windows: torch.Tensor
) -> dict[str, Any]:
    """Return texts that models write, for a record; or why there are none."""
    tell("writing sample text with both models ...")
    try:
        return {"samples": sample_texts(models, tokenizer, windows)}
    except Exception as error:  # of a model's own code; the pruned model must not be lost for it
        said = str(error).partition("\n")[0]
        return {"no_samples": f"a model wrote none ({type(error).__name__}: {said})"}


def weight_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of a folder's weights, dense and as stored: all, and the packed ones."""
    sparse = Checkpoint(folder)
    dense_bytes = sparse_bytes = pruned_dense = pruned_sparse = 0
    for name in sparse:
        stored, whole = sparse.stored_bytes(name), sparse.dense_bytes(name)
        sparse_bytes, dense_bytes = sparse_bytes + stored, dense_bytes + whole
        if sparse.is_packed(name):
            pruned_sparse, pruned_dense = pruned_sparse + stored, pruned_dense + whole
    return {
        "dense_bytes": dense_bytes,
        "sparse_bytes": sparse_bytes,
        "pruned_layers_dense_bytes": pruned_dense,
        "pruned_layers_sparse_bytes": pruned_sparse,
    }


def save_record(record: PruneRecord, folder: Path) -> None:
    """Write a folder's record and its report again."""
    write_text(folder / RECORD_FILE, record.to_json())
    write_pages(record, folder)
    tell(f"wrote {folder / RECORD_FILE} and {folder / 'report.html'}")


def show_info(model: str, layers: bool) -> None:
    """``thresher info``: print the record and what the files say, or that alone."""
    folder = resolve(model)
    checkpoint = Checkpoint(folder)
    activations = activation_record(folder)
    data: dict[str, Any] = {}
    tables: list[RenderableType] = []
    if activations is not None:
        shown = activation_layers(activations) if layers else activation_kinds(activations)
        data["activations"] = asdict(activations)
        tables += [activation_summary(activations), Fitted(shown)]
    if _has_record(folder):
        record, changes = _held_against(folder)
        stored = {
            layer.name: checkpoint.stored_bytes(f"{layer.name}.weight")
            for layer in record.layers
            if f"{layer.name}.weight" in checkpoint
        }
        figures = (layer_table if layers else kind_table)(record, stored)
        data |= record_data(record, stored)
        tables += [recipe_table(record), Fitted(figures)]
        if changes:
            data["changed"] = changes
            tables.append(Text(changes))
    elif activations is None:
        words = f"{str(folder)!r}: {_NO_RECORD}. {describe(folder)}"
        data, tables = {"folder": folder, "said": words}, [Text(words)]
    show(data, *tables)


def show_recipe(model: str) -> None:
    """``thresher info --yaml``: print the recipe that made a model, as `--recipe` reads it."""
    folder = resolve(model)
    parts = read_record(folder).parts
    if not parts:
        raise CheckpointError(
            f"the record of {str(folder)!r} has no recipe that YAML could hold: an earlier version "
            "made it, or a part of a user's own; `thresher info` shows it as an expression"
        )
    click.echo(yaml.safe_dump(parts, sort_keys=False), nl=False)


def activation_record(folder: Path) -> ActivationRecord | None:
    """Return the record of a folder's activations, None where there is none."""
    file = folder / ACTIVATIONS_RECORD
    if not file.is_file():
        return None
    return restored_from(file, ActivationRecord, "a record of activations", _REMEDY)


def read_record(folder: Path) -> PruneRecord:
    """Return the record that lies beside a pruned model, held against the model's weights.

    Where the weights are no longer those that the record counted, because the model was trained
    or merged since, the counts are those of the weights.

    Raises
    ------
    CheckpointError
        If there is none; the message says what the files hold.
    """
    if not _has_record(folder):
        raise CheckpointError(f"{str(folder)!r}: {_NO_RECORD}. {describe(folder)}")
    return _held_against(folder)[0]


def _held_against(folder: Path) -> tuple[PruneRecord, str]:
    """Return a folder's record with the counts of its weights, and how these have changed."""
    file = folder / RECORD_FILE
    record = restored_from(file, PruneRecord, "a pruning record", _REMEDY)
    kept = kept_in_folder(folder, [layer.name for layer in record.layers])
    found = record.recounted(kept)
    lost = [layer.name for layer in record.layers if layer.name not in kept]
    said = []
    if lost:
        said.append(
            f"{len(lost)} of its {len(record.layers)} layers are not in the folder ({lost[0]!r}): "
            "another model was saved here since"
        )
    if found is not record:
        said.append(
            f"it counted density {record.density:.3f}, and the weights have {found.density:.3f}: "
            "they were changed since (trained, merged or saved again)"
        )
    words = "; ".join(said)
    return found, (
        f"The record is older than the weights: {words}. Counts are those of the weights; "
        "what was evaluated or timed was so before."
        if said
        else ""
    )


def _has_record(folder: Path) -> bool:
    """Return whether a folder says how it was made; folders of earlier versions say nothing."""
    file = folder / RECORD_FILE
    return file.is_file() and bool(file.stat().st_size) and bool(read_json(file, _REMEDY))


def is_causal_language_model(folder: Path) -> bool:
    """Return whether a folder's architecture predicts next tokens.

    transformers builds a head of random weights where an encoder is asked for as one.
    """
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = transformers.AutoConfig.from_pretrained(folder)
    heads = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    return bool(heads & set(config.architectures or ()))


def check_language_model(folder: Path) -> None:
    """Raise DataError unless a folder's model predicts next tokens."""
    if not is_causal_language_model(folder):
        raise DataError(
            f"{str(folder)!r} is no causal language model ({_architecture(folder)}), so that it "
            "has no perplexity and writes no text; load it in Python and measure it there"
        )


def load_model(folder: Path, dtype: torch.dtype | None = None) -> Any:
    """Return a transformers causal language model in evaluation mode."""
    from transformers.utils import logging

    check_language_model(folder)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return load_whole(folder, dtype)
    except RuntimeError as error:
        raise CheckpointError(
            f"{str(folder)!r} cannot be loaded: {error} Its tensors do not fit its configuration; "
            "write or fetch it again"
        ) from error
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{str(folder)!r} is no causal language model that can be evaluated: {error}"
        ) from error


def export_folder_as_onnx(model: str, out: Path) -> None:
    """Write the model of a folder in ONNX; see :func:`~thresher.run.files.onnx.export_onnx`."""
    from .run.files.onnx import check_installed, export_onnx

    # Before the model is loaded.
    check_installed()
    check_free(out)
    export_onnx(load_model(resolve(model), torch.float32), out)


def bench_folder(
    model: str,
    dense: str,
    batch: tuple[int, ...],
    tokens: int,
    repeats: int,
    layers: bool,
    device: str = "auto",
    save: bool = False,
    busy: bool = False,
) -> None:
    """``thresher bench``: choose layouts by measurement, then generate with both models.

    A folder that was saved packed keeps the layouts that it has. One of the engine's decodes beside
    the dense model in the engine, of as many bits.
    """
    from .run.engine.loading import is_the_engines
    from .run.files.stored import describe_layouts
    from .run.instructions import check_instruction_set
    from .run.measure.bench import bench, fastest
    from .run.pack import choose_layouts

    if is_the_engines(model):
        _bench_engine(model, dense, tokens, repeats, save, busy)
        return
    place = device_named(device)
    record = read_record(resolve(model)) if save else None
    check_instruction_set()
    for folder in (resolve(model), resolve(dense)):
        check_room(folder, tokens)
    _check_quiet(busy)
    packed = load_model(resolve(model), torch.bfloat16).to(place)
    tables: list[RenderableType] = []
    data: dict[str, Any] = {"model": model, "dense": dense}
    if not describe_layouts(packed):
        packing = choose_layouts(packed, batch)
        packing.apply(packed)
        data["packing"] = asdict(packing)
        tables.append(Fitted(packing.table(layers)))
    dtypes = (torch.bfloat16, torch.float32)
    rivals = {str(d)[6:]: load_model(resolve(dense), d).to(place) for d in dtypes}
    found = fastest(rivals, tokens, repeats)
    tell(f"dense in {found}, which is faster here than the other dtype")
    result = bench(rivals.pop(found), packed, new_tokens=tokens, repeats=repeats)
    data |= {"dense_dtype": found, "speedup": result.speedup, **asdict(result)}
    show(data, *tables, Fitted(result.table()))
    if record is not None and result.noisy and not busy:
        raise OptionError(
            "the figures are not kept: two measurements of the dense model disagree by more than "
            "10 %; run again on a quiet machine, or pass --busy to keep what was measured"
        )
    if record is not None:
        layouts: Counter[str] = Counter()
        for group in describe_layouts(packed):
            layouts[group["layout"]] += len(group["weights"])
        record.speed = {
            "dense_dtype": found,
            "speedup": result.speedup,
            "spread": list(result.spread),
            "layouts": dict(layouts),
            **asdict(result),
            **circumstances(place),
        }
        save_record(record, resolve(model))


def _check_quiet(busy: bool) -> None:
    if not busy:
        check_quiet("pass --busy")


def _bench_engine(
    model: str, dense: str, tokens: int, repeats: int, save: bool, busy: bool
) -> None:
    from .run.engine import Engine
    from .run.measure.engines import bench_engines, rival_bits

    if save:
        raise OptionError(
            f"{model!r} is packed for the engine and has no record to keep figures in; leave "
            "--save out"
        )
    _check_quiet(busy)
    packed = Engine(model)
    rival = Engine(dense, rival_bits(packed))
    result = bench_engines(rival, packed, tokens, repeats)
    data = {"model": model, "dense": dense, "speedup": result.speedup, **asdict(result)}
    show(data, Fitted(result.table()))


def bench_gguf(
    model: str, gguf: Path, dense: str | None, tokens: int, repeats: int, busy: bool = False
) -> None:
    """``thresher bench --gguf``: text in the engine, beside llama.cpp and transformers."""
    from .run.engine import Engine
    from .run.measure.texts import bench_texts

    _check_quiet(busy)
    engines = {f"{name}, the engine": Engine(name) for name in dict.fromkeys((model, str(gguf)))}
    rivals = {}
    if dense is not None:
        rivals[f"{dense}, torch bfloat16"] = load_model(resolve(dense), torch.bfloat16)
    result = bench_texts(engines, gguf, rivals, tokens, repeats)
    show({"model": model, "gguf": gguf, "dense": dense, **asdict(result)}, Fitted(result.table()))


def tell(text: str) -> None:
    """Print a line on what is being done, in the first of the processes that torchrun starts."""
    if speaks():
        say(text)


def check_room(folder: Path, tokens: int) -> None:
    """Raise unless a model has positions for a prompt and `tokens` more."""
    from .run.measure.bench import PROMPT_TOKENS

    check_language_model(folder)
    needed = PROMPT_TOKENS + tokens
    positions = fitting_length(build_model(folder), needed)
    if positions < needed:
        raise OptionError(
            f"a prompt of {PROMPT_TOKENS} tokens and --tokens {tokens} are more than the "
            f"{positions} positions of {str(folder)!r}"
            + (f"; --tokens {positions - PROMPT_TOKENS} fits" if positions > PROMPT_TOKENS else "")
        )


def _recipe(options: dict[str, Any]) -> Recipe:
    names = ("density", "pattern", "budget", "update", "tokens", "stages")
    given = {name: options[name] for name in names}
    return as_recipe(options["method"]).with_options(**given).settle()


def window_length(folder: Path, length: int) -> int:
    """Return the length of windows, no more than the model has positions."""
    fitting = fitting_length(build_model(folder), length)
    if fitting < length:
        tell(f"windows of {fitting} tokens, all the positions that the model has")
    return fitting


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a model folder, or raise CheckpointError."""
    try:
        return read_tokenizer(folder)
    except Exception as error:  # transformers has no error of its own for it
        raise CheckpointError(_no_tokenizer(folder, error)) from error


def _no_tokenizer(folder: Path, error: Exception) -> str:
    """Say that a folder's texts cannot be read, and what to do."""
    if is_causal_language_model(folder):
        # What transformers says of a missing file speaks of other packages.
        why = str(error).strip().partition("\n")[0]
        reason = f" that can be read ({why})" if holds_tokenizer(folder) else ""
        return (
            f"{str(folder)!r} has no tokenizer{reason}; write the original model's into it: "
            f"AutoTokenizer.from_pretrained(ORIGINAL).save_pretrained({str(folder)!r})"
        )
    return (
        f"{str(folder)!r} holds a model without a tokenizer ({_architecture(folder)}), and the "
        "command works on models of text; prune it in Python, with thresher.prune(model, "
        "'sparsegpt', data, density=0.5)"
    )


def _architecture(folder: Path) -> str:
    return ", ".join(read_config(folder).get("architectures") or ["of no known architecture"])
