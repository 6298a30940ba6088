"""Text from a language model, run by the compiled loop."""

from __future__ import annotations

__all__ = ["Engine"]

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core.errors import DataError, LayerError, OptionError
from ..instructions import check_instruction_set
from .continuation import Continuation
from .loading import load
from .lookup import guess
from .model import ModelData
from .sampling import Sampler
from .session import Session
from .store import write_store
from .text import Piece, TextStream
from .token import Token
from .torch_path import TorchModel

_Tokens = NDArray[np.int64]


class Engine:
    """A causal language model in compiled code, for text one token after another.

    Runs on the CPU, on ``torch.get_num_threads()`` threads, whose number does not change results.
    Inputs and sums are float32; with `bits`, inputs of products are rounded to bytes in groups of
    32. Several engines, and several texts of one engine, can be under way at once. In a child of
    ``fork`` it runs on one thread.

    Parameters
    ----------
    model : str, Path or nn.Module
        A model folder or a name that ``from_pretrained`` takes, dense or sparse; a GGUF file; a
        folder that :meth:`save` wrote; or a loaded transformers model, which is left alone. Gemma 1
        to 3, GPT-2, Llama, Mistral, OPT, Phi-3, Qwen2, Qwen3 or SmolLM3; of GGUF files llama, qwen2
        or qwen3.
        Other causal models make their text by their own passes in torch, for which they are set
        to evaluate, and a warning says so.
    bits : {8, 4}, optional
        Round matrices that take more to so many bits in groups of 32 weights, to nearest; with 4
        the embedding and the head get 8. Without it they take 16 bits, float16 where the model
        does and otherwise bfloat16, which float32 weights are rounded to; those of a GGUF file stay
        as they are if of the types Q4_0, Q4_1, Q8_0, F16, BF16 or F32, and others get 8 bits.
    tokenizer : PreTrainedTokenizerBase, optional
        Of transformers.  [default: the model's own]

    Raises
    ------
    LayerError
        If the architecture is not one of these and `bits` are given, or the model goes on with no
        texts; or if it holds what the architecture does not, or gives other logits on a few tokens.
    OptionError
        If there is no format of so many bits, or a folder of :meth:`save` is to be rounded again.
    CheckpointError
        If the folder or the file cannot be loaded.
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
            raise OptionError(f"bits is {bits}; use 8, 4 or None for 16-bit floats")
        self._loaded = load(model, bits)
        held = self._loaded.data
        self.compiled = held if isinstance(held, TorchModel) else held.build()
        self._given_tokenizer = tokenizer
        self.context = self._loaded.context
        """Tokens of a prompt and its continuation together, at most."""

    @property
    def data(self) -> ModelData:
        """What the compiled model is made of.

        Raises
        ------
        LayerError
            If the model runs in torch.
        """
        held = self._loaded.data
        if isinstance(held, TorchModel):
            raise LayerError(
                f"{type(held.model).__name__} is run in torch, as the engine does not know its "
                "architecture, and cannot be packed for it; save the model itself"
            )
        return held

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, read when it is first asked for; None where there is none."""
        return self._given_tokenizer or self._loaded.tokenizer()

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
        return torch.from_numpy(Session(self.compiled).logits(tokens, len(tokens)))

    def tokens(
        self,
        ids: Sequence[int] | Tensor,
        max_new_tokens: int = 128,
        sampler: Sampler | None = None,
        session: Session | None = None,
        lookup: int = 0,
        logprobs: int | None = None,
    ) -> Iterator[Token]:
        """Yield the tokens that follow a prompt of tokens, until one that ends texts.

        Parameters
        ----------
        ids : sequence of int, or Tensor of shape (tokens,)
        max_new_tokens : int, default 128
        sampler : Sampler, optional
            How they are chosen.  [default: the likeliest]
        session : Session, optional
            Of this engine's model: what the prompt has in common with its last text is not computed
            again.  [default: a new one]
        lookup : int, default 0
            Guess up to so many tokens from where the text's end was before, and have the model
            check them together. The tokens are the same; where guesses are often right, as in
            edits of a text in the prompt, they come faster.
        logprobs : int, optional
            Give every token its log-probability, and the so many likeliest tokens with theirs, 0 or
            more: :class:`~thresher.run.engine.token.Token` says of what.

        Raises
        ------
        DataError
            If the prompt is empty, longer than the context, or outside the vocabulary.
        OptionError
            If prompt and new tokens do not fit the context together, `lookup` is negative, or
            `logprobs` is or asks for more tokens than there are.
        """
        if lookup < 0:
            raise OptionError(f"lookup is {lookup}; it must be 0 or more")
        text = self.continuation(ids, max_new_tokens, sampler, logprobs)
        return _continued(text, session or Session(self.compiled), lookup)

    def continuation(
        self,
        ids: Sequence[int] | Tensor,
        max_new_tokens: int,
        sampler: Sampler | None = None,
        logprobs: int | None = None,
    ) -> Continuation:
        """Return a prompt that can be continued, for whoever computes the logits.

        Takes what :meth:`tokens` takes, and raises what that raises.
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
        if logprobs is not None and not 0 <= logprobs <= self.compiled.vocabulary:
            raise OptionError(
                f"logprobs is {logprobs}; it must be from 0 to {self.compiled.vocabulary}, the "
                "tokens that there are"
            )
        ends = self._loaded.ends
        return Continuation(prompt, max_new_tokens, sampler or Sampler(), ends, logprobs)

    def stream(
        self,
        prompt: str | Sequence[int] | Tensor,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        session: Session | None = None,
        lookup: int = 0,
        logprobs: int | None = None,
    ) -> Iterator[Piece]:
        """Yield the text that follows a prompt, in pieces of whole characters.

        Parameters
        ----------
        prompt : str, sequence of int, or Tensor of shape (tokens,)
            Text gets the special tokens that the tokenizer begins texts with.
        max_new_tokens : int, default 128
        temperature, top_k, top_p, min_p, repetition_penalty, seed
            See :class:`~thresher.run.engine.sampling.Sampler`; the likeliest token by default.
        stop : str or sequence of str, optional
            The text ends before the first of these.
        session, lookup, logprobs
            See :meth:`tokens`. The tokens of a piece are its ``tokens``.

        Raises
        ------
        DataError
            If the prompt is empty, longer than the context, or outside the vocabulary; or if
            there is no tokenizer.
        OptionError
            If an option is outside its range, or prompt and new tokens do not fit the context.
        """
        sampler = Sampler(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in stops:
            raise OptionError("a stop string is empty; leave it out")
        if self.tokenizer is None:
            raise DataError("the engine has no tokenizer; pass it one, or use tokens()")
        ids = self.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
        new_tokens = self.tokens(ids, max_new_tokens, sampler, session, lookup, logprobs)
        text = TextStream(self.tokenizer, [int(token) for token in ids], stops)
        return _pieces(new_tokens, text)

    def generate(self, prompt: str | Sequence[int] | Tensor, **options: Any) -> str:
        """Return the text that follows a prompt; takes what :meth:`stream` takes."""
        return "".join(self.stream(prompt, **options))

    def save(self, out: str | Path) -> None:
        """Write a folder that an engine starts from at once, its arrays memory-mapped.

        Parameters
        ----------
        out : str or Path
            Folder to write, with the tokenizer; it appears only when it is complete.

        Raises
        ------
        OptionError
            If `out` exists.
        CheckpointError
            If it cannot be written.
        """
        loaded = self._loaded
        write_store(self.data, loaded.context, loaded.ends, self.tokenizer, out)

    def _checked(self, ids: Sequence[int] | Tensor) -> _Tokens:
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
        outside = found[(found < 0) | (found >= self.compiled.vocabulary)]
        if outside.size:
            raise DataError(
                f"token {outside[0]} is outside the model's vocabulary of "
                f"{self.compiled.vocabulary}; is the tokenizer this model's?"
            )
        return np.ascontiguousarray(found, np.int64)


def _continued(text: Continuation, session: Session, lookup: int) -> Iterator[Token]:
    while text.left:
        # Not with the prompt, all of whose logits would then be made.
        most = min(lookup, text.left - 1) if text.new else 0
        guessed = guess(text.text, most)
        tried = np.concatenate([text.text, guessed])
        for i, logits in enumerate(session.logits(tried, 1 + len(guessed))):
            token = text.choose(logits)
            if token is None:
                return
            yield token
            if i < len(guessed) and guessed[i] != token:
                break


def _pieces(tokens: Iterator[Token], text: TextStream) -> Iterator[Piece]:
    for token in tokens:
        if piece := text.add(token):
            yield piece
        if text.stopped:
            return
    if piece := text.rest():
        yield piece
