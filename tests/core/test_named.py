"""Names of parts and methods, found by their classes."""

import gc
from collections import Counter
from types import SimpleNamespace

import pytest
from part_examples import concrete_subclasses

from thresher.core.card import catalogue
from thresher.core.discovery import descendants, import_modules
from thresher.core.errors import OptionError
from thresher.core.index import index
from thresher.core.named import Spelled
from thresher.parts.budgets import LAMP, OWL, Budget
from thresher.parts.moments import Moment
from thresher.parts.patterns import NM, Pattern
from thresher.parts.schedules import Cubic, Schedule
from thresher.parts.scores import Score
from thresher.parts.updates import OBS, Update
from thresher.run.layouts.base import Layout

#: Every base whose subclasses are written as text.
KINDS = [base for base in Spelled.__subclasses__() if base.__module__.startswith("thresher.")]
EACH = pytest.mark.parametrize("base", KINDS, ids=lambda base: base.kind)


def test_the_kinds():
    assert {base.kind for base in KINDS} >= {"budget", "update", "pattern", "schedule"}


@EACH
def test_every_class_that_can_be_made_has_a_name(base):
    assert set(base.known().values()) == {
        kind for kind in descendants(base) if kind.__module__.startswith("thresher.")
    }


@EACH
def test_every_name_and_spelling_is_parsed_and_means_its_own_class(base):
    for name, kind in base.known().items():
        assert base.named(name) is kind
        for text in kind.spelled():
            made = base.parse(text)
            assert type(made) is kind
            assert base.parse(f" {text.upper()} ") == made
            assert base.parse(made) is made
            assert getattr(made, "spec", text) == text


@EACH
def test_the_index_tells_of_them_without_importing(base):
    spelled = {name: list(kind.spelled()) for name, kind in base.known().items()}
    assert {name: list(texts) for name, texts in index()["parts"][base.kind].items()} == spelled


def test_the_index_knows_layouts_too():
    assert list(index()["parts"]["layout"]) == [
        name for name, kind in Layout.known().items() if kind.__module__.startswith("thresher.")
    ]


@pytest.mark.parametrize(
    ("base", "text", "words"),
    [
        (Budget, "unifrom", "there is no budget 'unifrom'; did you mean 'uniform'"),
        (Update, "least-square", "did you mean 'least-squares'"),
        (Schedule, "cubik", "there is no schedule 'cubik'; did you mean 'cubic'"),
        (Pattern, "chanels", "did you mean 'channels'"),
        (Pattern, "zzz", "known: 16x16, 2:4"),
        (Budget, 0.5, "a budget is given by name or as an instance, got 0.5"),
        (Budget, OWL, "as an instance, got <class"),
    ],
)
def test_what_names_nothing_is_named(base, text, words):
    with pytest.raises(OptionError, match=words):
        base.parse(text)


def test_unknown_classes_suggest_the_nearest():
    with pytest.raises(OptionError, match="there is no schedule 'cubick'; did you mean 'cubic'"):
        Schedule.named("cubick")


def test_names_give_the_defaults():
    assert Budget.parse("LAMP") == LAMP()
    assert Update.parse("obs") == OBS()
    assert Schedule.parse("cubic") == Cubic(0.0)
    assert Pattern.parse("2:4/inputs") == NM(2, 4)


def defined(name, qualname):
    class Own(Budget):
        def __call__(self, layers, density):
            return [density] * len(layers)

    Own.__qualname__, Own.name = qualname, name
    return Own


@pytest.fixture
def users():
    """Define budgets as a user would, and forget them afterwards."""
    space = SimpleNamespace(make=defined)
    yield space
    vars(space).clear()
    gc.collect()
    assert "mine" not in Budget.known()


def test_a_users_own_class_can_be_called(users):
    users.own = users.make("mine", "Mine")
    assert Budget.known()["mine"] is users.own
    assert type(Budget.parse("mine")) is users.own


def test_a_class_that_is_defined_again_takes_its_own_place(users):
    users.before, users.after = users.make("mine", "Mine"), users.make("mine", "Mine")
    assert Budget.known()["mine"] is users.after


def test_two_classes_of_one_name_are_named(users):
    users.one, users.other = users.make("mine", "Mine"), users.make("mine", "Yours")
    with pytest.raises(OptionError, match=r"two budgets are named 'mine': .*Mine and .*Yours"):
        Budget.known()
    vars(users).clear()


def test_no_two_parts_or_methods_share_a_class_name():
    import_modules("thresher.run.layouts")
    bases = (Score, Pattern, Budget, Update, Schedule, Moment, Layout)
    kinds = {kind for base in bases for kind in concrete_subclasses(base)}
    kinds |= set(catalogue().values())
    counts = Counter(kind.__name__ for kind in kinds)
    assert len(kinds) > 70
    assert [name for name, count in counts.items() if count > 1] == []
