import pytest

from thresher.core.errors import DataError
from thresher.parts.calibration import embedded_text, read_text, token_windows


def by_character(text, **options):
    assert options["add_special_tokens"] is False
    return {"input_ids": [ord(c) % 256 for c in text]}


def test_windows_are_consecutive():
    windows = token_windows(by_character, "abcdefghij", length=3)
    assert windows.tolist() == [[97, 98, 99], [100, 101, 102], [103, 104, 105]]
    assert token_windows(by_character, "abcdefghij", length=3, count=2).shape == (2, 3)


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
