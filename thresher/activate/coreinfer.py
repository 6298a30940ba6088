"""CoreInfer: the neurons that a sentence needs, chosen while its prompt is read."""

from __future__ import annotations

__all__ = ["CoreInfer", "CoreNeurons", "Topics"]

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core.card import Card, Catalogued
from ..core.errors import DataError, NumericalError
from ..core.options import check_count, check_number
from ..core.top_k import top_k_mask
from ..parts.activations.attached import Tally, check_none
from ..parts.activations.sites import Site
from ..stream.feedforward import FeedForward
from ..stream.samples import as_samples
from .networks import Networks, dropping


@dataclass(frozen=True)
class CoreNeurons:
    """Which neurons of a model's feed-forward networks a sentence needs.

    Parameters
    ----------
    networks : tuple of FeedForward
        Whose they are.
    masks : tuple of Tensor of bool, shape (neurons,)
        True for those that are kept, a network each.
    """

    networks: tuple[FeedForward, ...]
    masks: tuple[torch.Tensor, ...]

    @property
    def density(self) -> float:
        """Share of all neurons that is kept."""
        return float(torch.cat(self.masks).float().mean())

    def overlap(self, other: CoreNeurons) -> float:
        """Return the share of these neurons that are among the other's too, over all networks."""
        pairs = zip(self.masks, other.masks, strict=True)
        shared = sum(int((mine & theirs).sum()) for mine, theirs in pairs)
        return shared / max(1, sum(int(mask.sum()) for mask in self.masks))

    def applied(self) -> AbstractContextManager[dict[str, Tally]]:
        """Have the model do without the other neurons while the context lasts, which counts them.

        None of the weights that make such a neuron or meet it is needed.
        """
        return dropping(
            [
                (Site.of_inputs(network.down), torch.where(mask, 0.0, math.inf))
                for network, mask in zip(self.networks, self.masks, strict=True)
            ]
        )


@dataclass(frozen=True)
class Topics:
    """Neurons chosen beforehand for groups of sentences of like meaning.

    Parameters
    ----------
    centres : array of shape (groups, width)
        Mean embeddings of each group's sentences.
    cores : tuple of CoreNeurons
        Those that the sentences of a group need together, a group each.
    """

    centres: np.ndarray
    cores: tuple[CoreNeurons, ...]

    def nearest(self, embedding: np.ndarray) -> CoreNeurons:
        """Return the neurons of the group whose centre is nearest to an embedding, (width,).

        Raises
        ------
        DataError
            If its width is not that of the centres.
        """
        width = self.centres.shape[1]
        if np.shape(embedding) != (width,):
            raise DataError(
                f"the embedding has the shape {np.shape(embedding)}, and those of the groups "
                f"({width},); make it as theirs were made"
            )
        return self.cores[int(np.linalg.norm(self.centres - embedding, axis=1).argmin())]


