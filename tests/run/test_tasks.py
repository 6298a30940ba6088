"""Multiple-choice questions: what is scored, what is refused, and that the harness agrees."""

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from model_folders import byte_tokenizer, tiny_llama
from tokenizers.processors import TemplateProcessing
from torch import nn

import thresher as th
from thresher.cli import main
from thresher.core.errors import DataError, MissingPackageError, NumericalError, OptionError
from thresher.run import likelihood, tasks
from thresher.run.likelihood import log_likelihoods
from thresher.run.tasks import evaluate_tasks, listed_tasks, read_questions

QUESTIONS = [
    {"question": "The cat sat on", "choices": ["the mat", "a", "stone walls"], "answer": 0},
    {"question": "Two and two are ", "choices": ["4", "5"], "answer": 1},
    {"question": "", "choices": ["It rains here", "Here rains it"], "answer": 1},
    {"question": "Name a colour:\n", "choices": ["red", "of course", "x", "y"], "answer": 3},
]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def model():
    return tiny_llama(layers=1, initializer_range=0.3).eval()


def tokenizer():
    made = byte_tokenizer()
    made.bos_token = "!"
    return made


@torch.no_grad()
def plainly(model, context, continuation):
    """Return a log-likelihood token by token, without batches."""
    total = 0.0
    for token in continuation:
        total += float(model(torch.tensor([context])).logits[0, -1].log_softmax(-1)[token])
        context = [*context, token]
    return total


def test_likelihoods_are_those_of_one_pass_after_another(monkeypatch):
    monkeypatch.setattr(likelihood, "_TOKENS", 8)
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(256, (n,), generator=generator).tolist()  # noqa: E731
    pairs = [(draw(n), draw(m)) for n, m in [(3, 2), (1, 4), (4, 1), (9, 3), (2, 1), (3, 2)]]
    pairs.append((pairs[2][0], [7]))
    done = []
    found = log_likelihoods(net := model(), pairs, lambda text, many: done.append(many))
    assert found == pytest.approx([plainly(net, *pair) for pair in pairs], abs=1e-4)
    assert sum(done) == len(pairs)


def test_choices_that_differ_in_their_last_token_share_a_pass():
    runs = []
    net = model()
    net.register_forward_hook(lambda *_: runs.append(1))
    log_likelihoods(net, [([1, 2], [3]), ([1, 2], [4]), ([1, 2], [5])])
    assert len(runs) == 1


def test_a_model_that_trains_stays_so():
    net = model().train()
    log_likelihoods(net, [([1, 2], [3])])
    assert net.training


def test_damaged_weights_are_no_answer():
    net = model()
    nn.init.constant_(net.model.norm.weight, float("nan"))
    with pytest.raises(NumericalError, match="its weights are damaged"):
        log_likelihoods(net, [([1, 2], [3])])


def scored(monkeypatch, path, scores):
    """Evaluate a file with scores in place of likelihoods."""
    monkeypatch.setattr(tasks, "log_likelihoods", lambda *_: scores)
    return evaluate_tasks(model(), tokenizer(), path, progress=False)


def test_normalised_accuracy_goes_by_characters_and_the_first_of_equals(tmp_path, monkeypatch):
    rows = [
        {"question": "a", "choices": ["long one", "b"], "answer": 0},
        {"question": "a", "choices": ["c", "b"], "answer": 0},
        {"question": "a", "choices": ["c", "b"], "answer": 1},
    ]
    # Without its space "long one" has 8 characters: -8 / 8 equals -1 / 1, and with it does not.
    scores = [-8.0, -1.0, -2.0, -2.0, -2.0, -2.0]
    found = scored(monkeypatch, write(tmp_path / "mine.jsonl", *rows), scores)
    assert found == {"mine": {"accuracy": 1 / 3, "accuracy_norm": 2 / 3, "questions": 3}}


def test_the_question_is_begun_as_the_tokenizer_begins_texts(monkeypatch, tmp_path):
    path = write(tmp_path / "q.jsonl", {"question": "ab ", "choices": ["c", "de"], "answer": 0})
    seen = []

    def noting(net, pairs, advance):
        seen.extend(pairs)
        return [0.0] * len(pairs)

    monkeypatch.setattr(tasks, "log_likelihoods", noting)
    evaluate_tasks(model(), tokenizer(), path, progress=False)
    decode = byte_tokenizer().decode
    assert [(decode(a), decode(b)) for a, b in seen] == [("ab", "  c"), ("ab", "  de")]
    beginning = tokenizer()
    beginning.backend_tokenizer.post_processor = TemplateProcessing(
        single="! $A", special_tokens=[("!", 0)]
    )
    seen.clear()
    evaluate_tasks(model(), beginning, path, progress=False)
    assert [a[0] for a, _ in seen] == [0, 0]
    assert [decode(a[1:]) for a, _ in seen] == ["ab", "ab"]


