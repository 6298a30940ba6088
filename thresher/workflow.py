"""What the commands do, on folders and terminals; the library proper prints nothing."""

from __future__ import annotations

__all__ = [
    "PruneJob",
    "bench_folder",
    "evaluate_folder",
    "load_model",
    "read_record",
    "run_evidence",
    "show_info",
]

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .core.errors import CheckpointError, DataError, OptionError
from .core.files import read_json, write_text
from .core.records import restored
from .parts.calibration import embedded_text, read_text, token_windows
from .prune.disk import DiskOptions, prune_folder
from .prune.memory import as_recipe
from .prune.recipe import Recipe
from .prune.record import PruneRecord
from .report.html import write_report
from .report.tables import kind_table, layer_table, recipe_table, summary_table
from .run.evaluate import compare, perplexity
from .run.files.checkpoint import Checkpoint, resolve
from .run.files.companions import RECORD_FILE
from .run.files.recount import describe, kept_in_folder

_console = Console(emoji=False)  # n:m:g is the name of a layout

_REMEDY = "delete it to go on without a record, or fetch the model again"
#: Windows of the quick runs that draw perplexity against density.
_CURVE_WINDOWS = 4
_EVALUATION_WINDOWS = 16
_CURVE_DENSITIES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


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
        self.recipe = _recipe(options)
        self.source = resolve(model)
        self.out = Path(options["out"])
        self.dtype = _dtype(options["dtype"])
        self.tokenizer = _tokenizer(self.source)
        self.length = _fitting_length(self.source, int(options["length"]))
        self.text_source, text = _calibration_text(options["calibration"])
        self.calibration, self.held_out = self._windows(text)

    def run(self) -> None:
        """Prune, evaluate, write the report and print the table."""
        record = prune_folder(
            self.source,
            self.out,
            self.recipe,
            self.calibration,
            self._disk_options(),
            {"source": self.text_source, "windows": len(self.calibration), "length": self.length},
        )
        record.evaluation |= self._sizes()
        if self.options["evaluate"]:
            record.evaluation |= self._evaluate()
        if self.options["curve"]:
            record.evaluation["curve"] = self._curve(record)
        write_text(self.out / RECORD_FILE, record.to_json())
        write_report(record, self.out / "report.html")
        _console.print(summary_table(record))
        _console.print(f"wrote {self.out} and {self.out / 'report.html'}")

    def _disk_options(self) -> DiskOptions:
        return DiskOptions(
            dtype=self.dtype,
            unseen=self.options["unseen"],
            precision=_dtype(self.options["precision"]),
            include=self.options["include"],
            exclude=self.options["exclude"],
            spill=self.options["spill"],
            overwrite=self.options["overwrite"],
        )

    def _windows(self, text: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Cut calibration windows, and evaluation windows that do not overlap them."""
        wanted = self.options["windows"]
        if wanted < 1:
            raise OptionError(f"--windows {wanted} leaves nothing to calibrate on; use 1 or more")
        if self.options["text"]:
            held_out = token_windows(
                self.tokenizer,
                read_text(self.options["text"]),
                length=self.length,
                count=_EVALUATION_WINDOWS,
            )
            return self._cut(text, wanted), held_out
        both = self._cut(text, wanted + _EVALUATION_WINDOWS)
        spare = min(_EVALUATION_WINDOWS, max(0, len(both) - 1), max(1, len(both) // 4))
        used = min(wanted, len(both) - spare)
        return both[:used], both[used:] if spare else None

    def _cut(self, text: str, count: int) -> torch.Tensor:
        return token_windows(self.tokenizer, text, length=self.length, count=count)

    def _evaluate(self) -> dict[str, Any]:
        if self.held_out is None:
            _console.print(
                "not evaluated: the calibration text has no window to spare; pass --text FILE"
            )
            return {}
        if not is_causal_language_model(self.source):
            _console.print("not evaluated: no causal language model, which perplexity is of")
            return {}
        _console.print(f"evaluating on {len(self.held_out)} windows ...")
        dense = load_model(self.source, self.dtype)
        found = asdict(compare(dense, load_model(self.out), self.held_out))
        text = str(self.options["text"] or f"{self.text_source}, held out")
        return {"text": text, "windows": len(self.held_out), "length": self.length, **found}

    def _sizes(self) -> dict[str, Any]:
        sparse = Checkpoint(self.out)
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

    def _curve(self, record: PruneRecord) -> list[dict[str, Any]]:
        """Prune to several densities with few windows, to show what a smaller cut costs."""
        if not is_causal_language_model(self.source):
            _console.print("no curve: it needs a causal language model")
            return []
        if self.held_out is None or self.recipe.pattern.density is not None:
            _console.print("no curve: it needs held-out text and a pattern of free density")
            return []
        points = []
        windows = self.calibration[:_CURVE_WINDOWS]
        # The model itself marks its own density in the report.
        for density in (d for d in _CURVE_DENSITIES if d != record.density_asked):
            _console.print(f"curve: pruning to density {density:g} ...")
            folder = self.out.with_name(f"{self.out.name}.curve")
            shutil.rmtree(folder, ignore_errors=True)
            options = replace(self._disk_options(), overwrite=True)
            prune_folder(
                self.source, folder, replace(self.recipe, density=density), windows, options
            )
            value = perplexity(load_model(folder), self.held_out)
            shutil.rmtree(folder)
            method = f"{record.method}, {len(windows)} calibration windows"
            points.append({"density": density, "perplexity": value, "method": method})
        return points


def evaluate_folder(model: str, text: Path, dense: str | None, windows: int, length: int) -> None:
    """``thresher eval``: print perplexity, and the distance to a dense model if given."""
    folder = resolve(model)
    cut = token_windows(_tokenizer(folder), read_text(text), length=length, count=windows)
    table = Table(title=f"{model} on {text}, {len(cut)} windows of {length} tokens")
    table.add_column("measure")
    table.add_column("value", justify="right")
    if dense is None:
        table.add_row("perplexity", f"{perplexity(load_model(folder), cut):.3f}")
    else:
        found = compare(load_model(resolve(dense)), load_model(folder), cut)
        table.add_row("perplexity", f"{found.pruned_perplexity:.3f}")
        table.add_row("dense perplexity", f"{found.dense_perplexity:.3f}")
        table.add_row("KL divergence (nats)", f"{found.kl:.4f}")
        table.add_row("top-1 agreement", f"{found.top1_agreement:.2%}")
    _console.print(table)


def show_info(model: str, layers: bool) -> None:
    """``thresher info``: print the record, and what the files say."""
    folder = resolve(model)
    checkpoint = Checkpoint(folder)
    record = read_record(folder)
    _console.print(recipe_table(record))
    if layers:
        stored = {
            layer.name: checkpoint.stored_bytes(f"{layer.name}.weight")
            for layer in record.layers
            if f"{layer.name}.weight" in checkpoint
        }
        _console.print(layer_table(record, stored))
    else:
        _console.print(kind_table(record))


def read_record(folder: Path) -> PruneRecord:
    """Return the record that lies beside a pruned model, held against the model's weights.

    Where the weights are no longer those that the record counted, because the model was trained
    or merged since, the counts are those of the weights.

    Raises
    ------
    CheckpointError
        If there is none; the message says what the files hold.
    """
    file = folder / RECORD_FILE
    data = read_json(file, _REMEDY) if file.is_file() and file.stat().st_size else {}
    if not data:
        raise CheckpointError(
            f"{str(folder)!r}: no record was kept of how the model was pruned. {describe(folder)}"
        )
    try:
        record = restored(PruneRecord, data)
    except ValueError as error:
        raise CheckpointError(
            f"{str(file)!r} is not a pruning record: {error}; {_REMEDY}"
        ) from error
    return record.recounted(kept_in_folder(folder, [layer.name for layer in record.layers]))


def is_causal_language_model(folder: Path) -> bool:
    """Return whether a folder's architecture predicts next tokens.

    transformers builds a head of random weights where an encoder is asked for as one.
    """
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = transformers.AutoConfig.from_pretrained(folder)
    heads = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    return bool(heads & set(config.architectures or ()))


def load_model(folder: Path, dtype: torch.dtype | None = None) -> Any:
    """Return a transformers causal language model in evaluation mode."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if not is_causal_language_model(folder):
        raise DataError(
            f"{str(folder)!r} is no causal language model, so that it has no perplexity"
        )
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto")
    except RuntimeError as error:
        raise CheckpointError(
            f"{str(folder)!r} cannot be loaded: {error} Its tensors do not fit its configuration; "
            "write or fetch it again"
        ) from error
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{str(folder)!r} is no causal language model that can be evaluated: {error}"
        ) from error
    return model.eval()  # type: ignore[no-untyped-call]


