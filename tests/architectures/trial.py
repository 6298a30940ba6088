"""What is tried on every architecture, each piece of work done once and shared by the checks."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import thresher as th
from thresher.core.errors import ThresherError
from thresher.prune.disk import DiskOptions, prune_folder
from thresher.prune.memory import as_recipe
from thresher.prune.record import PruneRecord

from . import oracle
from .architecture import Architecture

#: Sums in another order part the scores of a near tie: one weight of a row, two entries of a mask.
LEAST_AGREEMENT = 0.999
#: Of logits of about one, through kernels that sum in another order.
LOGITS_TOLERANCE = 1e-4


@dataclass
class Trial:
    """One architecture, pruned once, saved once and packed once.

    Parameters
    ----------
    architecture : Architecture
        What is tried.
    folder : Path
        An empty folder to work in.
    """

    architecture: Architecture
    folder: Path
    _samples: list[dict[str, torch.Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self._samples = self.architecture.samples()

    @cached_property
    def dense(self) -> nn.Module:
        """The model as it was built."""
        return self.architecture.build()

    @cached_property
    def memory(self) -> tuple[nn.Module, PruneRecord]:
        """The model pruned in memory, and the record."""
        return self._prune(cache=True)

    def _prune(self, cache: bool) -> tuple[nn.Module, PruneRecord]:
        model = copy.deepcopy(self.dense)
        if not cache:
            oracle.forbid_cache(model)
        record = th.prune(model, "wanda", self.samples(), density=0.5, progress=False)
        return model, record

    def samples(self) -> list[dict[str, torch.Tensor]]:
        """The inputs, which no run may change for the next."""
        return copy.deepcopy(self._samples)

    def logits(self, model: nn.Module) -> list[torch.Tensor]:
        """Everything of floating point that a model gives for the first sample."""
        with torch.no_grad():
            output = model(**self.samples()[0])
        values = output.to_tuple() if hasattr(output, "to_tuple") else output
        return [value for value in values if isinstance(value, torch.Tensor)]

    def outcome(self, check: str) -> str:
        """Return a cell of the table; raise if the check fails."""
        if check == "disk" and not self.architecture.takes_token_ids_alone:
            return "-"
        try:
            CHECKS[check](self)
        except ThresherError:
            return "refused"
        return "yes"

    def agreement(self) -> None:
        """Masks chosen in memory are those of plain passes, with a cache or without."""
        model, record = self.memory
        choices = self._choices(model, record)
        for cache in (True, False):
            made = oracle.wanda(self.dense, self.samples(), cache=cache, choices=choices)
            shares = made.agreement(model)
            unseen = choices.keys() - shares.keys()
            assert not unseen, f"pruned, but used as no matrix: {sorted(unseen)}"
            wrong = {n: round(s, 4) for n, s in shares.items() if s < LEAST_AGREEMENT}
            total = made.total(model)
            assert total >= LEAST_AGREEMENT, f"cache={cache}, agreement {total:.4f}: {wrong}"

    def _choices(self, model: nn.Module, record: PruneRecord) -> dict[str, oracle.Choice]:
        """Return what was pruned at once, and how much of it."""
        dense, blocks = dict(self.dense.named_parameters()), {}
        for layer in record.layers:
            whole = layer.name.partition("[")[0]
            blocks[whole if whole in dense else f"{whole}.weight"] = layer.block
        choices = {}
        for name, pruned in model.named_parameters():
            gone = int((pruned == 0).sum()) - int((dense[name] == 0).sum())
            assert (gone > 0) == (name in blocks), f"the record is wrong about {name}"
            if gone:
                density = float((pruned != 0).double().mean())
                choices[name] = oracle.Choice(blocks[name], density)
        kept = sum(c.density * dense[n].numel() for n, c in choices.items())
        share = kept / sum(dense[n].numel() for n in choices)
        assert abs(share - 0.5) < 0.005, f"asked for half, kept {share:.4f}"
        return choices

    def accounted(self) -> None:
        """Whatever is used as a matrix is pruned, or counted among what is not, by its name.

        The output head and embeddings aside, only routers and depthwise kernels of few taps
        may be kept on purpose.
        """
        model, record = self.memory
        sizes = {name: p.numel() for name, p in self.dense.named_parameters()}
        told = record.coverage
        kept, unknown = told["kept"], told["not_understood"]
        assert told["parameters"] == sum(sizes.values())
        assert told["parameters"] == told["pruned"] + sum([*kept.values(), *unknown.values()])
        pruned = self._choices(model, record).keys()
        assert told["pruned"] == sum(sizes[name] for name in pruned)
        plain = oracle.working_copy(self.dense, cache=True)
        used = oracle.matrices(plain, oracle.watch(plain, self.samples()))
        left = [name for name in used if name not in pruned and name not in unknown]
        few = kept.get("router", 0) + kept.get("depthwise kernel", 0)
        assert sum(sizes[name] for name in left) == few, f"dense without a word: {left}"

    def without_cache(self) -> None:
        """Masks are the same when the model's own configuration forbids a cache."""
        other, _ = self._prune(cache=False)
        differ = differing(self.memory[0], other)
        assert not differ, f"other masks without a cache: {differ}"

    def from_disk(self) -> None:
        """The folder pruned block by block has the masks of the model pruned in memory."""
        source, out = self.folder / "dense", self.folder / "disk"
        self.dense.save_pretrained(source)
        windows = torch.cat([sample["input_ids"] for sample in self.samples()])
        recipe = as_recipe("wanda").with_options(0.5)
        prune_folder(source, out, recipe, windows, DiskOptions(progress=False))
        differ = differing(self.memory[0], self._load(out))
        assert not differ, f"other masks from disk: {differ}"

    def reload(self) -> None:
        """What was saved gives the same logits when it is loaded."""
        model, record = self.memory
        th.save(model, self.folder / "pruned", record)
        self._same_logits(model, self._load(self.folder / "pruned"))

    def packed_reload(self) -> None:
        """What was packed and saved gives the same logits when it is loaded."""
        # In one layout, so that no timing decides what is tried; others have tests of their own.
        packed = th.pack(
            copy.deepcopy(self.memory[0]),
            batch=(1,),
            candidates=["bitmask"],
            repeats=1,
            gain=1e-9,
            show=False,
        )
        self._same_logits(self.memory[0], packed)
        packed.save_pretrained(self.folder / "packed")
        self._same_logits(packed, self._load(self.folder / "packed"))

    def _load(self, folder: Path) -> nn.Module:
        return type(self.dense).from_pretrained(folder).eval()

    def _same_logits(self, wanted: nn.Module, got: nn.Module) -> None:
        for want, have in zip(self.logits(wanted), self.logits(got), strict=True):
            off = float((want - have).abs().max() / want.abs().max().clamp(min=1e-6))
            assert off < LOGITS_TOLERANCE, f"logits differ by {off:.1e} of the largest"

    def close(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)


#: By column of the table.
CHECKS = {
    "memory": Trial.agreement,
    "accounted": Trial.accounted,
    "no cache": Trial.without_cache,
    "disk": Trial.from_disk,
    "reload": Trial.reload,
    "packed": Trial.packed_reload,
}


def differing(left: nn.Module, right: nn.Module) -> dict[str, float]:
    """Return by parameter the share of equal mask entries, where it is too low."""
    others = dict(right.named_parameters())
    shares: dict[str, Any] = {
        name: float(((p == 0) == (others[name] == 0)).double().mean())
        for name, p in left.named_parameters()
    }
    return {name: round(s, 4) for name, s in shares.items() if s < LEAST_AGREEMENT}
