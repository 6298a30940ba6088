import json
import sys

import pytest
import torch
from model_folders import byte_tokenizer
from tokenizers.processors import TemplateProcessing

from thresher.core.errors import DataError, MissingPackageError
from thresher.parts.calibration import (
    embedded_text,
    file_windows,
    read_text,
    split_windows,
    token_windows,
)


def by_character(text, **options):
    assert options["add_special_tokens"] is False
    return {"input_ids": [ord(c) % 256 for c in text]}


def test_windows_are_consecutive():
    windows = token_windows(by_character, "abcdefghij", length=3)
    assert windows.tolist() == [[97, 98, 99], [100, 101, 102], [103, 104, 105]]
    assert token_windows(by_character, "abcdefghij", length=3, count=2).shape == (2, 3)


@pytest.mark.parametrize(
    ("windows", "used", "spare"),
    [(20, 8, 4), (12, 8, 4), (11, 8, 3), (8, 6, 2), (2, 1, 1), (1, 1, 0)],
)
def test_windows_are_shared_out(windows, used, spare):
    every = torch.arange(windows).unsqueeze(1)
    calibration, held_out = split_windows(every, 8, 4)
    assert torch.cat([calibration, held_out]).flatten().tolist() == list(range(used + spare))
    assert len(held_out) == spare


def test_texts_are_joined_with_blank_lines():
    windows = token_windows(by_character, ["ab", "cd"], length=6)
    assert bytes(windows[0].tolist()) == b"ab\n\ncd"


@pytest.mark.parametrize("text", ["", "  \n", [], [""]])
def test_empty_text_is_named(text):
    with pytest.raises(DataError, match="the text is empty"):
        token_windows(by_character, text, length=3)


def test_short_text_is_named_with_its_length():
    with pytest.raises(DataError, match="5 tokens, fewer than one window of 8"):
        token_windows(by_character, "short", length=8)


def test_files_that_are_not_text_are_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_text(tmp_path / "missing.txt")
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    with pytest.raises(DataError, match=r"empty\.txt.*is empty"):
        read_text(empty)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("naïve".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt.*not UTF-8: byte 0xef at position 2.*iconv"):
        read_text(latin)


def test_the_embedded_text_is_long_enough_to_calibrate_on(tmp_path):
    text = embedded_text()
    assert len(text) > 100_000
    file = tmp_path / "text.txt"
    file.write_text(text, encoding="utf-8")
    assert read_text(file) == text


TURNS = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
SHARED = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}]


def chatting():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    return tokenizer


def lines(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def words(path, tokenizer=None, count=None):
    windows = file_windows(path, tokenizer or byte_tokenizer(), length=1, count=count)
    return byte_tokenizer().decode(windows.flatten())


def test_rows_with_text_are_joined_as_texts_are(tmp_path):
    path = lines(tmp_path / "texts.jsonl", {"text": "ab"}, "", {"text": "cd", "id": 1})
    assert words(path) == "ab\n\ncd"
    assert words(lines(tmp_path / "texts.txt", {"text": "ab"})) == '{"text": "ab"}'


@pytest.mark.parametrize("row", [{"messages": TURNS}, {"conversations": SHARED}])
def test_chats_are_written_as_the_template_has_them(row, tmp_path):
    path = lines(tmp_path / "chats.jsonl", row, row)
    assert words(path, chatting()) == 2 * "<user>Who?<assistant>Me."


def test_no_more_chats_are_written_than_are_needed(tmp_path):
    path = lines(tmp_path / "chats.jsonl", {"messages": TURNS * 9}, {"messages": [7]})
    assert words(path, chatting(), count=1) == "<"


def test_a_chat_without_a_template_is_refused_with_a_remedy(tmp_path):
    path = lines(tmp_path / "chats.jsonl", {"text": "ab"}, {"messages": TURNS})
    with pytest.raises(DataError, match=r"line 2 of '.*chats\.jsonl' is a chat, .*chat_template"):
        file_windows(path, byte_tokenizer(), length=1)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('{"text": "b"', "line 2 of '.*' is no JSON: .*every line must be one JSON object"),
        ("[1]", r"line 2 of '.*' holds list \[1\], expected an object"),
        (
            '{"body": "b", "id": 1}',
            r"line 2 of '.*' has no text: it has 'body' \(str\), 'id' \(int\), and a row",
        ),
        ('{"text": null}', r"line 2 of '.*' has no text: it has 'text' \(NoneType\)"),
        ('{"messages": []}', "line 2 of '.*' is a chat without a turn"),
        ('{"messages": [{"who": "me"}]}', "a turn that has 'who'; a turn must have 'role'"),
    ],
)
def test_the_line_that_is_broken_is_named(second, message, tmp_path):
    path = lines(tmp_path / "rows.jsonl", {"text": "a"}, second)
    with pytest.raises(DataError, match=message):
        file_windows(path, chatting(), length=1)


