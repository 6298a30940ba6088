"""Small models trained on data that every installation has, shared by the experiments."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from thresher.assets import mnist
from thresher.parts.calibration import embedded_text
from thresher.parts.coverage import find_layers

#: Characters per window of text.
WINDOW = 128
_BATCH = 16


def amount(full: int, scale: float, least: int = 1) -> int:
    """Return `full` times `scale`, rounded, and at least `least`."""
    return max(least, round(full * scale))


@functools.cache
def characters() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return Python's documentation as training windows, held-out windows and vocabulary size.

    The text is cut into windows of :data:`WINDOW` characters, every tenth one held out;
    characters outside ASCII become one symbol.
    """
    codes = np.frombuffer(embedded_text().encode("ascii", "replace"), dtype=np.uint8)
    known, ids = np.unique(codes, return_inverse=True)
    count = len(ids) // WINDOW
    windows = torch.from_numpy(ids[: count * WINDOW].reshape(count, WINDOW).astype(np.int64))
    held_out = torch.arange(count) % 10 == 9
    return windows[~held_out], windows[held_out], len(known)


@functools.cache
def character_codes() -> tuple[int, ...]:
    """Return the ASCII code of every character of :func:`characters`, by its id."""
    return tuple(sorted(set(embedded_text().encode("ascii", "replace"))))


@functools.cache
def _trained_language_model(seed: int, steps: int, share: float) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    train, _, vocabulary = characters()
    train = train[: amount(len(train), share, _BATCH)]
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=176,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=WINDOW,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    order = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        batch = train[torch.randint(len(train), (_BATCH,), generator=order)]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    return model.eval()


def language_model(seed: int, scale: float, share: float = 1.0) -> nn.Module:
    """Return a Llama of 0.15 M weights that models Python's documentation by character.

    Parameters
    ----------
    seed : int
        Of initial weights and batches.
    scale : float
        Relative number of training steps; 1 is 400 steps of 16 windows.
    share : float, default 1.0
        Share of the training windows to learn from.

    Returns
    -------
    nn.Module
        A copy; each is trained once per process.
    """
    return copy.deepcopy(_trained_language_model(seed, amount(400, scale, 20), share))


@torch.no_grad()
def log_perplexity(model: nn.Module, scale: float) -> float:
    """Return the mean loss in nats per held-out character."""
    _, held_out, _ = characters()
    chosen = held_out[: amount(96, scale, 16)]
    return float(np.mean([float(model(input_ids=b, labels=b).loss) for b in chosen.split(32)]))


@functools.cache
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scikit-learn's digits as training and test images (n, 1, 8, 8) and labels."""
    data = load_digits()
    images = (data.images[:, None] / 16.0).astype(np.float32)
    parts = train_test_split(
        images, data.target, test_size=0.3, random_state=0, stratify=data.target
    )
    train_x, test_x, train_y, test_y = (torch.from_numpy(part) for part in parts)
    return train_x, train_y, test_x, test_y


@functools.cache
def handwriting() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return MNIST as training and test images (n, 28, 32) and labels, two zeros on each side."""
    parts = []
    for images, labels in mnist():
        padded = nn.functional.pad(torch.from_numpy(images).float() / 255, (2, 2))
        parts += [padded, torch.from_numpy(labels).long()]
    train_x, train_y, test_x, test_y = parts
    return train_x, train_y, test_x, test_y


def perceptron(seed: int) -> nn.Module:
    """Return an untrained classifier of digits with two hidden layers of 128."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def train_classifier(
    model: nn.Module,
    seed: int,
    epochs: int,
    rate: float = 2e-3,
    masks: Mapping[str, torch.Tensor] | None = None,
    data: tuple[torch.Tensor, torch.Tensor] | None = None,
    at: Callable[[float], None] = lambda progress: None,
    penalty: Callable[[], torch.Tensor | float] = lambda: 0.0,
) -> None:
    """Train a classifier in place, with Adam and batches of 128.

    Parameters
    ----------
    model : nn.Module
        Maps images to ten logits.
    seed : int
        Of the batches.
    epochs : int
        Passes over the training images.
    rate : float, default 0.002
        Initial learning rate, following a cosine to zero.
    masks : mapping of str to Tensor, optional
        By layer name; weights outside stay zero.
    data : tuple of Tensor, optional
        Images and labels; those of :func:`digits` by default.
    at : callable, optional
        ``at(progress)`` is called after every epoch with the share of the training that is done.
    penalty : callable, optional
        ``penalty()`` is called after every pass and added to the loss.
    """
    images, labels = data or digits()[:2]
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order = torch.Generator().manual_seed(seed)
    weights = {name: model.get_submodule(name).weight for name in masks or {}}
    for epoch in range(epochs):
        for batch in torch.randperm(len(images), generator=order).split(128):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch]) + penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.mul_(masks[name])
        schedule.step()
        at((epoch + 1) / epochs)


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the supports of the layers of a pruned model, by name."""
    return {layer.name: layer.weight.detach() != 0 for layer in find_layers(model)}


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Return the share of test digits classified rightly."""
    _, _, images, labels = digits()
    return float((model(images).argmax(-1) == labels).float().mean())
