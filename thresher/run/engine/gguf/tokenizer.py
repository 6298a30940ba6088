"""A tokenizer of transformers as GGUF describes one."""

from __future__ import annotations

__all__ = ["Vocabulary", "vocabulary_of"]

import json
from dataclasses import dataclass, field
from typing import Any

from ....core.errors import CheckpointError
from ....parts.calibration import beginning

#: Kinds of tokens by their number in GGUF.
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: How byte-level tokenizers part a text before they merge, and whether a token that is a whole part
#: is taken without merging, by the names that llama.cpp has for it.
_PARTINGS: dict[tuple[Any, ...], str] = {
    (("ByteLevel", True), False): "gpt-2",
    (("Digits", True), ("ByteLevel", True), False): "smollm",
    (("Split", _WORDS + r"\p{N}" + _REST), ("ByteLevel", False), False): "qwen2",
    (("Split", _WORDS + r"\p{N}{1,3}" + _REST), ("ByteLevel", False), True): "llama-bpe",
}
#: Names of tokens that end a text.
_ENDS = ("eos", "eot", "eom")


@dataclass
class Vocabulary:
    """What a GGUF file says of its tokenizer.

    Parameters
    ----------
    model : {"gpt2", "llama"}
        Of bytes, or of characters with bytes for those it does not know.
    parting : str
        How texts are parted before tokens are merged.
    tokens : list of str
        By their numbers.
    kinds : list of int
        Of the tokens.
    merges : list of str
        Pairs of tokens, the first merged first; for ``"gpt2"``.
    scores : list of float
        The highest is merged first; for ``"llama"``.
    special : dict of str to int
        Tokens with a meaning, such as ``"bos"``.
    begins, space : bool
        Whether texts begin with the first token, and with a space.
    template : str, optional
        Of chats.
    """

    model: str
    parting: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    special: dict[str, int] = field(default_factory=dict)
    begins: bool = False
    space: bool = False
    template: str | None = None

    def tell(self, writer: Any) -> None:
        """Write it to a ``GGUFWriter`` of the package ``gguf``."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.parting)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.kinds)
        if self.merges:
            writer.add_token_merges(self.merges)
        if self.scores:
            writer.add_token_scores(self.scores)
        for name, token in self.special.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
        writer.add_add_bos_token(self.begins)
        writer.add_add_space_prefix(self.space)
        if self.template is not None:
            writer.add_chat_template(self.template)


def vocabulary_of(tokenizer: Any, size: int, ends: frozenset[int]) -> Vocabulary:
    """Return a tokenizer as GGUF describes one.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    size : int
        Rows of the model's embedding.
    ends : frozenset of int
        Tokens that end the model's texts.

    Raises
    ------
    CheckpointError
        If GGUF has no word for how it works, or for all tokens that end a text, naming what.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(
            f"a {type(tokenizer).__name__} has no fast form, of which GGUF files are written; save "
            "it as one with a tokenizer.json"
        )
    said = json.loads(backend.to_str())
    model = said["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix"):
        raise CheckpointError(
            f"GGUF files are written with tokenizers that merge pairs (BPE), not {model['type']}"
        )
    merges = [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in model["merges"]]
    tokens, kinds = _tokens(said, size)
    found = Vocabulary("gpt2", "", tokens, kinds, begins=_begins(tokenizer))
    steps = _steps(said["pre_tokenizer"])
    if any(step[0] == "ByteLevel" for step in steps):
        _check_normalizer(said["normalizer"])
        found.parting = _parting(steps, bool(model.get("ignore_merges")))
        found.merges = [" ".join(pair) for pair in merges]
    elif model.get("byte_fallback"):
        found.model, found.parting = "llama", "default"
        found.space = _begins_with_space(said)
        found.scores = _scores(tokens, merges)
        found.kinds = [_kind(model, token, kind) for token, kind in zip(tokens, kinds, strict=True)]
    else:
        raise CheckpointError(
            "GGUF files are written with byte-level tokenizers, or such as fall back on bytes; "
            f"this one parts texts by {_named(steps)}"
        )
    found.special = _special(tokenizer, ends)
    template = getattr(tokenizer, "chat_template", None)
    found.template = template if isinstance(template, str) else (template or {}).get("default")
    return found


def _begins(tokenizer: Any) -> bool:
    """Return whether texts begin with the token for it.

    Raises
    ------
    CheckpointError
        If they begin with something else, or end with a token.
    """
    first = beginning(tokenizer)
    alone, whole = (
        list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (False, True)
    )
    if whole != first + alone or first not in ([], [tokenizer.bos_token_id]):
        raise CheckpointError(
            f"the tokenizer makes {whole} of a text whose tokens are {alone}, and a GGUF file can "
            f"only say that texts begin with {tokenizer.bos_token_id}"
        )
    return bool(first)