def test_long_questions_lose_their_beginning_with_a_warning(tmp_path):
    net = tiny_llama(layers=1, max_position_embeddings=8).eval()
    path = write(tmp_path / "q.jsonl", {"question": "x" * 20, "choices": ["a", "b"], "answer": 0})
    with pytest.warns(UserWarning, match=r"2 of 2 questions .* longer than the 8 positions"):
        evaluate_tasks(net, tokenizer(), path, progress=False)
    path = write(tmp_path / "q.jsonl", {"question": "x", "choices": ["a", "b" * 9], "answer": 0})
    with pytest.raises(DataError, match="has 10 tokens, more than the model has positions: 'bbb"):
        evaluate_tasks(net, tokenizer(), path, progress=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "label": 1}, "has no 'question': it has 'text', 'label', and a question"),
        ({"question": "a", "choices": ["b", "c"]}, "has no 'answer': it has 'question', 'choi"),
        ({"question": 5, "choices": ["b", "c"], "answer": 0}, "'question' is 5, expected text"),
        ({"question": "a", "choices": "bc", "answer": 0}, "'choices' is 'bc', expected a list"),
        ({"question": "a", "choices": ["b"], "answer": 0}, "expected a list of two texts"),
        ({"question": "a", "choices": ["b", ""], "answer": 0}, "expected a list of two texts"),
        ({"question": "a", "choices": ["b", "c"], "answer": "B"}, "'answer' is 'B', expected the"),
        ({"question": "a", "choices": ["b", "c"], "answer": True}, "'answer' is True, expected"),
        ({"question": "a", "choices": ["b", "c"], "answer": 2}, "there are 2 choices; .* 0 to 1"),
        ({"question": "a", "choices": ["b", "c"], "answer": -1}, "'answer' is -1, and there"),
    ],
)
def test_a_bad_question_is_named_with_its_line(row, message, tmp_path):
    with pytest.raises(DataError, match=f"line 2 of '.*q.jsonl'.*{message}"):
        read_questions(write(tmp_path / "q.jsonl", QUESTIONS[0], row))


def test_no_model_runs_before_all_files_are_read(tmp_path):
    good = write(tmp_path / "good.jsonl", *QUESTIONS)
    with pytest.raises(DataError, match=r"'missing\.jsonl' does not exist"):
        evaluate_tasks(None, tokenizer(), f"{good}, missing.jsonl")
    other = tmp_path / "other"
    other.mkdir()
    again = write(other / "good.jsonl", *QUESTIONS)
    with pytest.raises(DataError, match="two files of questions are called 'good'"):
        evaluate_tasks(None, tokenizer(), f"{good},{again}")
    with pytest.raises(DataError, match="no task is named"):
        evaluate_tasks(None, tokenizer(), " , ")


def test_a_comma_parts_tasks_but_not_the_path_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "a,b").mkdir()
    for name in ("x.jsonl", "y, z.jsonl"):
        write(tmp_path / "a,b" / name, *QUESTIONS)
    monkeypatch.chdir(tmp_path)
    first, second = "a,b/x.jsonl", "a,b/y, z.jsonl"
    assert listed_tasks(first) == [first]
    assert listed_tasks(f"{second}, {first},arc_easy,") == [second, first, "arc_easy"]
    assert listed_tasks("a,b") == ["a", "b"]
    assert listed_tasks([Path(first), second]) == [first, second]
    # No file has so long a name.
    many = [f"task_{i}" for i in range(100)]
    assert listed_tasks(",".join(many)) == many


def test_an_empty_question_needs_a_token_to_begin_with(tmp_path):
    path = write(tmp_path / "q.jsonl", QUESTIONS[2])
    with pytest.raises(DataError, match="a question is empty"):
        evaluate_tasks(model(), byte_tokenizer(), path, progress=False)


def test_packed_and_sparse_models_answer(tmp_path):
    path = write(tmp_path / "q.jsonl", *QUESTIONS)
    net = tiny_llama(layers=1, hidden=64, initializer_range=0.3).eval().to(torch.bfloat16)
    th.prune(net, "magnitude", density=0.5, progress=False)
    sparse = evaluate_tasks(net, tokenizer(), path, progress=False)
    th.pack(net, batch=1, candidates="bitmask", repeats=1, gain=0, show=False)
    assert evaluate_tasks(net, tokenizer(), path, progress=False).keys() == sparse.keys()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'thresher\[tasks\]'"):
        evaluate_tasks(model(), tokenizer(), "arc_easy")


def same_task(folder):
    """Write questions, and the same as a task of the harness."""
    path = write(folder / "q.jsonl", *(QUESTIONS[i] for i in (0, 1, 3)))
    task = folder / "same.yaml"
    task.write_text(
        f"task: same\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {path}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: answer\n"
        "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
    )
    return path, task


def test_the_harness_finds_the_same(tmp_path):
    pytest.importorskip("lm_eval")
    path, task = same_task(tmp_path)
    for seed in range(4):
        net = tiny_llama(layers=1, seed=seed, initializer_range=0.3).eval()
        found = evaluate_tasks(net, tokenizer(), f"{path},{task}", progress=False)
        assert found["same"] == pytest.approx(found["q"])


def test_the_command_of_the_harness_knows_sparse_folders(tmp_path):
    pytest.importorskip("lm_eval")
    path, task = same_task(tmp_path)
    net = tiny_llama(layers=1, initializer_range=0.3).eval()
    th.prune(net, "magnitude", density=0.5, progress=False)
    th.save(net, tmp_path / "small", tokenizer=tokenizer())
    given = f"pretrained={tmp_path / 'small'},dtype=float32"
    typed = ["lm-eval", "--model", "thresher", "--model_args", given, "--tasks", str(task)]
    typed += ["--device", "cpu", "--output_path", str(tmp_path / "results")]
    said = CliRunner().invoke(main, typed)
    assert said.exit_code == 0, (said.output, said.exception)
    (file,) = (tmp_path / "results").rglob("*.json")
    found = json.loads(file.read_text())["results"]["same"]
    ours = evaluate_tasks(net, tokenizer(), path, progress=False)["q"]
    assert found["acc,none"] == pytest.approx(ours["accuracy"])
    assert found["acc_norm,none"] == pytest.approx(ours["accuracy_norm"])


def test_a_task_that_the_harness_lacks_is_named():
    pytest.importorskip("lm_eval")
    with pytest.raises(OptionError, match="there is no task 'arc_esay'; did you mean 'arc_easy'"):
        evaluate_tasks(model(), tokenizer(), "arc_esay")
