"""Text from a language model, run by the compiled loop."""

from __future__ import annotations

__all__ = ["Engine"]

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import CheckpointError, DataError, LayerError, OptionError, ThresherError
from .. import _run
from ..instructions import check_instruction_set
from .convert import convert
from .sampling import Sampler
from .text import TextStream

#: Tokens on which the engine is held against the model, and how far its logits in bfloat16 may lie
#: from the model's own, relative to their spread, at the median token. Of SmolLM2 it is 0.06 where
#: the model computes in bfloat16 itself, 0.01 in float32; a single token may be off by all of it.
_PROBE, _APART = 8, 0.5


class Engine:
    """A causal language model in compiled code, for text one token after another.

    Runs on the CPU, on ``torch.get_num_threads()`` threads, whose number does not change results.
    Inputs and sums are float32; with `bits`, inputs of products are rounded to bytes in groups of
    32. Several engines, and several texts of one engine, can be under way at once. In a child of
    ``fork`` it runs on one thread.

    Parameters
    ----------
    model : str, Path or nn.Module
        A model folder or a name that ``from_pretrained`` takes, dense or sparse; or a loaded
        transformers model, which is left alone. Llama, Mistral, Qwen2, Qwen3 or SmolLM3.
    bits : {8, 4}, optional
        Round matrices to so many bits in groups of 32 weights, to nearest; with 4 the embedding
        and the head get 8. bfloat16 without it, which float32 weights are rounded to.
    tokenizer : PreTrainedTokenizerBase, optional
        Of transformers.  [default: the folder's]

    Raises
    ------
    LayerError
        If the architecture is not one of these, or the model holds what it does not, or gives
        other logits on a few tokens.
    OptionError
        If there is no format of so many bits.
    CheckpointError
        If the folder cannot be loaded.
    NumericalError
        If a weight is not finite.

    Examples
    --------
    >>> engine = th.Engine("folder", bits=4)  # doctest: +SKIP
    >>> for piece in engine.stream("Once upon a time", max_new_tokens=50):  # doctest: +SKIP
    ...     print(piece, end="", flush=True)
    """

    def __init__(
        self, model: str | Path | nn.Module, bits: int | None = None, tokenizer: Any = None
    ) -> None:
        check_instruction_set()
        if bits not in (None, 8, 4):
            raise OptionError(f"bits is {bits}; use 8, 4 or None for bfloat16")
        if not isinstance(model, nn.Module):
            folder, model = model, _loaded(model)
            tokenizer = tokenizer or _tokenizer(folder)
        self._model = convert(model, None).build()
        self._tokenizer = tokenizer
        config: Any = model.config
        self.context = int(config.max_position_embeddings)
        """Tokens of a prompt and its continuation together, at most."""
        self._ends = _end_tokens(model)
        self._prove(model)
        if bits is not None:  # after the proof, which coarse rounding would drown
            self._model = convert(model, bits).build()

    def logits(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Return the logits after every token of a text.

        Parameters
        ----------
        ids : sequence of int, or Tensor of shape (tokens,)

        Returns
        -------
        Tensor of shape (tokens, vocabulary), float32

        Raises
        ------
        DataError
            If there is no token, more than the context holds, or one outside the vocabulary.
        """
        tokens = self._checked(ids)
        out = np.empty((len(tokens), self._model.vocabulary), np.float32)
        _run.EngineSequence(self._model).advance(tokens, out, torch.get_num_threads())
        return torch.from_numpy(out)

    def tokens(
        self, ids: Sequence[int] | Tensor, max_new_tokens: int = 128, sampler: Sampler | None = None
    ) -> Iterator[int]:
        """Yield the tokens that follow a prompt of tokens, until one that ends texts.

        Parameters
        ----------
        ids : sequence of int, or Tensor of shape (tokens,)
        max_new_tokens : int, default 128
        sampler : Sampler, optional
            How they are chosen.  [default: the likeliest]

        Raises
        ------
        DataError
            If the prompt is empty, longer than the context, or outside the vocabulary.
        OptionError
            If prompt and new tokens do not fit the context together.
        """
        prompt = self._checked(ids)
        if max_new_tokens < 1:
            raise OptionError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
        if len(prompt) + max_new_tokens > self.context:
            raise OptionError(
                f"{len(prompt)} tokens of prompt and max_new_tokens={max_new_tokens} are more than "
                f"the model's context of {self.context}; ask for at most "
                f"{self.context - len(prompt)} or shorten the prompt"
            )
        return self._continue(prompt, max_new_tokens, sampler or Sampler())

    def stream(
        self,
        prompt: str | Sequence[int] | Tensor,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
    ) -> Iterator[str]:
        """Yield the text that follows a prompt, in pieces of whole characters.

        Parameters
        ----------
        prompt : str, sequence of int, or Tensor of shape (tokens,)
            Text gets the special tokens that the tokenizer begins texts with.
        max_new_tokens : int, default 128
        temperature, top_k, top_p, seed
            See :class:`~thresher.run.engine.sampling.Sampler`; the likeliest token by default.
        stop : str or sequence of str, optional
            The text ends before the first of these.

        Raises
        ------
        DataError
            If the prompt is empty, longer than the context, or outside the vocabulary; or if
            there is no tokenizer.
        OptionError
            If an option is outside its range, or prompt and new tokens do not fit the context.
        """
        sampler = Sampler(temperature, top_k, top_p, seed)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in stops:
            raise OptionError("a stop string is empty; leave it out")
        if self._tokenizer is None:
            raise DataError("the engine has no tokenizer; pass it one, or use tokens()")
        ids = self._tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
        new_tokens = self.tokens(ids, max_new_tokens, sampler)
        text = TextStream(self._tokenizer, [int(token) for token in ids], stops)
        return _pieces(new_tokens, text)

    def generate(self, prompt: str | Sequence[int] | Tensor, **options: Any) -> str:
        """Return the text that follows a prompt; takes what :meth:`stream` takes."""
        return "".join(self.stream(prompt, **options))

    def _prove(self, model: Any) -> None:
        """Raise LayerError if the model's own pass does what the engine knows nothing of."""
        ids = torch.linspace(0, self._model.vocabulary - 1, min(_PROBE, self.context)).long()
        modes = {module: module.training for module in model.modules()}
        model.eval()
        try:
            with torch.no_grad():
                own = model(input_ids=ids[None].to(model.device), use_cache=False).logits[0]
        finally:
            for module, training in modes.items():
                module.training = training
        own = own.float().cpu()
        spread = (own - own.mean(dim=-1, keepdim=True)).norm(dim=-1)
        off = float(((self.logits(ids) - own).norm(dim=-1) / spread).median())
        # Logits that are not finite are told of where a token is chosen from them.
        if off > _APART:
            raise LayerError(
                f"the engine's logits lie {off:.0%} of their spread from those of this "
                f"{type(model).__name__}, whose own pass does something that the engine does not "
                "know; use the model's own generate() instead"
            )

    def _continue(self, prompt: Any, max_new_tokens: int, sampler: Sampler) -> Iterator[int]:
        sequence = _run.EngineSequence(self._model)
        logits = np.empty(self._model.vocabulary, np.float32)
        generator = sampler.generator()
        tokens = prompt
        for _ in range(max_new_tokens):
            sequence.advance(tokens, logits, torch.get_num_threads())
            token = sampler.choose(logits, generator)
            if token in self._ends:
                return
            yield token
            tokens = np.array([token], np.int64)

    def _checked(self, ids: Sequence[int] | Tensor) -> np.ndarray[Any, np.dtype[np.int64]]:
        found = np.asarray(ids.cpu() if isinstance(ids, Tensor) else ids)
        if found.size == 0:
            raise DataError("the prompt is empty; pass at least one token")
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise DataError(
                f"the prompt has shape {found.shape} and dtype {found.dtype}; the engine takes one "
                "text's tokens, integers in a row"
            )
        if len(found) > self.context:
            raise DataError(
                f"the prompt has {len(found)} tokens, the model's context {self.context}; "
                "shorten it"
            )
        outside = found[(found < 0) | (found >= self._model.vocabulary)]
        if outside.size:
            raise DataError(
                f"token {outside[0]} is outside the model's vocabulary of "
                f"{self._model.vocabulary}; is the tokenizer this model's?"
            )
        return np.ascontiguousarray(found, np.int64)


def _pieces(tokens: Iterator[int], text: TextStream) -> Iterator[str]:
    for token in tokens:
        if piece := text.add(token):
            yield piece
        if text.stopped:
            return
    if piece := text.rest():
        yield piece


def _end_tokens(model: Any) -> frozenset[int]:
    """Return the tokens that end a text."""
    settings = getattr(model, "generation_config", None) or model.config
    ends = settings.eos_token_id
    return frozenset([ends] if isinstance(ends, int) else ends or ())


def _loaded(folder: str | Path) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    from .architectures import architecture_of

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        architecture_of(AutoConfig.from_pretrained(folder))  # before the weights are read
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, ThresherError):
            raise
        raise CheckpointError(f"{str(folder)!r} cannot be loaded: {error}") from error
    return model.eval()  # type: ignore[no-any-return]


def _tokenizer(folder: str | Path) -> Any:
    """Return a folder's tokenizer, None where it has none: tokens can be run without."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError):
        return None
