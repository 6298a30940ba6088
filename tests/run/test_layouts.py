"""The layout contract, applied to every registered layout."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch
from layout_contract import (
    BATCHES,
    DENSITIES,
    DTYPES,
    SHAPES,
    check_kept,
    check_product,
    check_round_trips,
    one_thread,  # noqa: F401
    random_weight,
)

from thresher.core.errors import LayerError, OptionError
from thresher.run import _run
from thresher.run.layouts.base import Layout

ALL = sorted(Layout.known())


def fitting_weight(layout: type[Layout], shape, density, dtype, seed):
    """A random matrix that the layout can hold, or None."""
    return layout.example(random_weight(shape, density, dtype, seed))


@pytest.mark.parametrize("name", ALL)
def test_products_equal_float64(name, isa):
    layout = Layout.named(name)
    assert _run.active_isa() == isa
    cases = itertools.product(SHAPES, DENSITIES, DTYPES)
    for seed, (shape, density, dtype) in enumerate(cases):
        weight = fitting_weight(layout, shape, density, dtype, seed)
        if weight is None:
            continue
        packed = check_round_trips(layout, weight)
        generator = torch.Generator().manual_seed(seed)
        bias = torch.randn(weight.shape[0], generator=generator)
        for batch in BATCHES[seed % 2 :: 2]:
            x = torch.randn(batch, weight.shape[1], generator=generator).to(dtype)
            check_product(packed, x, bias if seed % 3 else None)


@pytest.mark.parametrize("name", ALL)
def test_any_matrix_is_kept_or_refused(name):
    """Not only what the layout is made for: rows, columns and blocks that are partly empty."""
    layout = Layout.named(name)
    cases = itertools.product([(40, 100), (64, 128), (37, 513)], (0.003, 0.02, 0.3, 1.0), DTYPES)
    for seed, (shape, density, dtype) in enumerate(cases):
        weight = random_weight(shape, density, dtype, seed)
        try:
            packed = layout.from_dense(weight)
        except LayerError:
            assert layout.refusal(weight) is not None
            continue
        if packed.exact:
            check_kept(packed, weight)
        if packed.exact and layout.refusal(weight) is None:
            assert packed.nbytes < weight.numel() * weight.element_size()


def test_refusals_by_hand():
    """Sizes on both sides of where a layout begins to save bytes."""
    csr, mask, nm = (Layout.named(name) for name in ("csr", "bitmask", "n:m"))
    weight = torch.zeros(1, 100)
    weight[0, :66] = 1  # 66 * (4 + 2) = 396 bytes of 400
    assert csr.refusal(weight) is None
    weight[0, 66] = 1  # 402
    assert "too dense" in csr.refusal(weight)
    weight = torch.ones(1, 64)
    weight[0, :3] = 0  # 12 bytes saved, 8 of mask
    assert mask.refusal(weight) is None
    weight[0, :2] = 1  # 4 bytes saved
    assert "too dense" in mask.refusal(weight)
    weight = torch.zeros(1, 80)
    weight[0, ::8] = 1
    assert nm.find_pattern(weight) == (1, 8)
    weight[0, 1] = 1  # fits 2:8 and 2:4, and would fill 11 of 20 places
    assert nm.find_pattern(weight) == (2, 8)
    assert nm.refusal(weight) == "2:8 would store mostly zeros"
    weight[0, 9] = 1  # 12 of 20
    assert nm.refusal(weight) is None


@pytest.mark.parametrize(
    "pattern", [(1, 2), (2, 4), (1, 4), (1, 8), (2, 8), (4, 8), (3, 5), (2, 32)]
)
@pytest.mark.parametrize("groups", [1, 3, 8, 21])
def test_every_pattern_of_n_in_m(pattern, groups, isa):
    n, m = pattern
    score = torch.rand(11, groups, m, generator=torch.Generator().manual_seed(groups))
    weight = ((score.argsort(-1).argsort(-1) < n) * (score + 1)).reshape(11, groups * m)
    for dtype in DTYPES:
        packed = Layout.named("n:m").from_dense(weight.to(dtype), n, m)
        assert torch.equal(packed.to_dense(), weight.to(dtype))
        for batch in (1, 30):
            check_product(packed, torch.randn(batch, groups * m).to(dtype), None)


@pytest.mark.parametrize("pattern", [(1, 2), (2, 4), (1, 4), (1, 8), (2, 8), (1, 16), (2, 16)])
@pytest.mark.parametrize("chunk", [7, 64, 256])
def test_every_pattern_of_n_in_m_outputs(pattern, chunk, isa):
    n, m = pattern
    score = torch.rand(37, 300, generator=torch.Generator().manual_seed(chunk))
    groups = torch.nn.functional.pad(score, (0, 0, 0, -37 % m)).reshape(-1, m, 300)
    kept = (groups.argsort(1, descending=True).argsort(1) < n).reshape(-1, 300)[:37]
    weight = kept * (score + 1)
    for dtype in DTYPES:
        packed = Layout.named("n:m:g").from_dense(weight.to(dtype), n, m, chunk)
        assert torch.equal(packed.to_dense(), weight.to(dtype))
        for batch in (1, 16, 30, 70, 530):
            check_product(packed, torch.randn(batch, 300).to(dtype), None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_csr_rows_of_every_length(dtype, isa):
    """Row r has r survivors, so that vectors end everywhere, the last row's too."""
    generator = torch.Generator().manual_seed(0)
    kept = torch.rand(81, 80, generator=generator).argsort(1).argsort(1) < torch.arange(81)[:, None]
    weight = (torch.randn(81, 80, generator=generator) * kept).to(dtype)
    for rows in (81, 18):
        packed = Layout.named("csr").from_dense(weight[:rows])
        for batch in (1, 2, 16):
            check_product(packed, torch.randn(batch, 80, generator=generator).to(dtype), None)


