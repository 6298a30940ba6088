"""Divergence over buckets, its gradient, and passes with the vocabulary in portions."""

import copy

import pytest
import torch
from model_folders import tiny_llama

from thresher.prune.heal import distil, tap
from thresher.prune.heal.distil import Targets, Teacher, backward, bucket_divergence, divergence
from thresher.prune.heal.tap import Tap, observed_blocks
from thresher.stream.precision import Precision


def targets_of(logits, top=3):
    log_probabilities = logits.log_softmax(-1)
    found = log_probabilities.topk(top, -1)
    rest = 1 - found.values.exp().sum(-1, keepdim=True)
    return found.indices, torch.cat((found.values, rest.log()), -1)


def window(seed=0, length=40):
    return torch.randint(256, (length,), generator=torch.Generator().manual_seed(seed))


def test_it_is_the_divergence_of_the_buckets():
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 5, 9, dtype=torch.float64)
    ids, held = targets_of(teacher)
    student_probabilities = student.softmax(-1)
    q = student_probabilities.gather(-1, ids)
    q = torch.cat((q, 1 - q.sum(-1, keepdim=True)), -1)
    expected = (held.exp() * (held - q.log())).sum(-1)
    torch.testing.assert_close(bucket_divergence(student, ids, held), expected)


def test_with_one_token_in_the_rest_it_is_the_whole_divergence():
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 5, 6, dtype=torch.float64)
    ids, held = targets_of(teacher, top=5)
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    expected = (p.exp() * (p - q)).sum(-1)
    torch.testing.assert_close(bucket_divergence(student, ids, held), expected)


def test_its_gradient_is_right():
    torch.manual_seed(0)
    ids, held = targets_of(torch.randn(4, 9, dtype=torch.float64))
    student = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: bucket_divergence(z, ids, held), (student,))


@pytest.mark.parametrize("extreme", [40.0, 200.0])
def test_certain_predictions_stay_finite(extreme):
    student = torch.zeros(1, 8)
    student[0, 0] = extreme
    student.requires_grad_()
    ids, held = targets_of(torch.randn(1, 8))
    loss = bucket_divergence(student, ids, held).sum()
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def student_and_targets(model, tmp_path, length=40):
    dense = tiny_llama().eval()
    tap = Tap(dense, Precision())
    blocks = observed_blocks(tap, window())
    asked = Teacher(tap, blocks, tmp_path).ask(0, window(length=length))
    return Tap(model, Precision()), blocks, asked


@pytest.mark.parametrize("positions", [7, 128])
def test_a_window_in_portions_gives_the_whole_gradient(positions, tmp_path, monkeypatch):
    model = tiny_llama(layers=3).eval()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight *= 0.5
    student, blocks, asked = student_and_targets(model, tmp_path)
    monkeypatch.setattr(distil, "POSITIONS", positions)
    found = backward(student, blocks, window(), asked, 0.5)
    gradient = model.model.layers[0].mlp.gate_proj.weight.grad.clone()
    model.zero_grad()
    states = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda m, i, output: states.append(output[0]))
    logits = model(input_ids=window()[None]).logits[0]
    held = bucket_divergence(logits, asked.ids, asked.log_probabilities).mean()
    far = [
        ((s - t.float()).square().sum(-1) / t.float().square().sum(-1)).mean()
        for s, t in zip(states, asked.hidden, strict=True)
    ]
    (0.5 * (held + 0.25 * sum(far) / 3)).backward()
    assert found == pytest.approx(float(held.detach()), rel=1e-5)
    expected = model.model.layers[0].mlp.gate_proj.weight.grad
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    assert divergence(student, window(), asked) == pytest.approx(float(held.detach()), rel=1e-5)


def test_the_vocabulary_is_never_held_for_a_whole_window(tmp_path, monkeypatch):
    model = tiny_llama(layers=3).eval()
    student, blocks, asked = student_and_targets(model, tmp_path)
    monkeypatch.setattr(distil, "POSITIONS", 8)
    most = []
    model.lm_head.register_forward_hook(lambda m, i, o: most.append(o.numel()))
    backward(student, blocks, window(), asked, 1.0)
    assert max(most) == 8 * 256


def test_a_model_that_caps_its_logits_is_compared_by_them(tmp_path):
    class Capped(type(tiny_llama())):
        def forward(self, *args, **keywords):
            output = super().forward(*args, **keywords)
            output.logits = output.logits.tanh()
            return output

    dense = tiny_llama().eval()
    model = Capped(dense.config).eval()
    model.load_state_dict(dense.state_dict())
    found, _ = (student := Tap(model, Precision())).run(window())
    assert torch.equal(student.logits(found), model(input_ids=window()[None]).logits[0])
    plain = Tap(dense, Precision())
    assert plain.run(window())[0].shape == (40, 32)


def test_what_a_teacher_said_is_read_again(tmp_path):
    dense = tiny_llama().eval()
    tap = Tap(dense, Precision())
    teacher = Teacher(tap, observed_blocks(tap, window()), tmp_path)
    first = teacher.ask(3, window())
    logits = dense(input_ids=window()[None]).logits[0].detach()
    assert torch.equal(first.ids[:, 0], logits.argmax(-1))
    torch.testing.assert_close(
        first.log_probabilities[:, 0], logits.log_softmax(-1).amax(-1), rtol=1e-4, atol=1e-5
    )
    assert torch.allclose(first.log_probabilities.exp().sum(-1), torch.ones(40), atol=1e-5)
    with torch.no_grad():
        dense.lm_head.weight.zero_()
    again = teacher.ask(3, window())
    assert torch.equal(first.log_probabilities, again.log_probabilities)
    assert all(torch.equal(a, b) for a, b in zip(first.hidden, again.hidden, strict=True))
    assert first.hidden[0].dtype == torch.bfloat16


def test_observed_blocks_are_spread_over_the_depth():
    eight, one = (Tap(tiny_llama(layers=count), Precision()) for count in (8, 1))
    assert observed_blocks(eight, window()) == [f"model.layers.{i}" for i in (1, 3, 5, 7)]
    assert observed_blocks(one, window()) == ["model.layers.0"]


def test_blocks_that_a_text_does_not_pass_are_not_compared():
    model = tiny_llama(layers=2)
    model.images = copy.deepcopy(model.model.layers)
    blocks = observed_blocks(Tap(model, Precision()), window())
    assert blocks == ["model.layers.0", "model.layers.1"]


def test_a_teacher_itself_is_no_distance_away(tmp_path):
    dense = tiny_llama().eval()
    student, _, asked = student_and_targets(dense, tmp_path)
    assert abs(divergence(student, window(), asked)) < 1e-6
    assert isinstance(asked, Targets)
    assert tap.POSITIONS >= 1
