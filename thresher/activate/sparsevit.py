"""SparseViT: transformers for images that leave out windows where little is to be seen."""

from __future__ import annotations

__all__ = ["SparseViT", "SparseWindows", "StageMap"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import LayerError, OptionError
from ..core.options import check_number, check_whole
from ..parts.activations.attached import INPUTS, attach, attached, check_none, detach
from ..parts.activations.window_blocks import blocks_of, map_of, tokens_of
from ..parts.activations.windows import Windows, kept_windows
from ..parts.evolution import Evolution, Genome
from ..stream.passes import calibrating, call
from ..stream.samples import as_samples

#: Sparsities are drawn and searched in tenths, as in the paper.
_STEPS = 10


@dataclass(frozen=True)
class StageMap:
    """What the blocks of a stage compute of an image.

    Parameters
    ----------
    windows : int
        Of the stage's map.
    products : tuple of int
        Multiplications of one window, by block.
    """

    windows: int
    products: tuple[int, ...]


@dataclass(eq=False)
class SparseWindows:
    """The stages of a model whose blocks leave windows out.

    Parameters
    ----------
    model : nn.Module
        Whose they are.
    method : SparseViT
        How much is left out.
    maps : dict of str to StageMap
        By the stage's name, of images such as those that it was attached with.
    """

    model: nn.Module
    method: SparseViT
    maps: dict[str, StageMap]

    @property
    def sparsities(self) -> dict[str, tuple[float, ...]]:
        """Share of the windows that every block leaves out, by the stage's name."""
        return {
            name: tuple(round(share, 6) for share in selection.shares.tolist())
            for name, selection in self._selections().items()
        }

    @sparsities.setter
    def sparsities(self, shares: Mapping[str, Sequence[float]]) -> None:
        """Set them.

        Raises
        ------
        OptionError
            If a share is out of range, or there is not one for each block.
        """
        selections = self._selections()
        if shares.keys() != selections.keys():
            raise OptionError(
                f"sparsities of the stages {list(shares)} do not fit the model, whose stages are "
                f"{list(selections)}; give each a share per block"
            )
        for name, given in shares.items():
            if len(given) != len(selections[name].shares):
                raise OptionError(
                    f"stage {name!r} has {len(selections[name].shares)} blocks and is given "
                    f"{len(given)} sparsities; give one for each block"
                )
            for share in given:
                check_number(f"sparsity of a block of {name!r}", share, below=1)
        for name, given in shares.items():
            selections[name].shares.copy_(torch.tensor(given))

    @property
    def density(self) -> float:
        """Share of the blocks' multiplications that is computed, of images of the same size."""
        return self._density([share for each in self.sparsities.values() for share in each])

    @contextmanager
    def adapting(self, seed: int) -> Iterator[None]:
        """Draw other sparsities for every pass in training mode while the context lasts.

        Every block's is drawn for itself from 0, 0.1, 0.2, ... up to the method's `most`.
        Afterwards they are what they were.

        Parameters
        ----------
        seed : int
        """
        generator = np.random.default_rng(seed)
        before = self.sparsities

        def draw(model: nn.Module, args: Any) -> None:
            if model.training:
                self._set(tuple(generator.integers(self._levels + 1, size=self._blocks).tolist()))

        handle = self.model.register_forward_pre_hook(draw)
        try:
            yield
        finally:
            handle.remove()
            self.sparsities = before

    def search(
        self,
        loss: Callable[[Sequence[int]], float],
        samples: int,
        density: float,
        search: Evolution = Evolution(),  # noqa: B008 - frozen
    ) -> None:
        """Search for the sparsities that lose least for a share of the multiplications.

        The first ones are the same everywhere. An offspring has another sparsity in one block, and
        leaves more out in others until it costs no more than allowed; what it could spend is
        then spent. The model is left with the best ones found.

        Parameters
        ----------
        loss : callable
            ``loss(indices)`` returns what is to be small, of the model as it is then, by the
            samples of these indices.
        samples : int
            How many samples there are; one may be a whole batch.
        density : float
            Share of the blocks' multiplications that may be computed, in (0, 1].
        search : Evolution, default Evolution()
            How long to search, and by how many samples.

        Raises
        ------
        OptionError
            If an option is out of range, or no sparsities up to the method's `most` cost so little.
        """
        check_whole("samples", samples)
        check_number("density, of the multiplications,", density, above=0, most=1)
        uniform = [(level,) * self._blocks for level in range(self._levels + 1)]
        fitting = [genome for genome in uniform if self._cost(genome) <= density]
        if not fitting:
            raise OptionError(
                f"density {density:g} is out of reach: with {self.method.most:g} of the windows "
                f"left out everywhere {self._cost(uniform[-1]):.3g} of the multiplications are "
                "computed; allow that many, or raise most="
            )
        before = self.sparsities

        def judge(genome: Genome, indices: Sequence[int]) -> float:
            self._set(genome)
            return loss(indices)

        try:
            best = search(
                fitting[0], lambda parent, rng: self._changed(parent, density, rng), judge, samples
            )
        except BaseException:
            self.sparsities = before
            raise
        self._set(best)

    def _changed(self, parent: Genome, density: float, rng: np.random.Generator) -> Genome:
        """Return the levels of an offspring, which cost no more than allowed."""
        found = list(parent)
        place = int(rng.integers(len(found)))
        found[place] = int(rng.integers(self._levels + 1))
        while self._cost(found) > density:
            others = [i for i, v in enumerate(found) if i != place and v < self._levels]
            if not others:
                return parent
            found[int(rng.choice(others))] += 1
        for i in rng.permutation(len(found)).tolist():
            while i != place and found[i] and self._cost(_lowered(found, i)) <= density:
                found = _lowered(found, i)
        return tuple(found)

    @property
    def _blocks(self) -> int:
        return sum(len(each.products) for each in self.maps.values())

    @property
    def _levels(self) -> int:
        return int(round(self.method.most * _STEPS, 6))

    def _cost(self, levels: Sequence[int]) -> float:
        return self._density([level / _STEPS for level in levels])

    def _density(self, shares: Sequence[float]) -> float:
        left, done, whole = iter(shares), 0, 0
        for each in self.maps.values():
            whole += each.windows * sum(each.products)
            done += sum(kept_windows(next(left), each.windows) * cost for cost in each.products)
        return done / whole

    def _set(self, levels: Sequence[int]) -> None:
        left = iter(levels)
        self.sparsities = {
            name: [next(left) / _STEPS for _ in each.products] for name, each in self.maps.items()
        }

    def _selections(self) -> dict[str, Windows]:
        found = {
            name: attached(self.model.get_submodule(name)).get(("", INPUTS)) for name in self.maps
        }
        return {name: each for name, each in found.items() if isinstance(each, Windows)}


def _lowered(levels: Sequence[int], place: int) -> list[int]:
    return [level - (i == place) for i, level in enumerate(levels)]


@dataclass(frozen=True)
class SparseViT(Catalogued):
    """Leave out the windows of an image whose activations are smallest, in attention and after it.

    For transformers whose blocks attend within windows, such as Swin. What a stage is given is
    scored once, by the l2 norm of every window's activations, and all its blocks go by that score.
    A block gathers the windows with the largest norms, of every image as many, has its attention
    and feed-forward layers compute these, and puts them back; the others pass it unchanged.

    :meth:`attach`; then, for accuracy, train within :meth:`SparseWindows.adapting`, look for
    sparsities with :meth:`SparseWindows.search`, and train on with those found. The model saves and
    loads with its sparsities as it does with calibrated thresholds.

    Parameters
    ----------
    sparsity : float, default 0.5
        Share of the windows that every block leaves out at first, in [0, 1). At 0 the model gives
        what it gave, bit for bit.
    most : float, default 0.8
        Largest sparsity that is drawn while adapting, and that is searched; in whole tenths.

    Raises
    ------
    OptionError
        If a value is out of range.

    Notes
    -----
    The score is held per token, as the square of its norm, so that it can be read off for any
    windows: a block that shifts its windows rolls the map of these squares as it rolls its
    tokens, and sums them over the windows that result. What fills a map up to whole windows
    counts nothing. Where there are ties, or a batch, the choice is still of exactly as many windows
    for each image: the share that stays times the number of windows, rounded, and one at least. The
    authors' own program takes the mean magnitude of a token's channels instead of its norm.

    Blocks are recognised by what they do, in whichever version of transformers, and proved the
    first time that images of a size come in evaluation mode: half of the windows must come out
    as they do among all, and the rest as it went in. Attention weights that a model returns are
    those of windows that were kept. The cost that is searched under is the number of
    multiplications, where the paper measures time.

    References
    ----------
    Chen et al., SparseViT: Revisiting Activation Sparsity for Efficient High-Resolution Vision
    Transformer (2023), section 3.
    """

    sparsity: float = 0.5
    most: float = 0.8
    card = Card(
        name="sparsevit",
        title="SparseViT: Revisiting Activation Sparsity for Efficient High-Resolution Vision "
        "Transformer",
        authors="Xuanyao Chen, Zhijian Liu, Haotian Tang, Li Yi, Hang Zhao, Song Han",
        year=2023,
        arxiv="2303.17605",
        summary="Compute the windows with the largest norms alone, by ratios that are searched.",
    )

    def __post_init__(self) -> None:
        check_number("sparsity, the share of windows left out,", self.sparsity, below=1)
        check_number("most, the largest sparsity,", self.most, least=1 / _STEPS, below=1)

    def attach(self, model: nn.Module, data: Any) -> SparseWindows:
        """Have the blocks of every stage leave windows out.

        Parameters
        ----------
        model : nn.Module
            With stages of blocks that attend within windows.
        data : Any
            Images to prove the blocks on, see :func:`thresher.activate`; a sample is enough.

        Raises
        ------
        ThresherError
            If there are no such stages, or their blocks do something else with windows, the model
            drops something already, or the data cannot be used; the model is then as it was.
        """
        check_none(model, "take the dense model")
        stages = {name: module for name, module in model.named_modules() if blocks_of(module)}
        if not stages:
            raise LayerError(
                f"{type(model).__name__} has no stages of blocks that attend within windows; take "
                "a Swin, such as SwinModel or SwinForImageClassification of transformers, or a "
                "method for any model, such as 'teal'"
            )
        samples, _ = as_samples(model, data)
        maps: dict[str, StageMap] = {}
        handles = [
            stage.register_forward_pre_hook(_noting(name, maps), with_kwargs=True)
            for name, stage in stages.items()
        ]
        try:
            for name, stage in stages.items():
                shares = torch.full((len(blocks_of(stage)),), 0.5)
                attach(name, stage, Windows(shares).to(next(stage.parameters()).device))
            with calibrating(model):
                call(model, samples[0])
        except BaseException:
            for stage in stages.values():
                detach(stage, INPUTS)
            raise
        finally:
            for handle in handles:
                handle.remove()
        found = SparseWindows(model, self, maps)
        found.sparsities = {name: [self.sparsity] * len(m.products) for name, m in maps.items()}
        return found


def _noting(name: str, maps: dict[str, StageMap]) -> Callable[..., None]:
    def note(stage: nn.Module, args: Any, keywords: Any) -> None:
        x, size = map_of(args, keywords)
        tokens = [tokens_of(block, size, x.device) for block in blocks_of(stage)]
        costs = [
            _products(block, each.shape[1], x.shape[-1])
            for block, each in zip(blocks_of(stage), tokens, strict=True)
        ]
        maps[name] = StageMap(len(tokens[0]), tuple(costs))

    return note


def _products(block: nn.Module, places: int, channels: int) -> int:
    """Return the multiplications of a window: of linear layers, scores and what they weigh."""
    weights = sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Linear))
    return places * (weights + 2 * places * channels)
