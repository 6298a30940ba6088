"""Methods that act while text is generated: corrections, and the neurons of a prompt."""

import copy
import inspect
import math

import numpy as np
import pytest
import torch
from small_models import gpt2, llama, tokens
from torch import nn

import thresher as th
from thresher.activate.coreinfer import CoreInfer, CoreNeurons
from thresher.activate.networks import Networks, find_networks
from thresher.activate.sirius import Corrected, Sirius
from thresher.core.errors import DataError, LayerError, NumericalError, OptionError
from thresher.parts.activations.attached import attach, attached, detach, set_aside
from thresher.parts.activations.selection import Threshold

PROMPT = tokens(1, 8, seed=3)


@pytest.fixture(scope="module")
def dense():
    """A Llama with its networks."""
    return find_networks(llama(initializer_range=1.0), tokens(2))


@pytest.fixture(scope="module")
def sparse():
    """A Llama whose sparse text differs from its dense one."""
    model = llama(initializer_range=1.0)
    return th.activate(model, "cats", tokens(2), sparsity=0.75, progress=False)


def greedy(model, prompt, count):
    """Return a model's own text, read anew for every token, and the least of its odds."""
    row = prompt.clone()
    with torch.no_grad():
        for _ in range(count):
            row = torch.cat([row, model(input_ids=row).logits[:, -1:].argmax(-1)], dim=1)
    return row[0, prompt.shape[1] :]


class Tracked:
    """A model with its cache, under whichever name it has."""

    def __init__(self, model):
        self.model, self.cache = model, None
        taken = inspect.signature(model.forward).parameters
        self.name = "past_key_values" if "past_key_values" in taken else "cache"

    def __call__(self, row):
        with torch.no_grad():
            output = self.model(input_ids=row, use_cache=True, **{self.name: self.cache})
        self.cache = getattr(output, self.name)
        return output.logits[0]


def by_hand(model, prompt, count, kernel, threshold):
    """Return the corrected text with a cache that is made anew for every draft."""
    made = []
    while len(made) < count:
        row = torch.cat([prompt, torch.tensor([made], dtype=torch.int64)], dim=1)
        tracked, draft, given = Tracked(model), [], row[:, -1:]
        with set_aside(model):
            tracked(row[:, :-1])
        for _ in range(min(kernel, count - len(made)) - 1):
            given = tracked(given)[-1:].argmax(-1, keepdim=True)
            draft.append(int(given))
        whole = torch.cat([row, torch.tensor([draft], dtype=torch.int64)], dim=1)
        with set_aside(model):
            logits = Tracked(model)(whole)[row.shape[1] - 1 :]
        odds = logits.softmax(-1)
        kept = 0
        while kept < len(draft) and float(odds[kept, draft[kept]]) >= threshold:
            kept += 1
        made += [*draft[:kept], int(logits[kept].argmax())]
    return made


@pytest.mark.parametrize(("kernel", "threshold"), [(2, 0.05), (5, 0.0), (5, 0.05)])
def test_the_text_is_the_one_by_hand(sparse, kernel, threshold):
    found = Sirius(kernel, threshold).generate(sparse, PROMPT, 12)
    assert found.tokens.tolist() == by_hand(sparse, PROMPT, 12, kernel, threshold)
    if threshold == 0:
        assert found.corrections == 0
        assert found.advance == pytest.approx(12 / math.ceil(12 / kernel))
    else:
        assert 0 < found.corrections < found.checks


def test_at_threshold_one_the_text_is_the_dense_models(sparse):
    with set_aside(sparse):
        expected = greedy(sparse, PROMPT, 12)
    found = Sirius(4, 1.0).generate(sparse, PROMPT[0], 12)
    assert torch.equal(found.tokens, expected)
    assert found.advance == 1
    assert found.corrections == 11  # all but the last, which is not drafted
    assert not torch.equal(Sirius(4, 0.0).generate(sparse, PROMPT, 12).tokens, expected)
    assert attached(sparse)


def test_text_ends_where_it_should(sparse):
    whole = Sirius(4, 0.05).generate(sparse, PROMPT, 12).tokens.tolist()
    for place, token in enumerate(whole):
        if token in whole[:place]:
            continue
        found = Sirius(4, 0.05).generate(sparse, PROMPT, 12, stop={token})
        assert found.tokens.tolist() == whole[: place + 1]


def test_what_is_read_counts_drafts_and_checks():
    made = Corrected(torch.arange(10), drafted=12, checks=4, corrections=2)
    assert made.advance == 2.5
    assert made.read(0.5) == pytest.approx((12 * 0.5 + 4) / 10)


class Recurrent(nn.Module):
    """A model whose cache has a state that cannot be taken back, though it says so."""

    class Cache:
        length, state = 0, 0.0

        def crop(self, count):
            self.length += count

        def get_seq_length(self):
            return self.length

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 60)

    def forward(self, input_ids, past_key_values=None, use_cache=None):
        cache = past_key_values or self.Cache()
        rows = []
        for token in input_ids[0]:
            cache.state = cache.state * 0.5 + nn.functional.one_hot(token % 8, 8).float()
            rows.append(self.layer(cache.state))
        cache.length += input_ids.shape[1]
        output = type("Output", (), {})()
        output.logits, output.past_key_values = torch.stack(rows)[None], cache
        return output


