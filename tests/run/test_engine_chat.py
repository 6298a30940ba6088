"""Conversations, what of a text is computed again, and the commands around both."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from model_folders import byte_tokenizer, save_folder
from small_models import llama
from test_engine import made, prompt

import thresher as th
from thresher.cli import main
from thresher.core.errors import DataError, OptionError
from thresher.run.engine.chat import Chat
from thresher.run.engine.lookup import guess
from thresher.run.engine.sampling import Sampler
from thresher.run.engine.session import Session

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def talking(context=256, **changes):
    return llama(vocab_size=256, max_position_embeddings=context, eos_token_id=10, **changes)


def engine(context=256):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return th.Engine(talking(context), tokenizer=tokenizer)


def test_every_message_is_answered_in_view_of_all_before():
    model = engine()
    chat = Chat(model, "brief", max_new_tokens=12)
    first = "".join(chat.answer("hello"))
    expected = model.generate("<system>brief<user>hello<assistant>", max_new_tokens=12)
    assert first == expected != ""
    second = "".join(chat.answer("again"))
    text = f"<system>brief<user>hello<assistant>{first}<user>again<assistant>"
    assert second == model.generate(text, max_new_tokens=12)
    assert [message["role"] for message in chat.messages] == ["system", *["user", "assistant"] * 2]


def test_an_answer_that_is_not_heard_out_stays_as_far_as_it_came():
    chat = Chat(engine(), max_new_tokens=30)
    pieces = chat.answer("hello")
    heard = next(pieces) + next(pieces)
    pieces.close()
    assert chat.messages[-1] == {"role": "assistant", "content": heard}
    assert "".join(chat.answer("again"))


def test_an_answer_may_fill_the_context_and_no_more():
    chat = Chat(engine(64))
    lengths = []

    def talk():
        for _ in range(20):
            lengths.append(len(chat.messages))
            list(chat.answer("hello, hello"))

    with pytest.raises(DataError, match="context 64"):
        talk()
    assert len(chat.messages) == lengths[-1] > 0


def test_models_that_were_not_made_for_chats_are_refused():
    with pytest.raises(DataError, match="no chat template"):
        Chat(th.Engine(talking(), tokenizer=byte_tokenizer()))
    with pytest.raises(DataError, match="no chat template"):
        Chat(th.Engine(talking()))


def test_only_what_is_new_is_computed_and_gives_the_same_logits():
    compiled = th.Engine(made("mistral-window")).compiled
    session = Session(compiled)
    ids = prompt(60).numpy()
    other = prompt(60, 1).numpy()
    texts = [ids[:40], ids, ids[:50], ids[:50], np.concatenate([ids[:20], other]), other, ids[:1]]
    advanced = []
    for text in texts:
        before = session.common(text)
        found = session.logits(text)
        advanced.append(len(text) - before)
        assert np.array_equal(found, Session(compiled).logits(text))
    assert advanced == [40, 20, 1, 1, 60, 60, 1]


def test_a_pass_that_fails_leaves_no_wrong_cache_behind():
    compiled = th.Engine(made("llama")).compiled
    session = Session(compiled)
    ids, other = prompt(30).numpy(), prompt(30, 1).numpy()
    session.logits(ids)
    batch = session._alone
    own = batch._work

    class Failing:
        """Writes over the cache and then finds that memory is short."""

        def advance(self, *given):
            own.advance(*given)
            raise MemoryError

    batch._work = Failing()
    with pytest.raises(MemoryError):
        session.logits(other)
    batch._work = own
    longer = np.concatenate([ids, other[:1]])
    assert np.array_equal(session.logits(longer), Session(compiled).logits(longer))


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.8, "repetition_penalty": 1.1, "seed": 3}]
)
def test_guesses_change_no_token(bits, options, monkeypatch):
    model = th.Engine(made("llama"), bits)
    sampler = Sampler(**options)
    calls = []
    own = Session.logits
    monkeypatch.setattr(
        Session, "logits", lambda self, *a: calls.append(len(a[0])) or own(self, *a)
    )
    for seed in range(4):
        start = np.tile(prompt(9, seed).numpy(), 5)  # what repeats is guessed
        expected = list(model.tokens(start, 60, sampler))
        plain = len(calls)
        for lookup in (1, 3, 7, 30):
            assert list(model.tokens(start, 60, sampler, lookup=lookup)) == expected
        assert options or len(calls) - plain < 4 * plain
        calls.clear()
    calls.clear()
    monkeypatch.setattr(Session, "logits", lambda self, *a: calls.append(a[1]) or own(self, *a))
    list(model.tokens(start, 9, sampler, lookup=7))
    assert calls[0] == 1  # not the logits of every token of the prompt
    assert max(calls) <= 8
    with pytest.raises(OptionError, match="lookup is -1"):
        model.tokens([3], lookup=-1)


def test_guesses_are_what_came_after_the_same_tokens():
    text = np.array([1, 2, 3, 4, 5, 1, 2, 3, 9, 1, 2, 3])
    assert guess(text, 3).tolist() == [9, 1, 2]
    assert guess(text[:8], 9).tolist() == [4, 5, 1, 2, 3]
    assert guess(text[:8], 0).size == guess(text[:5], 4).size == guess(text[:1], 4).size == 0


def test_a_sequence_goes_back_and_not_forward():
    compiled = th.Engine(made("llama")).compiled
    session = Session(compiled)
    session.logits(prompt(9).numpy())
    for position in (-1, 10):
        with pytest.raises(ValueError, match="not one that was passed"):
            session.sequence.rewind(position)
    session.sequence.rewind(9)


def run(*arguments, **options):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)


def test_packed_folders_write_the_same_text(tmp_path):
    folder = save_folder(talking(), tmp_path / "model")
    packed = run("pack", folder, "--bits", 4, "--out", tmp_path / "fast")
    assert packed.exit_code == 0, packed.output
    texts = [
        run("generate", *where, "sparse", "--tokens", 20).output
        for where in ([tmp_path / "fast"], [folder, "--bits", 4])
    ]
    assert texts[0] == texts[1] != "\n"
    again = run("pack", folder, "--out", tmp_path / "fast")
    assert again.exit_code == 1
    assert "exists" in again.output


def test_a_conversation_by_hand(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    folder = save_folder(talking(), tmp_path / "model")
    tokenizer.save_pretrained(folder)
    said = run("chat", folder, "--tokens", 9, input="hello\n\nagain\n")
    assert said.exit_code == 0, said.output
    chat = Chat(th.Engine(folder), max_new_tokens=9)
    for text in ("hello", "again"):
        answer = "".join(chat.answer(text))
        assert answer in said.output


def test_what_stops_an_answer_does_not_stop_the_program(tmp_path, monkeypatch):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    folder = save_folder(talking(), tmp_path / "model")
    tokenizer.save_pretrained(folder)
    calls = iter([KeyboardInterrupt, None])
    own = Chat.answer

    def answer(self, text):
        for piece in own(self, text):
            yield piece
            if next(calls, None) is KeyboardInterrupt:
                raise KeyboardInterrupt

    monkeypatch.setattr(Chat, "answer", answer)
    said = run("chat", folder, "--tokens", 9, input="hello\nagain\n" + "x" * 300 + "\n")
    assert said.exit_code == 0, said.output
    assert said.output.count("> ") == 4
    assert "begin a new one" in said.output
