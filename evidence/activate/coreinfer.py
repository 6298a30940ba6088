"""CoreInfer: the neurons of a prompt against those of texts in general and of another text."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import nn

from thresher.activate.coreinfer import CoreInfer, CoreNeurons
from thresher.activate.networks import find_networks
from thresher.activate.sirius import Text
from thresher.core.evidence import Earlier, Experiment
from thresher.parts.activations.rules import PerToken
from thresher.parts.activations.sites import Site
from thresher.stream.feedforward import FeedForward

from .._one_shot import LENGTH, language_model, windows
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, ahead, every, means

#: Neurons that the paper keeps, and by how much its perplexity may rise to be as good as dense.
_PAPERS, _RISE = 0.4, 1.03
_PROMPT, _CALIBRATION, _TEXTS = LENGTH // 2, 4, 2
_OURS, _STATIC, _OTHER = "CoreInfer", "all texts'", "another text's"
_TOKEN, _DENSE, _REST = "each token's own", "dense", "what follows"


# By identity, so that what is read off one draw can be remembered.
@dataclass(frozen=True, eq=False)
class Seen:
    """The model, texts to be measured on and one more, and cores of each by the share kept."""

    model: nn.Module
    texts: torch.Tensor
    cores: Callable[[str, int, float], CoreNeurons]


@dataclass(frozen=True)
class Problem:
    """A share of neurons, and what was drawn."""

    share: float
    seen: Seen


@dataclass(frozen=True)
class Answer:
    """Of continuations: the mean loss, and the share of their own cores that is missed."""

    log_perplexity: float
    missed: float = math.nan


@functools.lru_cache(maxsize=1)
def _seen(drawn: Draw) -> Seen:
    rng = drawn.rng
    first, last = windows()
    data = first[rng.permutation(len(first))[: drawn.amount(_CALIBRATION, 2)]]
    # One more than is measured on: the last is the other text.
    texts = last[rng.permutation(len(last))[: drawn.amount(_TEXTS) + 1]]
    model = language_model(min(1.0, drawn.scale))
    networks = find_networks(model, data[:1])

    @functools.cache
    def cores(of: str, text: int, share: float) -> CoreNeurons:
        given: Mapping[str, torch.Tensor] = {
            _OURS: texts[text, :_PROMPT][None],
            _OTHER: texts[-1, :_PROMPT][None],
            _STATIC: data,
            _REST: texts[text, _PROMPT:][None],
        }
        return CoreInfer(sentence=share).choose(networks, given[of])

    return Seen(model, texts[:-1], cores)


@torch.no_grad()
def _loss(seen: Seen, text: int, context: AbstractContextManager[object]) -> float:
    """Return the loss of a text's second half in a context; the dense model reads the first."""
    row = seen.texts[text][None]
    read = Text(seen.model, row[:, :_PROMPT])
    with context:
        logits = read.cache.run(row[:, _PROMPT - 1 : -1])
    return float(nn.functional.cross_entropy(logits.float(), row[0, _PROMPT:]))


def _method(of: str) -> Callable[[Problem], Answer]:
    def run(problem: Problem) -> Answer:
        seen, share = problem.seen, problem.share
        losses, missed = [], []
        for text in range(len(seen.texts)):
            cores = seen.cores(of, 0 if of in (_STATIC, _OTHER) else text, share)
            losses.append(_loss(seen, text, cores.applied()))
            missed.append(1 - seen.cores(_REST, text, share).overlap(cores))
        return Answer(fmean(losses), fmean(missed))

    return run


def _by_token(problem: Problem) -> Answer:
    seen = problem.seen
    networks = seen.cores(_STATIC, 0, problem.share).networks
    texts = range(len(seen.texts))
    return Answer(fmean(_loss(seen, t, _largest(networks, problem.share)) for t in texts))


@contextmanager
def _largest(networks: Sequence[FeedForward], share: float) -> Iterator[None]:
    """Keep the largest neurons of each token, which are known when all have been computed."""
    sites = [Site.of_inputs(network.down) for network in networks]
    try:
        for site in sites:
            site.attach(PerToken()(site, torch.zeros(1), None, 1 - share))
        yield
    finally:
        for site in sites:
            site.remove()


def _dense(problem: Problem) -> Answer:
    seen = problem.seen
    return Answer(fmean(_loss(seen, text, nullcontext()) for text in range(len(seen.texts))))


def _as_good_as_dense(found: Found) -> Slacks:
    there = found.where(**{"neurons kept": _PAPERS})
    excess = there.lead("log_perplexity", _DENSE, _OURS) - math.log(_RISE)
    return {f"{_PAPERS:.0%} kept: {_RISE} times dense, at most": float(lower(-excess)[0])}


experiment = Experiment(
    method=CoreInfer.card.name,
    claim="Neurons chosen by a prompt serve what follows better than as many chosen by all texts "
    "or by another one, more of them being those that what follows would choose itself; and with "
    f"{_PAPERS:.0%} of them perplexity stays within {_RISE} times dense. (Speed is not judged.)",
    baseline="neurons of texts in general, and of another text; the dense model",
    run=Judged(
        study=Study(
            over=("neurons kept",),
            settings={share: share for share in (0.6, _PAPERS)},
            draw=lambda share, drawn: Problem(share, _seen(drawn)),
            methods={
                _OURS: _method(_OURS),
                _STATIC: _method(_STATIC),
                _OTHER: _method(_OTHER),
                _TOKEN: _by_token,
                _DENSE: _dense,
            },
            measures={
                "log_perplexity": lambda answer, _: answer.log_perplexity,
                "missed": lambda answer, _: answer.missed,
            },
            workers=2,
        ),
        rule=every(
            ahead("log_perplexity", _OURS, _STATIC, _OTHER),
            ahead("missed", _OURS, _STATIC, _OTHER),
            _as_good_as_dense,
        ),
        view=means("log_perplexity", "Perplexity of what follows a prompt", "perplexity", True),
        against={_OURS: (_STATIC, _OTHER)},
        say=lambda found: (
            "Of the neurons that what follows would choose, so many are missed: "
            + "; ".join(
                f"{name} " + ", ".join(f"{v:.0%}" for v in found.mean("missed", name))
                for name in (_OURS, _STATIC, _OTHER)
            )
            + "."
        ),
        note="Slacks are differences of log perplexity, and shares of neurons. "
        "SmolLM2-135M-Instruct, whose weights come rounded to 4 bits, 50 times smaller than the "
        f"smallest model of the paper; {_TEXTS} windows a draw of State of the Union addresses "
        f"since 2014, whose first {_PROMPT} tokens are the prompt and the others are measured; all "
        f"texts are {_CALIBRATION} windows of addresses from 1990 to 2013. Groups by meaning, for "
        "short prompts, are not judged. Scales below 1 run the first blocks of the model alone and "
        "say nothing of the claim.",
        reason="with SiLU every neuron is active for every token, and a small model has few that "
        "a text can do without.",
    ),
    earlier=(
        Earlier(
            "As now, with 80 % of the neurons kept as well.",
            False,
            -3.455,
            "Three shares took more than the three minutes that an experiment has.",
        ),
    ),
)