@dataclass(frozen=True)
class CoreInfer(Catalogued):
    """Keep, for all tokens that are decoded, the neurons that the prompt's tokens need most often.

    Of a token's active neurons the largest are its core; the sentence's core are the neurons that
    most of its tokens have in theirs. It is chosen once (:meth:`choose`), with nothing to predict
    from token to token. For prompts too short to tell, :meth:`group` chooses beforehand for groups
    of sentences, by embeddings of their meaning.

    Parameters
    ----------
    token : float, default 0.4
        Share of a token's active neurons that are its core, in (0, 1].
    sentence : float, default 0.4
        Share of a network's neurons that are kept, in (0, 1].

    Raises
    ------
    OptionError
        If a share is out of range.

    Notes
    -----
    The paper takes the largest positive activations. Where a gate scales something a hidden value
    may be negative and matter, so that magnitudes take their place; with ReLUs and no gate they are
    the same. Equal frequencies, of which a short prompt has many, are told apart by mean magnitude.

    References
    ----------
    Wang et al., CoreInfer: Accelerating Large Language Model Inference with Semantics-Inspired
    Adaptive Sparse Activation (2024), sections 3 and 4.
    """

    token: float = 0.4
    sentence: float = 0.4
    card = Card(
        name="coreinfer",
        title="CoreInfer: Accelerating Large Language Model Inference with Semantics-Inspired "
        "Adaptive Sparse Activation",
        authors="Wang et al.",
        year=2024,
        arxiv="2410.18311",
        summary="Keep the neurons that a prompt's tokens need most often, while decoding after it.",
    )

    def __post_init__(self) -> None:
        check_number("token, the share of a token's neurons,", self.token, above=0, most=1)
        check_number("sentence, the share of neurons kept,", self.sentence, above=0, most=1)

    def choose(self, networks: Networks, prompt: Any, **texts: Any) -> CoreNeurons:
        """Choose the neurons for what goes on with a prompt, in one pass of the dense model.

        Parameters
        ----------
        networks : Networks
            Of the model, by :func:`~thresher.activate.networks.find_networks`.
        prompt : Any
            One input of the model or several, whose tokens count together, see
            :func:`thresher.activate`.
        **texts : optional
            ``tokenizer``, ``windows`` and ``length``, for texts.

        Raises
        ------
        ThresherError
            If the prompt cannot be used, or the model drops something.
        """
        check_none(networks.model, "choose with the dense model")
        samples, _ = as_samples(networks.model, prompt, **texts)
        counts = [_Counts(self.token) for _ in networks.networks]
        by_name = {n.down.name: c for n, c in zip(networks.networks, counts, strict=True)}

        def note(network: FeedForward, hidden: torch.Tensor) -> None:
            by_name[network.down.name].add(network.down.inputs(hidden))

        with networks.watched(note):
            Networks(networks.model, networks.networks, samples).run()
        return CoreNeurons(networks.networks, tuple(c.largest(self.sentence) for c in counts))

    def group(
        self,
        networks: Networks,
        sentences: Sequence[Any],
        embeddings: np.ndarray,
        groups: int = 20,
        seed: int = 0,
    ) -> Topics:
        """Choose neurons for groups of sentences that k-means makes of their embeddings.

        Parameters
        ----------
        networks : Networks
            As of :meth:`choose`.
        sentences : sequence
            Inputs of the model.
        embeddings : array of shape (sentences, width)
            What tells their meaning, from any encoder.
        groups : int, default 20
            How many.
        seed : int, default 0
            Of the first centres.

        Raises
        ------
        ThresherError
            If there is not one embedding a sentence, or there are fewer sentences than groups.
        """
        from sklearn.cluster import KMeans

        embeddings = np.asarray(embeddings)
        if embeddings.ndim != 2 or len(embeddings) != len(sentences):
            raise DataError(
                f"there are {len(sentences)} sentences and embeddings of the shape "
                f"{embeddings.shape}; pass a row for each"
            )
        check_count("groups", groups, len(sentences), "sentences")
        found = KMeans(groups, n_init=1, random_state=seed).fit(embeddings)
        cores = tuple(
            self.choose(
                networks, [sentences[i] for i in np.flatnonzero(found.labels_ == group).tolist()]
            )
            for group in range(groups)
        )
        return Topics(found.cluster_centers_, cores)


class _Counts:
    """In how many tokens' cores the neurons of a network are."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.often, self.sizes = torch.zeros(()), torch.zeros(())

    def add(self, rows: torch.Tensor) -> None:
        sizes = rows.float().abs().flatten(0, -2)
        ordered = sizes.sort(dim=-1, descending=True).values
        active = (sizes > 0).sum(dim=-1, keepdim=True)
        last = (self.share * active).ceil().long().clamp(min=1) - 1
        core = (sizes >= ordered.gather(-1, last)) & (sizes > 0)
        self.often = self.often + core.sum(dim=0)
        self.sizes = self.sizes + sizes.sum(dim=0)

    def largest(self, share: float) -> torch.Tensor:
        if self.often.dim() == 0:
            raise DataError("a network was not reached by the prompt; pass another")
        if not bool(self.sizes.isfinite().all()):
            raise NumericalError(
                "the prompt makes neurons that are no numbers; look for what is infinite in the "
                "model's weights, or convert it to float32"
            )
        # Less than one, so that it decides among equals alone.
        ties = self.sizes / (1 + self.sizes.max())
        kept = max(1, round(share * len(self.often)))
        mask: torch.Tensor = top_k_mask(self.often.double() + ties.double(), kept)
        return mask
