"""What loaders and data sets carry besides a model's inputs is left out."""

import pytest
import torch
from model_folders import byte_tokenizer, tiny_llama
from small_models import VOCABULARY, llama, tokens
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import thresher as th
from thresher.core.errors import DataError
from thresher.stream.samples import as_samples


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x, scale=None):
        return self.layer(x) if scale is None else self.layer(x) * scale[:, None]


class Pair(Net):
    def forward(self, x, y):
        return self.layer(x + y)


X, LABELS = torch.randn(8, 16), torch.randint(0, 4, (8,))


@pytest.mark.parametrize("option", ["windows", "length"])
@pytest.mark.parametrize("data", [torch.zeros(9, 8).long(), [torch.zeros(8).long()] * 9])
def test_what_is_no_text_is_not_said_how_to_cut(data, option):
    """It would be used whole without a word."""
    pruned = llama()
    th.prune(pruned, "magnitude", density=0.5, progress=False)
    for verb in (
        lambda **more: th.prune(llama(), "wanda", data, density=0.5, **more),
        lambda **more: th.prune(llama(), "structured", data, density=0.8, **more),
        lambda **more: th.activate(llama(), "teal", data, sparsity=0.5, **more),
        lambda **more: th.heal(pruned, llama(), data, minutes=0.01, **more),
    ):
        with pytest.raises(DataError, match=f"{option}=4 says how texts are cut"):
            verb(**{option: 4}, progress=False)


def loader(*tensors):
    return DataLoader(TensorDataset(*tensors), 4)


def test_labels_are_no_optional_argument():
    with pytest.warns(UserWarning, match="optional argument 'scale'"):
        samples, described = as_samples(Net(), loader(X, LABELS))
    assert [len(sample) for sample in samples] == [1, 1]
    assert described["labels"].startswith("left out: all but the first 1 of the 2")


def test_wrappers_that_hand_everything_on_get_no_labels():
    samples, _ = as_samples(nn.DataParallel(nn.Sequential(nn.Linear(16, 4))), loader(X, LABELS))
    assert [len(sample) for sample in samples] == [1, 1]


def test_what_a_model_requires_it_gets():
    samples, described = as_samples(Pair(), loader(X, X, LABELS))
    assert [len(sample) for sample in samples] == [2, 2]
    assert "first 2 of the 3" in described["labels"]
    assert "labels" not in as_samples(Pair(), loader(X, X))[1]


def test_optional_arguments_are_given_by_name():
    samples, described = as_samples(Net(), [{"x": X, "scale": torch.ones(8)}])
    assert samples[0].keys() == {"x", "scale"}
    assert "labels" not in described


@pytest.mark.filterwarnings("ignore:of tuples of 2")
def test_labels_do_not_become_the_attention_mask():
    ids = tokens()[:4]
    one, other = llama(), llama()
    th.prune(one, "wanda", list(ids.split(2)), density=0.5, progress=False)
    th.prune(
        other, "wanda", DataLoader(TensorDataset(ids, ids * 0), 2), density=0.5, progress=False
    )
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.filterwarnings("ignore:of tuples of 2")
def test_a_dict_beside_its_label_is_the_input():
    samples, _ = as_samples(llama(), [({"input_ids": tokens()[:2]}, torch.zeros(2))])
    assert samples[0].keys() == {"input_ids"}


@pytest.mark.parametrize("make", [lambda row: row[None], lambda row: row, lambda row: row.tolist()])
def test_ids_count_where_a_row_has_its_text_too(make):
    row = {"text": "some words", "input_ids": make(tokens()[0]), "id": "a"}
    samples, _ = as_samples(llama(), [row, row])
    assert samples[0].keys() == {"input_ids"}
    assert torch.equal(samples[0]["input_ids"], tokens()[:1])
    assert int(samples[0]["input_ids"].max()) < VOCABULARY


def test_a_loss_of_ones_own_is_given_the_labels():
    model = nn.Sequential(nn.Linear(16, 4))
    seen = []

    def loss(model, sample):
        x, labels = sample
        seen.append(labels)
        return nn.functional.cross_entropy(model(x), labels)

    recipe = th.Recipe(score=th.scores.GradientMagnitude(), density=0.5)
    th.prune(model, recipe, loader(X, LABELS), loss=loss, progress=False)
    assert torch.equal(torch.cat(seen), LABELS)


def of_texts(data, **options):
    """Return what is read of data, as text."""
    options = {"tokenizer": byte_tokenizer(), "windows": 99, "length": 1} | options
    samples, _ = as_samples(tiny_llama(layers=1), data, **options)
    return byte_tokenizer().decode(torch.cat([s["input_ids"].flatten() for s in samples]))


CHAT = [{"role": "user", "content": "a"}]


def test_texts_and_chats_are_read_whatever_holds_them():
    chatting = byte_tokenizer()
    chatting.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    assert of_texts("ab") == "ab"
    assert of_texts(iter(["a", {"text": "b"}])) == "a\n\nb"
    assert of_texts({"text": ["a", "b"]}) == of_texts([{"text": "a"}, {"text": "b"}]) == "a\n\nb"
    assert of_texts({"messages": CHAT}, tokenizer=chatting) == "<a>"
    assert of_texts({"messages": [CHAT, CHAT]}, tokenizer=chatting) == "<a><a>"
    assert of_texts([{"messages": CHAT}, "b"], tokenizer=chatting) == "<a>\n\nb"


def test_no_more_rows_are_read_than_are_needed():
    def endless():
        while True:
            yield {"text": "ab" * 20}

    assert of_texts(endless(), windows=7) == "abababa"


def test_a_split_of_a_data_set_is_read_and_all_of_them_are_refused():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"text": "a", "id": 1}, {"text": "b", "id": 2}])
    assert of_texts(rows) == of_texts(rows.to_iterable_dataset()) == "a\n\nb"
    ids = datasets.Dataset.from_list([byte_tokenizer()(text) for text in ("a", "b")])
    ids = ids.select_columns(["input_ids"])
    whole = {"windows": None, "length": None}
    assert of_texts(ids, **whole) == of_texts(ids.with_format("torch"), **whole) == "ab"
    with pytest.raises(DataError, match=r"has the splits 'train', 'test'; .* data\['train'\]"):
        of_texts(datasets.DatasetDict({"train": rows, "test": rows}))


@pytest.mark.parametrize("make", [list, iter, lambda rows: [row[None] for row in rows]])
def test_tensors_of_ids_are_what_a_tensor_of_them_is(make):
    ids = tokens()[:3]
    samples, _ = as_samples(llama(), make(ids))
    assert [sample.keys() for sample in samples] == [{"input_ids"}] * 3
    assert torch.equal(torch.cat([sample["input_ids"] for sample in samples]), ids)
    with pytest.raises(DataError, match="beyond the 60"):
        as_samples(llama(), make(ids + VOCABULARY))


def test_fewer_windows_than_asked_are_said():
    model = llama()
    text = {"tokenizer": lambda text, **_: {"input_ids": [ord(c) % 60 for c in text]}}
    with pytest.warns(UserWarning, match="the data gives 2 windows of 8 tokens, fewer than the 9"):
        th.prune(model, "wanda", "a" * 17, density=0.5, windows=9, length=8, **text)
