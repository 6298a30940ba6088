"""Smaller CNNs beside Torch-Pruning's: accuracy against latency in torch and ONNX Runtime.

    python -m pip install "thresher[onnx]" torch-pruning==1.6.1
    python -m benchmarks.smaller_cnn             # train, make smaller, fine-tune: half an hour
    python -m benchmarks.smaller_cnn speed       # on a quiet machine

A ResNet of three stages (He et al. 2016, section 4.2, one block each) is trained on CIFAR-10. Every
method makes it smaller to several degrees, each result is fine-tuned for as many passes over the
images, and all are timed in turn. Torch-Pruning is given importances that its examples offer, over
the whole network. Rows are merged into ``benchmarks/results/smaller-cnn.json``, networks are kept
in ``artifacts/smaller-cnn``.
"""

import argparse
import copy
import dataclasses
import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from thresher.assets import cifar10
from thresher.core.files import write_text

from .machine import QUIET_PERCENT, busy_percent, provenance

RESULTS = Path(__file__).parent / "results" / "smaller-cnn.json"
NETWORKS = Path("artifacts/smaller-cnn")
PACKAGES = ("torch", "torch-pruning", "onnxruntime", "numpy")
#: Passes over the images: to train, and to fine-tune what is smaller.
EPOCHS, TUNING = 6, 0.3
BATCH, RATE, TUNING_RATE = 128, 0.1, 0.02
#: Shares of weights that ours keep, and shares of channels that Torch-Pruning removes.
DENSITIES, RATIOS = (0.6, 0.4, 0.25, 0.12), (0.1, 0.2, 0.35, 0.5)
OURS, THEIRS = ("spa", "obspa"), ("magnitude", "taylor")
#: Channels that are left are a multiple of it: engines compute several at a time.
MULTIPLE = 8
#: Speed-ups at which accuracies are compared.
SPEEDUPS = (1.5, 2.0, 3.0)
#: Images at a time when timed.
SIZES = (1, 64)


class Block(nn.Module):
    """Two convolutions beside a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return both summed, and rectified."""
        out = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(out)) + self.skip(x))


def resnet(width: int = 32, blocks: int = 1) -> nn.Sequential:
    """Return a ResNet for images of 32 x 32 pixels."""
    widths = [width * 2**stage for stage in range(3) for _ in range(blocks)]
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)]
    for inputs, outputs in zip([width, *widths], widths, strict=False):
        layers.append(Block(inputs, outputs, 1 if inputs == outputs else 2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def images(share: float) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """Return images to train on and to be measured on, with their labels."""
    mean, deviation = torch.tensor([0.491, 0.482, 0.447]), torch.tensor([0.247, 0.243, 0.262])

    def split(pixels: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        some = int(share * len(pixels))
        scaled = (torch.from_numpy(pixels[:some].copy()).float() / 255 - mean) / deviation
        return scaled.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels[:some]).long()

    return tuple(split(*each) for each in cifar10())


def train(model: nn.Module, data, epochs: float, rate: float) -> None:
    """Train with momentum, flips and shifts, the rate falling to zero."""
    x, y = data
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), rate, 0.9, weight_decay=5e-4, nesterov=True)
    steps = int(epochs * len(x)) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for step in range(steps):
        chosen = torch.randint(len(x), (BATCH,))
        batch, (up, left) = nn.functional.pad(x[chosen], (4, 4, 4, 4)), torch.randint(9, (2,))
        batch = batch[:, :, up : up + 32, left : left + 32]
        batch = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, batch.flip(3), batch)
        loss = nn.functional.cross_entropy(model(batch), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"  step {step} of {steps}, loss {loss:.3f}", flush=True)
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data) -> float:
    """Return the percentage of images that a network classifies rightly."""
    x, y = data
    right = sum(
        int((model(some).argmax(1) == labels).sum())
        for some, labels in zip(x.split(500), y.split(500), strict=True)
    )
    return round(100 * right / len(y), 2)


def ours(method: str) -> Callable[[nn.Module, object, float], nn.Module]:
    """Return a function that keeps a share of the weights by a method of this library."""

    def smaller(model: nn.Module, data, density: float) -> nn.Module:
        import thresher as th
        from thresher.parts.spreads import WholeModel
        from thresher.prune.smaller import as_smaller_recipe

        spread = WholeModel("mean", multiple=MULTIPLE)
        recipe = dataclasses.replace(as_smaller_recipe(method), spread=spread, density=density)
        batches = [data[0][start : start + BATCH] for start in range(0, 1024, BATCH)]
        return th.prune(model, recipe, data=batches, example=batches[0][:1], progress=False)

    return smaller


def theirs(importance: str) -> Callable[[nn.Module, object, float], nn.Module]:
    """Return a function that removes a share of the channels with Torch-Pruning."""

    def smaller(model: nn.Module, data, ratio: float) -> nn.Module:
        import torch_pruning

        scores = {
            "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
            "taylor": torch_pruning.importance.GroupTaylorImportance,
        }
        small = copy.deepcopy(model)
        if importance == "taylor":
            nn.functional.cross_entropy(small(data[0][:512]), data[1][:512]).backward()
        torch_pruning.pruner.MetaPruner(
            small,
            data[0][:1],
            importance=scores[importance](),
            global_pruning=True,
            pruning_ratio=ratio,
            round_to=MULTIPLE,
            ignored_layers=[small[-1]],
        ).step()
        small.zero_grad()
        return small

    return smaller


def cases() -> dict[str, tuple[Callable[[nn.Module, object, float], nn.Module], float]]:
    """Return what makes the trained network smaller, and how far, by name."""
    mine = {f"{m} {x}": (ours(m), x) for m, x in product(OURS, DENSITIES)}
    peer = {f"torch-pruning {i} {x}": (theirs(i), x) for i, x in product(THEIRS, RATIOS)}
    return mine | peer