def test_mistakes_of_correction_are_named(sparse):
    with pytest.raises(OptionError, match="kernel, the tokens"):
        Sirius(kernel=1)
    with pytest.raises(OptionError, match="threshold, a probability"):
        Sirius(threshold=1.5)
    with pytest.raises(LayerError, match=r"nothing to correct.*thresher\.activate"):
        Sirius().generate(llama(), PROMPT, 4)
    with pytest.raises(DataError, match="one prompt at a time"):
        Sirius().generate(sparse, tokens(2), 4)
    with pytest.raises(DataError, match="not list"):
        Sirius().generate(sparse, [1, 2], 4)
    model = Recurrent()
    attach("layer", model.layer, Threshold(torch.tensor(0.1)))
    with pytest.raises(LayerError, match="Recurrent keeps something of a token"):
        Sirius().generate(model, PROMPT, 4)
    broken = copy.deepcopy(sparse)
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    with pytest.raises(NumericalError, match="logits are NaN"):
        Sirius().generate(broken, PROMPT, 4)


def test_a_core_by_hand():
    hidden = torch.tensor([[4.0, -3, 0, 0, 1, 0], [0, 2, 1, -5, 0, 0], [0, 0, 0, 0, 0, 0]])
    found = core(hidden, token=0.6, sentence=0.5)
    # Cores of ceil(0.6 * 3) = 2 neurons: 0 and 1, 3 and 1, none; of 0 and 3 the larger mean first.
    assert found.tolist() == [True, True, False, True, False, False]
    assert (
        core(hidden, token=0.6, sentence=2 / 6).tolist() == [False, True, False, True] + [False] * 2
    )
    assert core(hidden, token=0.01, sentence=2 / 6).tolist() == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]


def core(hidden, token, sentence):
    """Return the core of a network whose neurons are given."""
    width = hidden.shape[1]
    model = nn.Sequential(nn.Linear(width, width, bias=False), nn.Identity(), nn.Linear(width, 4))
    layer = find_like(model)
    networks = Networks(model, (layer,), [hidden])
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(width))
    return CoreInfer(token, sentence).choose(networks, hidden).masks[0]


def find_like(model):
    from thresher.parts.layers import Layer
    from thresher.stream.feedforward import FeedForward

    layers = Layer("0", model[0]), Layer("2", model[2])
    return FeedForward(layers[0], layers[1], None, torch.relu)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_other_neurons_do_nothing_while_a_core_is_applied(make):
    model = make()
    networks = find_networks(model, tokens(2))
    found = CoreInfer(0.4, 0.25).choose(networks, PROMPT)
    assert found.density == pytest.approx(0.25)
    before = model(input_ids=PROMPT).logits
    with found.applied() as tallies, torch.no_grad():
        sparse = model(input_ids=PROMPT).logits
    assert len(tallies) == 3
    assert all(tally.sparsity == pytest.approx(0.75) for tally in tallies.values())
    assert not attached(model)
    torch.testing.assert_close(model(input_ids=PROMPT).logits, before)
    for network, mask in zip(networks.networks, found.masks, strict=True):  # as if removed
        down = network.down
        down.weight.data.copy_(down.form.store(down.matrix() * mask, tuple(down.weight.shape)))
    torch.testing.assert_close(model(input_ids=PROMPT).logits, sparse)


def test_all_neurons_change_nothing_and_cores_overlap_themselves(dense):
    whole = CoreInfer(0.4, 1.0).choose(dense, PROMPT)
    before = dense.model(input_ids=PROMPT).logits
    with whole.applied():
        assert torch.equal(dense.model(input_ids=PROMPT).logits, before)
    some = CoreInfer(0.4, 0.5).choose(dense, PROMPT)
    assert some.overlap(some) == some.overlap(whole) == 1
    assert whole.overlap(some) == pytest.approx(0.5)
    none = CoreNeurons(some.networks, tuple(~mask for mask in some.masks))
    assert some.overlap(none) == 0


def test_groups_of_sentences_have_cores_of_their_own(dense):
    sentences = list(tokens(6, 8).split(1))
    places = np.array([[0.0, 0], [0, 1], [9, 9], [9, 8], [0, 0.5], [8, 9]])
    method = CoreInfer(0.4, 0.25)
    topics = method.group(dense, sentences, places, groups=2)
    for place, members in ((places[1], [0, 1, 4]), (places[3], [2, 3, 5])):
        expected = method.choose(dense, [sentences[i] for i in members])
        assert topics.nearest(place).overlap(expected) == 1
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        topics.nearest(np.zeros(3))
    with pytest.raises(DataError, match="6 sentences and embeddings"):
        method.group(dense, sentences, places[:2])
    with pytest.raises(OptionError, match="cannot choose 9 of 6 sentences"):
        method.group(dense, sentences, places, groups=9)


def test_corrected_text_by_a_prompts_neurons(dense):
    found = CoreInfer(0.4, 0.25).choose(dense, PROMPT)
    expected = greedy(dense.model, PROMPT, 10)
    with found.applied():
        corrected = Sirius(4, 1.0).generate(dense.model, PROMPT, 10)
        free = Sirius(4, 0.0).generate(dense.model, PROMPT, 10)
    assert torch.equal(corrected.tokens, expected)
    assert not torch.equal(free.tokens, expected)
    assert not attached(dense.model)


def test_mistakes_of_cores_are_named():
    with pytest.raises(OptionError, match="share of a token's neurons"):
        CoreInfer(token=0)
    with pytest.raises(OptionError, match="share of neurons kept"):
        CoreInfer(sentence=1.2)
    model = llama()
    networks = find_networks(model, tokens(2))
    found = CoreInfer().choose(networks, PROMPT)
    down = networks.networks[0].down
    attach(down.name, down.module, Threshold(torch.tensor(0.1)))
    with pytest.raises(LayerError, match=r"down_proj' are dropped already"), found.applied():
        pass
    with pytest.raises(LayerError, match="choose with the dense model"):
        CoreInfer().choose(networks, PROMPT)
    detach(down.module, "inputs")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = math.inf
    with pytest.raises(NumericalError, match="are no numbers"):
        CoreInfer().choose(networks, PROMPT)
