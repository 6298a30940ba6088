"""Recipes as YAML: what is written is read again as it was, and what is not understood is said."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from safetensors import safe_open

import thresher as th
from thresher.cli import main
from thresher.core.card import catalogue
from thresher.core.errors import OptionError
from thresher.parts import budgets, patterns, rankings, scores, spreads, tokens, updates
from thresher.prune.recipe import Recipe
from thresher.prune.unit_recipe import UnitRecipe
from thresher.prune.written import Written

METHODS = {name: kind for name, kind in catalogue().items() if issubclass(kind, Written)}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_back_as_it_was(name):
    recipe = METHODS[name](density=0.25)
    again = Written.from_yaml(recipe.to_yaml())
    assert (again, repr(again)) == (recipe, repr(recipe))


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(
            (scores.Magnitude() + 0.5 * scores.InputNorm()) ** 2.0 * scores.Fisher(),
            patterns.NM(4, 8),
            update=updates.DenseTarget(updates.OBS(damping=1e-5, block_size=64)),
            tokens=tokens.ByAttention(),
            stages=True,
        ),
        Recipe(scores.Random(seed=3), patterns.Block(4, 1), budgets.OWL(multiple=3.5), density=0.5),
        UnitRecipe(rankings.GreedyOBS(), spreads.WholeModel(), density=0.5, bias=True),
    ],
)
def test_composed_recipes_too(recipe):
    assert Written.from_yaml(recipe.to_yaml()) == recipe
    assert type(recipe).from_yaml(recipe.to_yaml()) == recipe


def test_parts_are_spelled_as_on_the_command_line_and_numbers_are_numbers():
    recipe = Written.from_yaml(
        "method: wanda\npattern: 2:4\nbudget: owl\nupdate: {OBS: {damping: 1e-3}}\nstages: false\n"
    )
    assert type(recipe) is METHODS["wanda"]
    assert recipe.pattern == patterns.NM(2, 4)  # 124 in YAML 1.1
    assert recipe.budget == budgets.OWL()
    assert recipe.update == updates.OBS(damping=0.001)
    assert recipe.stages is False
    assert Recipe.from_yaml("{score: Magnitude, density: ~}").density is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is a mapping"),
        ("[1, 2]", "is a mapping"),
        ("? [method]\n: wanda", "not YAML at line 1"),
        ("method: [wanda", "not YAML at line"),
        ("density: 0.5\nmethod: wanda\ndensity: 0.9", "YAML at line 3: 'density' is said twice"),
        ("method: wandb", "did you mean 'wanda'"),
        ("method: [wanda]", "name of a method"),
        ("method: loss-omp", "no recipe of parts"),
        ("density: 0.5", "needs 'score'"),
        ("{method: wanda, densty: 0.5}", "did you mean 'density'"),
        ("{method: wanda, density: half}", "Wanda.density is to be a number; got 'half'"),
        ("{method: wanda, density: 50}", "out of range"),
        ("{method: wanda, stages: perhaps}", "true or false"),
        ("{method: wanda, score: Magnitud}", "did you mean 'Magnitude'"),
        ("{method: wanda, score: {Magnitude: {}, InputNorm: {}}}", "is to be a part"),
        (
            "{method: wanda, score: {Random: {seed: 1.5}}}",
            "Wanda.score.Random.seed is to be a whole",
        ),
        ("{method: wanda, score: {Random: [1]}}", "arguments"),
        ("{method: wanda, score: {Random: {sead: 1}}}", "did you mean 'seed'"),
        ("{method: wanda, pattern: 2;4}", "pattern"),
        ("{method: wanda, score: _Pair}", "there is no score"),
        ("!!python/object/apply:os.getcwd []", "is a mapping"),
    ],
)
def test_what_is_not_understood_is_said_with_its_place(text, words):
    with pytest.raises(OptionError, match=words.replace("[", r"\[")):
        Written.from_yaml(text)


@dataclass(frozen=True)
class Favoured(scores.Magnitude):
    """A score of a user's own, of a kind of argument that YAML does not know."""

    names: frozenset[str] = frozenset({"q_proj"})


def test_a_recipe_that_yaml_cannot_hold_is_refused_and_prunes_all_the_same():
    recipe = Recipe(Favoured(), density=0.5)
    with pytest.raises(OptionError, match=r"Favoured\.names"):
        recipe.to_yaml()
    assert recipe.recorded() == {}


def test_a_folder_is_pruned_again_by_the_recipe_that_it_names(llama_folder, book, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(main, [str(each) for each in arguments])

    common = ("--calibration", book, "--windows", 4, "--length", 32, "--no-evaluate")
    first, again = tmp_path / "first", tmp_path / "again"
    options = ("--method", "wanda", "--sparsity", 0.25, "--update", "obs")
    assert run("prune", llama_folder, *options, *common, "--out", first).exit_code == 0
    printed = run("info", first, "--yaml").output
    assert yaml.safe_load(printed)["method"] == "wanda"
    file = tmp_path / "recipe.yaml"
    file.write_text(printed)
    result = run("prune", llama_folder, "--recipe", file, *common, "--out", again)
    assert result.exit_code == 0, result.output
    one, other = (json.loads((f / "thresher.json").read_text()) for f in (first, again))
    assert one["recipe"] == other["recipe"]
    assert one["fingerprint"] == other["fingerprint"]
    for shard in first.glob("*.safetensors"):
        with safe_open(shard, "pt") as a, safe_open(again / shard.name, "pt") as b:
            assert all(a.get_tensor(k).equal(b.get_tensor(k)) for k in a.keys())  # noqa: SIM118

    both = run(
        "prune", llama_folder, "--recipe", file, "--method", "wanda", "--out", tmp_path / "c"
    )
    assert both.exit_code
    assert "give one of the two" in both.output
    # A method of smaller models, and an option over the file's.
    file.write_text("method: structured\n")
    small = tmp_path / "small"
    result = run("prune", llama_folder, "--recipe", file, "--density", 0.8, *common, "--out", small)
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(run("info", small, "--yaml").output)["method"] == "structured"


def test_a_record_of_before_says_that_it_has_none(llama_folder, tmp_path):
    from small_models import llama

    model = llama()
    th.prune(model, "magnitude", sparsity=0.5, progress=False)
    th.save(model, tmp_path / "m")
    record = json.loads((tmp_path / "m/thresher.json").read_text())
    del record["parts"]
    (tmp_path / "m/thresher.json").write_text(json.dumps(record))
    result = CliRunner().invoke(main, ["info", str(tmp_path / "m"), "--yaml"])
    assert result.exit_code
    assert "no recipe that YAML could hold" in result.output


def test_the_recipe_of_the_guide_is_one():
    guide = (Path(__file__).parents[2] / "docs/concepts.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    recipe = Written.from_yaml(text)
    assert recipe.pattern == patterns.Unstructured(per="row")
    assert recipe.update == updates.OBS(damping=0.02)