def make(share: float, epochs: float, tuning: float) -> None:
    """Train the network, make it smaller in every way, fine-tune and keep the results."""
    NETWORKS.mkdir(parents=True, exist_ok=True)
    data, held_out = images(share)
    dense = resnet()
    sizes = {"images": len(data[0]), "epochs": epochs, "tuning": tuning}
    if "dense" not in known():
        train(dense, data, epochs, RATE)
        store("dense", dense, {"accuracy": accuracy(dense, held_out)} | sizes)
    dense = stored("dense")
    for name, (smaller, degree) in cases().items():
        if name in known():
            continue
        started = time.perf_counter()
        small = smaller(dense, data, degree)
        row = {"seconds": round(time.perf_counter() - started, 1)} | sizes
        row["untrained"] = accuracy(small.eval(), held_out)
        for parameter in small.parameters():
            parameter.requires_grad_(True)
        train(small, data, tuning, TUNING_RATE)
        store(name, small, row | {"accuracy": accuracy(small, held_out)})


def store(name: str, model: nn.Module, row: dict[str, object]) -> None:
    """Keep a network's weights, the network as ONNX, and its row."""
    file = NETWORKS / name.replace(" ", "-")
    save_file(model.state_dict(), f"{file}.safetensors")
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, 32, 32),),
        f"{file}.onnx",
        input_names=["x"],
        dynamic_shapes=({0: torch.export.Dim("images")},),
        external_data=False,
        verbose=False,
    )
    row["weights"] = sum(p.numel() for p in model.parameters())
    merge({name: row | provenance(*PACKAGES)})
    print(name, row, flush=True)


def stored(name: str) -> nn.Module:
    """Return a network of the sizes that its weights have."""
    state = load_file(NETWORKS / f"{name.replace(' ', '-')}.safetensors")
    model = resnet()
    for place, module in list(model.named_modules()):
        weight, bias = (state.get(f"{place}.{part}") for part in ("weight", "bias"))
        if isinstance(module, nn.Conv2d):
            outputs, inputs, *kernel = weight.shape
            sized = nn.Conv2d(
                inputs, outputs, kernel, module.stride, module.padding, bias=bias is not None
            )
        elif isinstance(module, nn.BatchNorm2d):
            sized = nn.BatchNorm2d(len(weight))
        elif isinstance(module, nn.Linear):
            sized = nn.Linear(weight.shape[1], weight.shape[0])
        else:
            continue
        model.set_submodule(place, sized)
    model.load_state_dict(state)
    return model.eval()


def speed(repeats: int) -> None:
    """Time every network beside the dense one, in turn, and compare accuracies."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    rows = known()
    calls: dict[str, dict[str, Callable[[torch.Tensor], object]]] = {"torch": {}, "onnxruntime": {}}
    for name in rows:
        file = NETWORKS / name.replace(" ", "-")
        session = onnxruntime.InferenceSession(f"{file}.onnx", options)
        calls["torch"][name] = stored(name)
        calls["onnxruntime"][name] = lambda x, s=session: s.run(None, {"x": x.numpy()})
    for engine, by_name in calls.items():
        for size in SIZES:
            taken = interleaved(by_name, torch.randn(size, 3, 32, 32), repeats)
            dense = taken["dense"]
            for name, seconds in taken.items():
                ratios = [whole / small for whole, small in zip(dense, seconds, strict=True)]
                rows[name][f"{engine} {size}"] = {
                    "ms": round(1e3 * min(seconds), 3),
                    "speedup": round(median(ratios), 3),
                }
    timed = {"threads": torch.get_num_threads(), "busy_percent": busy_percent(1.0)}
    merge({name: row | {"timed": timed} for name, row in rows.items()})


@torch.inference_mode()
def interleaved(calls, x: torch.Tensor, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of calls of each, taken in turn after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(max(1, 16 // len(x))):
                call(x)
            if repeat:
                taken[name].append(time.perf_counter() - started)
    return taken


def table() -> None:
    """Print what every method is right on at the speed-ups that are compared."""
    rows = known()
    for column in (key for key in rows["dense"] if key.split()[0] in ("torch", "onnxruntime")):
        print(f"\n{column}: accuracy at speed-ups of {SPEEDUPS}, dense {rows['dense']['accuracy']}")
        for method in dict.fromkeys(name.rpartition(" ")[0] for name in rows if name != "dense"):
            found = [row for name, row in rows.items() if name.rpartition(" ")[0] == method]
            points = sorted((row[column]["speedup"], row["accuracy"]) for row in found)
            at = np.interp(SPEEDUPS, *zip(*points, strict=True), left=np.nan, right=np.nan)
            print(f"  {method:28}{''.join(f'{value:8.2f}' for value in at)}   {points}")


def known() -> dict[str, dict[str, object]]:
    """Return what is measured."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def merge(rows: dict[str, dict[str, object]]) -> None:
    """Add rows to the results."""
    write_text(RESULTS, json.dumps(known() | rows, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("make", "speed", "table"), nargs="?", default="make")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the images, to train on and to test on"
    )
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--tuning", type=float, default=TUNING, help="epochs for smaller ones")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if options.part == "make":
        make(options.share, options.epochs, options.tuning)
    if options.part == "speed":
        if (busy := busy_percent()) > QUIET_PERCENT:
            parser.error(f"others take {busy:.0f} % of the processor; time on a quiet machine")
        speed(options.repeats)
    if known() and "torch 1" in known()["dense"]:
        table()


if __name__ == "__main__":
    main()
