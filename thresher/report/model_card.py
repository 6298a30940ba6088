"""The card that a model's page on the hub shows: what was done, what it cost, how to load it."""

from __future__ import annotations

__all__ = ["write_card"]

import json
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..core.files import read_json, write_text
from ..core.numbers import removed
from ..core.paths import hub_name, model_name
from ..core.records import CARD_BEGINS
from .answers import size_rows, speed_rows
from .quality import quality_rows
from .verdict import judge

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

_FILE = "README.md"
_REMEDY = "write or fetch the model again"


def write_card(record: PruneRecord, folder: Path) -> None:
    """Write a folder's ``README.md`` from its record.

    Licence, languages and whatever else the card says that lies there, such as the dense model's,
    are kept; its text is not, which speaks of another model.

    Parameters
    ----------
    record : PruneRecord
        How the model was made.
    folder : Path
        With the model's ``config.json``.
    """
    card = f"---\n{_data(record, folder)}\n---\n\n{_text(record, folder)}"
    write_text(folder / _FILE, card)


def _data(record: PruneRecord, folder: Path) -> str:
    """Return what the hub sorts models by, as YAML."""
    from huggingface_hub import ModelCardData

    known = _known(folder)
    tags = known.pop("tags", None) or []
    tags = [*tags, *(tag for tag in ("thresher", "sparse", record.method) if tag not in tags)]
    # A folder's place is nobody's business.
    if name := hub_name(record.model):
        known["base_model"] = name
    known.setdefault("library_name", "transformers")
    return str(ModelCardData(**known, tags=tags).to_yaml())


def _known(folder: Path) -> dict[str, Any]:
    """Return what the card says that lies in a folder, nothing where it cannot be read."""
    import yaml
    from huggingface_hub import ModelCard

    try:
        data = ModelCard.load(folder / _FILE, ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    # Measured of another model.
    return {key: value for key, value in data.items() if key not in ("model-index", "eval_results")}


def _text(record: PruneRecord, folder: Path) -> str:
    name = model_name(record.model)
    told = judge(record)
    rows = [*quality_rows(record), *size_rows(record), *speed_rows(record)]
    parts = [
        f"# {name}, {removed(record.density)} pruned by {record.method}",
        " ".join([f"{told.headline}.", *told.sentences, told.warning]).strip(),
        _table(("", "dense", "pruned", "ratio"), rows) if rows else "",
        f"## Load it\n\n```python\n{_loading(folder)}\n```",
        f"## How it was made\n\n{_made(record)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _loading(folder: Path) -> str:
    config = read_json(folder / "config.json", _REMEDY)
    causal = any("CausalLM" in each for each in config.get("architectures") or ())
    kind = "AutoModelForCausalLM" if causal else "AutoModel"
    lines = [f"from transformers import {kind}", "", f'model = {kind}.from_pretrained("FOLDER")']
    if "thresher" in json.dumps(config):
        lines.insert(0, "import thresher  # teaches transformers this format")
    return "\n".join(lines)


def _made(record: PruneRecord) -> str:
    told = ", ".join(f"{key} {value}" for key, value in record.versions.items())
    used = ", ".join(f"{key}: {_said(value)}" for key, value in record.calibration.items())
    lines = [f"{CARD_BEGINS} calibrated on {used}; {told}."]
    if record.parts:
        import yaml

        lines.append(f"```yaml\n{yaml.safe_dump(record.parts, sort_keys=False)}```")
    return "\n\n".join(lines)


def _said(value: Any) -> str:
    """Return a value without the folder that a file lies in."""
    text = str(value)
    return PurePath(text).name if Path(text).is_absolute() else text
