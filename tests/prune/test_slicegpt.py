"""SliceGPT: the stream turns without a change, and loses what nothing is in."""

import pytest
import torch
from small_models import cnn, gpt2, images, llama, tokens

import thresher as th
from thresher.core.errors import LayerError, OptionError
from thresher.core.remembered import remembered
from thresher.parts.groups.find import find_groups
from thresher.parts.groups.residual import find_residual, fold_norms, project, sliced
from thresher.prune.slicegpt import SliceGPT
from thresher.stream.passes import calibrating

WIDTH = 32
EXAMPLE = tokens(1)


@torch.no_grad()
def run(model):
    with calibrating(model):
        return model(EXAMPLE)


@torch.no_grad()
def model(kind="Llama", **changes):
    """Return a small model whose norms scale, and whose head has a matrix of its own."""
    import transformers

    made = llama(hidden_size=WIDTH, **changes)
    if kind != "Llama":
        torch.manual_seed(0)
        options = {"head_dim": 8, "pad_token_id": 0}
        options |= {"num_local_experts": 4} if kind == "Mixtral" else {}
        config = getattr(transformers, f"{kind}Config")(**(made.config.to_dict() | options))
        made = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for parameter in made.parameters():
        parameter.mul_(5)
        if parameter.dim() == 1:
            parameter.copy_(torch.rand_like(parameter) + 0.5)
    return made


def prepared(made):
    residual = find_residual(made, find_groups(made, run, EXAMPLE), run)
    fold_norms(made, residual)
    return residual


def logits(made):
    with torch.no_grad():
        return made(tokens(2)).logits


def random_basis(kept=WIDTH):
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(WIDTH, kept, generator=generator, dtype=torch.float64))[0]


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mixtral"])
def test_a_turn_alone_changes_nothing(kind):
    made = model(kind)
    before = logits(made)
    residual = prepared(made)
    torch.testing.assert_close(logits(made), before, rtol=1e-4, atol=1e-4)
    assert len(residual.norms) == 7
    turned = sliced(made, residual, random_basis())
    torch.testing.assert_close(logits(turned), before, rtol=1e-4, atol=1e-4)
    assert not torch.equal(turned.model.embed_tokens.weight, made.model.embed_tokens.weight)


@pytest.mark.parametrize("tied", [False, True])
def test_directions_that_nothing_is_in_go_without_a_trace(tied):
    made = model(tied=False)
    project(made, prepared(made), random_basis(24))
    if tied:  # what is written within the span may be read by all
        made.lm_head.weight = made.model.embed_tokens.weight
        made.config.tie_word_embeddings = True
    small = th.prune(made, "slicegpt", tokens(), density=0.75, progress=False)
    assert small.config.hidden_size == 24
    torch.testing.assert_close(logits(small), logits(made), rtol=1e-3, atol=1e-3)
    away = th.prune(made, _Reversed(density=0.75), tokens(), progress=False)
    assert float((logits(away) - logits(made)).norm() / logits(made).norm()) > 0.1


class _Reversed(SliceGPT):
    """The directions in which most is read go."""

    def basis(self, moment):
        return super().basis(moment).flip(1)


@pytest.mark.parametrize("kind", ["Llama", "Mixtral"])
def test_the_folder_is_a_plain_one(kind, tmp_path):
    from transformers import AutoModelForCausalLM

    made = model(kind, tied=True).to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    small = th.prune(made, "slicegpt", tokens(), density=0.75, progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    assert made.config.tie_word_embeddings
    assert all(parameter.dtype == torch.bfloat16 for parameter in small.parameters())
    small.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is type(made)
    assert torch.equal(logits(again), logits(small))
    record = remembered(small)
    weights = record.structure["weights"]
    assert record.density == weights["after"] / weights["before"] == 0.75
    assert type(record).from_json(record.to_json()).structure == record.structure


def test_widths_are_those_that_transformers_reads_again(tmp_path):
    from transformers import AutoModelForCausalLM

    made = llama(hidden_size=48, num_attention_heads=3, num_key_value_heads=3)
    small = th.prune(made, "slicegpt", tokens(), density=0.6, progress=False)
    # The one multiple of eight that is one of three heads; earlier versions take any other.
    assert small.config.hidden_size in (24, 32)
    small.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(small))


def test_the_same_call_gives_the_same():
    first, second = (
        th.prune(model(), "slicegpt", tokens(), density=0.5, progress=False).state_dict()
        for _ in range(2)
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def partly_frozen():
    made = model()
    made.lm_head.weight.requires_grad_(False)
    return made


@pytest.mark.parametrize(
    ("make", "data", "options", "error", "message"),
    [
        (gpt2, tokens, {}, LayerError, "'transformer.h.0.ln_1' is a LayerNorm, and does not"),
        (cnn, lambda: [images()], {}, LayerError, "is no model of transformers"),
        (partly_frozen, tokens, {}, LayerError, "frozen, and its residual stream runs"),
        (model, tokens, {"exclude": ["*.0.*"]}, OptionError, "leave include and exclude away"),
        (model, tokens, {"density": 0.99}, OptionError, "cannot be reached by .* nearest is 0.75"),
        (model, tokens, {"density": 0.01}, OptionError, "cannot be reached by .* nearest is 0.25"),
        (model, tokens, {"density": 1.5}, OptionError, "density 1.5 is out of range"),
        (model, tokens, {"density": None}, OptionError, "say how much to keep"),
        (model, tokens, {"pattern": "2:4"}, OptionError, "removes whole directions, and has no"),
    ],
)
def test_what_cannot_be_is_named(make, data, options, error, message):
    options = {"density": 0.75} | options
    with pytest.raises(error, match=message):
        th.prune(make(), "slicegpt", data(), progress=False, **options)


def test_a_multiple_out_of_range_is_named():
    with pytest.raises(OptionError, match="multiple 0 is out of range"):
        SliceGPT(multiple=0)
