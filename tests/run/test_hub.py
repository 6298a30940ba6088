"""Models of the hub: another revision, and folders that are sent there."""

import pytest
from click.testing import CliRunner

from thresher.cli import main
from thresher.core.errors import CheckpointError, OptionError
from thresher.run.files import checkpoint, hub


class Hub:
    """Stands in for the hub."""

    endpoint = "https://hub.test"

    def __init__(self):
        self.made, self.sent = [], {}

    def create_repo(self, name, exist_ok):
        assert exist_ok
        self.made.append(name)

    def upload_folder(self, folder_path, repo_id):
        assert repo_id in self.made
        self.sent[repo_id] = {file.name for file in folder_path.iterdir()}


@pytest.fixture
def there(monkeypatch):
    found = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda **options: found)
    monkeypatch.setattr("huggingface_hub.whoami", lambda: {"name": "somebody"})
    return found


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["prune", *(str(each) for each in arguments)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize("method", ["magnitude", "structured"])
def test_a_pruned_folder_is_sent_with_its_card(llama_folder, book, tmp_path, there, method):
    options = ("--method", method, "--density", 0.75, "--calibration", book, "--windows", 4)
    sent = ("--push-to-hub", "somebody/small", "--out", tmp_path / "out")
    printed = run(llama_folder, *options, "--length", 32, "--no-evaluate", *sent)
    assert "sent to https://hub.test/somebody/small" in printed
    assert there.sent["somebody/small"] >= {"README.md", "config.json", "thresher.json"}
    assert there.sent["somebody/small"] == {file.name for file in (tmp_path / "out").iterdir()}


def test_nothing_is_begun_that_could_not_be_sent(llama_folder, tmp_path, monkeypatch, there):
    options = (llama_folder, "--density", 0.5, "--out", tmp_path / "out", "--push-to-hub")
    assert "which is OWNER/NAME" in run(*options, "small", code=1)
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.utils._auth.get_token", lambda: None)
    monkeypatch.setattr("huggingface_hub.hf_api.get_token", lambda: None, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert "nothing can be sent to 'a/b'" in run(*options, "a/b", code=1)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_could_not_be_sent_is_said_to_be_whole(tmp_path, monkeypatch, there):
    def fails(**options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(there, "upload_folder", fails, raising=False)
    with pytest.raises(CheckpointError, match=r"is whole, but was not sent.* `hf upload a/b"):
        hub.push(tmp_path, "a/b")


def test_a_revision_is_asked_of_the_hub_and_is_none_of_a_folder(llama_folder, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, **options: asked.update(options, name=name) or "fetched",
    )
    assert str(checkpoint.resolve("a/b", "v2")) == "fetched"
    assert (asked["name"], asked["revision"]) == ("a/b", "v2")
    with pytest.raises(OptionError, match="is a folder, which has no revision 'v2'"):
        checkpoint.resolve(llama_folder, "v2")
