"""How far our masks and the peer's agree, layer by layer.

    python -m benchmarks.quality.agreement [--case sparsegpt-2:4] [--windows 0:4] [--float32]

Where the same layers see the same inputs, the same algorithm chooses the same weights. From
then on rounding parts the two: a group of four that was nearly a tie goes the other way, what
comes after it in the row absorbs another error, and the next block sees other inputs. With
``--float32`` both sides run the model in float32 and part later, but part all the same. Results
are merged into ``benchmarks/results/quality-agreement.json``.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from statistics import mean

from safetensors import safe_open

from thresher.run.files.export import export

from . import ours, reference
from .windows import label

RESULTS = ours.RESULTS.with_name("quality-agreement.json")
LAYER = re.compile(r"model\.layers\.(\d+)\.(.*_proj)\.weight")


def agreement(ours: Path, peer: Path) -> list[dict[str, float]]:
    """Return, for each block and each of its layers, the share of weights on which masks agree."""
    blocks: dict[int, dict[str, float]] = {}
    found = _masks(peer)
    for name, mask in _masks(ours).items():
        block, layer = LAYER.fullmatch(name).groups()
        share = float((mask == found[name]).float().mean())
        blocks.setdefault(int(block), {})[layer] = round(share, 5)
    return [blocks[block] for block in sorted(blocks)]


def _masks(folder: Path) -> dict:
    masks = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            names = filter(LAYER.fullmatch, tensors.keys())
            masks |= {name: tensors.get_tensor(name) != 0 for name in names}
    return masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=reference.CASES, default="sparsegpt-2:4")
    parser.add_argument("--windows", default="0:4", help="calibrate on the windows A:B")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 in our forward passes")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours.run(given.case, given.windows, False, folder / "sparse", given.float32)
        export(folder / "sparse", folder / "ours")
        reference.run(given.case, given.windows, given.threads, False, folder / "peer")
        blocks = agreement(folder / "ours", folder / "peer")
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    name = label(given.case, given.windows) + (" in float32" if given.float32 else "")
    RESULTS.write_text(json.dumps(known | {name: blocks}, indent=1) + "\n", encoding="utf-8")
    for number, block in enumerate(blocks):
        each = "  ".join(f"{layer.split('.')[1]} {share:.4f}" for layer, share in block.items())
        print(f"block {number:2}: mean {mean(block.values()):.4f}  {each}")


if __name__ == "__main__":
    main()