def run_evidence(names: Sequence[str], scale: float, seeds: int | None, out: Path) -> None:
    """``thresher evidence``: rerun experiments, all if none is named, and print the verdicts."""
    from .core.evidence import available, execute
    from .report.methods import experiment_progress, print_evidence

    for each in names or available():
        with experiment_progress(each):
            chosen = None if seeds is None else range(seeds)
            result = execute(each, scale=scale, seeds=chosen, folder=out)
        print_evidence(result)
        _console.print(f"{result['seconds']} s; wrote {out / each}.json and .html")


def bench_folder(
    model: str, dense: str, batch: tuple[int, ...], tokens: int, repeats: int, layers: bool
) -> None:
    """``thresher bench``: choose layouts by measurement, then generate with both models.

    A folder that was saved packed keeps the layouts that it has.
    """
    from .run.files.stored import describe_layouts
    from .run.measure.bench import bench
    from .run.pack import choose_layouts

    packed = load_model(resolve(model), torch.bfloat16)
    if not describe_layouts(packed):
        packing = choose_layouts(packed, batch)
        packing.apply(packed)
        packing.show(every_layer=layers)
    rival = load_model(resolve(dense), torch.bfloat16)
    _console.print(bench(rival, packed, new_tokens=tokens, repeats=repeats).table())


def _recipe(options: dict[str, Any]) -> Recipe:
    parts = (options[name] for name in ("density", "pattern", "budget", "update"))
    recipe = as_recipe(options["method"]).with_options(*parts)
    recipe.target  # noqa: B018 - raises now if nothing says how much to keep
    return recipe


def _dtype(name: str) -> torch.dtype | None:
    dtype: torch.dtype | None = None if name == "auto" else getattr(torch, name)
    return dtype


def _fitting_length(folder: Path, length: int) -> int:
    """Return the length of windows, no more than the model has positions."""
    from transformers import AutoConfig

    positions = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < length:
        _console.print(f"windows of {positions} tokens, all the positions that the model has")
        return positions
    return length


def _calibration_text(file: Path | None) -> tuple[str, str]:
    return (str(file), read_text(file)) if file else ("Python's documentation", embedded_text())


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"{str(folder)!r} has no usable tokenizer: {error}") from error