@pytest.mark.parametrize("name", ["csr", "fan-in"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_inputs_of_other_rows_stay_out(name, bad, isa):
    """Vectors that reach into the survivors of the next row must not bring its inputs along."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.zeros(32, 96)
    # Even blocks of rows read the first half of the columns, odd ones the second.
    for block in range(8):
        rows = slice(4 * block, 4 * block + 4)
        first = block % 2 * 48
        weight[rows, first + 5 : first + 24] = torch.randn(4, 19, generator=generator)
    packed = Layout.named(name).from_dense(weight)
    x = torch.randn(1, 96, generator=generator)
    x[:, 48:] = bad
    out = packed.matmul(x)
    even = torch.arange(32) // 4 % 2 == 0
    assert bool(out[:, even].isfinite().all())
    assert not bool(out[:, ~even].isfinite().any())


def test_patterns_follow_one_another_within_a_chunk():
    """Hand-computed: three columns, of which the first and the last keep the same rows."""
    weight = torch.tensor([[1.0, 0, 3], [0, 2, 0], [4, 0, 6], [0, 5, 0]])
    tensors = Layout.named("n:m:g").from_dense(weight, 2, 4).tensors()
    # Patterns in order: rows 01, 02, 03, 12, 13, 23.
    assert tensors["counts"].tolist() == [[[0, 2, 0, 0, 1, 0]]]
    assert tensors["indices"].tolist() == [[0, 2, 1]]
    assert tensors["values"].tolist() == [[[1, 4], [3, 6], [2, 5]]]


def test_grouped_columns_must_be_named_once():
    layout = Layout.named("n:m:g")
    packed = layout.from_dense(torch.eye(8, 4), 1, 8)
    tensors = packed.tensors()
    for name, message in (("indices", "every column once"), ("counts", "add up to 4")):
        damaged = tensors | {name: torch.ones_like(tensors[name])}
        with pytest.raises(LayerError, match=message):
            layout.from_tensors(damaged, packed.shape, packed.settings)
    with pytest.raises(LayerError, match="n must be 1 or 2"):
        layout.from_dense(torch.eye(8), 3, 8)
    with pytest.raises(LayerError, match="along the outputs"):
        layout.from_dense(torch.ones(8, 8), 1, 8)
    with pytest.raises(OptionError, match="chunk=300"):
        layout.from_dense(torch.eye(8), 1, 8, 300)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_input(name, dtype):
    weight = fitting_weight(Layout.named(name), (48, 64), 0.3, dtype, 0)
    packed = Layout.named(name).from_dense(weight)
    x = torch.randn(5, weight.shape[1]).to(dtype).requires_grad_()
    grad = torch.randn(5, weight.shape[0]).to(dtype)
    packed.matmul(x).backward(grad)
    expected = grad.double() @ packed.to_dense().double()
    torch.testing.assert_close(x.grad.double(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ALL)
def test_any_leading_dimensions(name):
    weight = fitting_weight(Layout.named(name), (48, 64), 0.3, torch.float32, 0)
    packed = Layout.named(name).from_dense(weight)
    x = torch.randn(2, 3, 64)
    expected = packed.matmul(x.reshape(6, 64))
    assert torch.equal(packed.matmul(x), expected.reshape(2, 3, 48))
    assert torch.equal(packed.matmul(x.transpose(0, 1)), packed.matmul(x).transpose(0, 1))
    one = packed.matmul(x[0, 0])
    assert one.shape == (48,)
    torch.testing.assert_close(one, expected[0], rtol=1e-4, atol=1e-4)
    assert packed.matmul(x[:, :0]).shape == (2, 0, 48)


@pytest.mark.parametrize("name", ALL)
def test_bit_identical_across_threads(name, isa):
    weight = fitting_weight(Layout.named(name), (200, 256), 0.4, torch.bfloat16, 1)
    packed = Layout.named(name).from_dense(weight)
    before = torch.get_num_threads()
    try:
        for batch in (1, 7, 40):
            x = torch.randn(batch, weight.shape[1]).bfloat16()
            results = []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                results.append(packed.matmul(x))
            assert all(torch.equal(results[0], r) for r in results[1:])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ALL)
def test_several_python_threads_at_once(name):
    weight = fitting_weight(Layout.named(name), (160, 192), 0.4, torch.float32, 2)
    packed = Layout.named(name).from_dense(weight)
    inputs = [torch.randn(b, weight.shape[1]) for b in (1, 3, 17, 64)]
    expected = [packed.matmul(x) for x in inputs]
    wrong = []

    def work(x, y):
        # A new thread takes torch's number of threads over only when asked for it; until then MKL
        # parts torch's own products by the processor's, and sums them in another order.
        torch.get_num_threads()
        for _ in range(50):
            if not torch.equal(packed.matmul(x), y):
                wrong.append(x.shape)

    workers = [
        threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("name", ALL)
def test_lost_or_shortened_buffers_are_refused(name):
    weight = fitting_weight(Layout.named(name), (48, 64), 0.3, torch.float32, 3)
    packed = Layout.named(name).from_dense(weight)
    tensors = packed.tensors()
    for lost in tensors:
        rest = {k: v for k, v in tensors.items() if k != lost}
        with pytest.raises(LayerError, match=lost):
            Layout.named(name).from_tensors(rest, packed.shape, packed.settings)
        shorter = dict(tensors)
        shorter[lost] = tensors[lost].reshape(-1)[:-1].clone()
        with pytest.raises(LayerError):
            Layout.named(name).from_tensors(shorter, packed.shape, packed.settings)


@pytest.mark.parametrize("name", ALL)
def test_random_bytes_are_refused_or_harmless(name):
    """Corrupted buffers either are refused or give a matrix whose product stays inside it."""
    layout = Layout.named(name)
    weight = fitting_weight(layout, (48, 64), 0.3, torch.float32, 4)
    packed = layout.from_dense(weight)
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for damaged, _ in itertools.product(packed.tensors(), range(20)):
        tensors = {k: v.clone() for k, v in packed.tensors().items()}
        if tensors[damaged].is_floating_point():
            continue
        flat = tensors[damaged].reshape(-1).view(torch.uint8)
        at = torch.randint(flat.numel(), (1,), generator=generator)
        flat[at] = torch.randint(256, (1,), generator=generator, dtype=torch.uint8)
        try:
            again = layout.from_tensors(tensors, packed.shape, packed.settings)
        except LayerError:
            refused += 1
            continue
        check_product(again, torch.randn(3, 64), None)
        check_product(again, torch.randn(20, 64), None)
    assert refused > 0 or all(t.is_floating_point() for t in packed.tensors().values())


def test_wrong_inputs_name_the_remedy():
    packed = Layout.named("bitmask").from_dense(torch.eye(8))
    with pytest.raises(LayerError, match="last dimension must be 8"):
        packed.matmul(torch.randn(2, 7))
    with pytest.raises(LayerError, match="convert one of them"):
        packed.matmul(torch.randn(2, 8).bfloat16())
    with pytest.raises(OptionError, match="did you mean 'bitmask'"):
        Layout.named("bitmsk")


@pytest.mark.parametrize("wanted", ["sse9", "AVX2"])
def test_unknown_instruction_set_is_refused(wanted, force_isa):
    force_isa(wanted)
    with pytest.raises(ValueError, match="use portable, avx2, avx512, avx512bf16 or amx"):
        Layout.named("csr").from_dense(torch.eye(4)).matmul(torch.ones(1, 4))


def test_the_instruction_set_is_read_once(force_isa, monkeypatch):
    force_isa("portable")
    assert _run.active_isa() == "portable"
    monkeypatch.setenv("THRESHER_ISA", "nonsense")
    assert _run.active_isa() == "portable"