def _check_normalizer(said: dict[str, Any] | None) -> None:
    """Raise if texts are changed before they are parted, but for how characters are composed."""
    steps = [] if said is None else said.get("normalizers", [said])
    for step in steps:
        if step["type"] != "NFC":
            raise CheckpointError(
                f"the tokenizer changes texts by {step['type']}, which GGUF has no word for"
            )


def _tokens(said: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return tokens and their kinds, with some for rows of the embedding that have none."""
    known = {number: (token, _NORMAL) for token, number in said["model"]["vocab"].items()}
    for added in said["added_tokens"]:
        known[added["id"]] = added["content"], _CONTROL if added["special"] else _USER
    if known and max(known) >= size:
        raise CheckpointError(
            f"the tokenizer has a token {max(known)}, {known[max(known)][0]!r}, and the model's "
            f"embedding {size} rows; is it this model's?"
        )
    every = [known.get(number, (f"[PAD{number}]", _UNUSED)) for number in range(size)]
    return [token for token, _ in every], [kind for _, kind in every]


def _steps(parting: dict[str, Any] | None) -> list[tuple[Any, ...]]:
    """Return what a tokenizer does before it merges, one step after another."""
    if parting is None:
        return []
    if parting["type"] == "Sequence":
        return [step for each in parting["pretokenizers"] for step in _steps(each)]
    if parting["type"] == "ByteLevel" and not parting["add_prefix_space"]:
        return [("ByteLevel", parting.get("use_regex", True))]
    if parting["type"] == "Digits":
        return [("Digits", parting["individual_digits"])]
    plain = (parting.get("behavior"), parting.get("invert")) == ("Isolated", False)
    if parting["type"] == "Split" and plain and "Regex" in parting["pattern"]:
        return [("Split", parting["pattern"]["Regex"])]
    return [(parting["type"], json.dumps(parting, sort_keys=True))]


def _parting(steps: list[tuple[Any, ...]], whole: bool) -> str:
    name = _PARTINGS.get((*steps, whole))
    if name is None:
        raise CheckpointError(
            f"the tokenizer parts texts by {_named(steps)}, which is none of the ways that GGUF "
            f"files are written for: {', '.join(_PARTINGS.values())}"
        )
    return name


def _named(steps: list[tuple[Any, ...]]) -> str:
    return ", ".join(f"{step[0]} ({step[1]})" for step in steps) or "nothing"


def _begins_with_space(said: dict[str, Any]) -> bool:
    """Return whether a text gets a space before it, of a tokenizer that writes spaces as others do.

    Raises
    ------
    CheckpointError
        If it does something else to texts.
    """
    steps = [
        step
        for part in (said["normalizer"], said["pre_tokenizer"])
        if part is not None
        for step in part.get("normalizers", part.get("pretokenizers", [part]))
    ]
    space, written = False, False
    for step in steps:
        kind = step["type"]
        if kind == "Prepend" and step["prepend"] == "\N{LOWER ONE EIGHTH BLOCK}":
            space = True
        elif kind == "Replace" and step["pattern"] == {"String": " "}:
            written = step["content"] == "\N{LOWER ONE EIGHTH BLOCK}"
        elif kind == "Metaspace" and not step.get("split", True):
            written, space = True, space or step["prepend_scheme"] != "never"
        else:
            raise CheckpointError(
                f"the tokenizer changes texts by {kind}, which GGUF has no word for"
            )
    if not written:
        raise CheckpointError("the tokenizer keeps spaces as they are, which GGUF has no word for")
    return space


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """Return scores whose order is that of the merges which make the tokens."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _kind(model: dict[str, Any], token: str, kind: int) -> int:
    if token == model.get("unk_token"):
        return _UNKNOWN
    is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return _BYTE if is_byte and kind == _NORMAL else kind


def _special(tokenizer: Any, ends: frozenset[int]) -> dict[str, int]:
    """Return tokens with a meaning; up to three end a text, the tokenizer's own first."""
    given = {"bos": "bos", "unknown": "unk", "padding": "pad"}
    held = {name: getattr(tokenizer, f"{of}_token_id", None) for name, of in given.items()}
    own = tokenizer.eos_token_id
    ordered = sorted(ends, key=lambda end: (end != own, end)) or [own]
    if len(ordered) > len(_ENDS):
        raise CheckpointError(
            f"the model's texts end at {len(ordered)} tokens ({', '.join(map(str, ordered))}), and "
            f"GGUF files name {len(_ENDS)}; leave those that it writes in eos_token_id of "
            "generation_config.json"
        )
    return {
        name: token
        for name, token in (*held.items(), *zip(_ENDS, ordered, strict=False))
        if token is not None
    }