def test_what_the_template_refuses_is_named(tmp_path):
    tokenizer = chatting()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    path = lines(tmp_path / "chats.jsonl", {"messages": TURNS})
    with pytest.raises(DataError, match=r"line 1 of .* does not take: roles must alternate"):
        file_windows(path, tokenizer, length=1)


def test_a_saved_data_set_is_read_row_by_row(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"text": "ab"}, {"text": "cd"}])
    rows.save_to_disk(tmp_path / "rows")
    assert words(tmp_path / "rows") == "ab\n\ncd"
    datasets.DatasetDict({"test": rows, "train": rows}).save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match=r"splits \(test, train\); name .* such as '.*splits/test'"):
        words(tmp_path / "splits")
    assert words(tmp_path / "splits" / "test") == "ab\n\ncd"


def test_a_named_data_set_is_read_no_further_than_needed(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "rows"
    folder.mkdir()
    lines(folder / "train.jsonl", {"text": "ab"}, {"text": "cd"})
    assert words(f"datasets:{folder}:train") == "ab\n\ncd"
    with pytest.raises(DataError, match=r"rows' cannot be read \(.*test.*\); check its name"):
        words(f"datasets:{folder}:test")
    asked = []

    def endless(*named, split, streaming):
        asked.append((*named, split, streaming))
        while True:
            yield {"text": "ab" * 20}

    monkeypatch.setattr(datasets, "load_dataset", endless)
    assert file_windows("datasets:a/b:small:test", chatting(), length=1, count=3).shape == (3, 1)
    assert asked == [("a/b", "small", "test", True)]


def test_another_folder_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="is a folder, and no data set that save_to_disk"):
        words(tmp_path)


def test_a_data_set_asks_for_its_package(tmp_path, monkeypatch):
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'thresher\[datasets\]'"):
        words(tmp_path)


def test_a_byte_order_mark_is_no_character_of_the_text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes(b"\xef\xbb\xbfabc")
    assert read_text(file) == "abc"


def beginning_tokenizer(template):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>", "eos_token": "<eos>"})
    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<bos>", "<eos>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=special
    )
    return tokenizer


@pytest.mark.parametrize("template", ["<bos> $A", "<bos> $A <eos>"])
def test_every_window_begins_as_the_tokenizer_begins_a_text(template):
    tokenizer = beginning_tokenizer(template)
    plain = token_windows(byte_tokenizer(), "0123456789" * 3, length=4)
    windows = token_windows(tokenizer, "0123456789" * 3, length=5)
    assert (windows[:, 0] == tokenizer.bos_token_id).all()
    assert torch.equal(windows[:, 1:], plain)
    # What a chat's template has begun is not begun twice.
    again = token_windows(tokenizer, "<bos>" + "0123456789" * 3, length=5)
    assert torch.equal(again, windows)


def test_a_tokenizer_that_ends_texts_begins_none():
    tokenizer = beginning_tokenizer("$A <eos>")
    windows = token_windows(tokenizer, "0123456789" * 3, length=5)
    assert torch.equal(windows, token_windows(byte_tokenizer(), "0123456789" * 3, length=5))
