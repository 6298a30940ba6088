"""Mutation testing: lines to break by name are still there, and a mutant is tried soundly."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.mutants import __main__ as command
from benchmarks.mutants import trial
from benchmarks.mutants.named import named
from benchmarks.mutants.trial import ROOT, Mutant, Outcome, naming_tests, tried


def test_the_named_mutants_change_code_that_is_there_and_name_tests_that_are():
    mutants = named()
    assert len({mutant.what for mutant in mutants}) == len(mutants) > 20
    for mutant in mutants:
        assert mutant.source != (ROOT / mutant.file).read_text(encoding="utf-8")
        compile(mutant.source, mutant.file, "exec")
        assert all((ROOT / test).is_file() for test in mutant.tests)


@pytest.fixture
def two_tests(tmp_path):
    file = tmp_path / "test_of_dual_norms.py"
    file.write_text(
        "import numpy as np\n"
        "from thresher.solve.penalties.dual_norms import largest\n"
        "def test_sound():\n    assert largest(np.array([0.5, 3.0])) == 3\n"
        "def test_blind():\n    assert largest(np.array([2.0])) == 2\n"
    )
    return file


def broken(old, new, *tests):
    file = "thresher/solve/penalties/dual_norms.py"
    source = (ROOT / file).read_text(encoding="utf-8")
    assert source.count(old) == 1
    return Mutant(file, 1, "broken", source.replace(old, new), tests)


def test_a_mutant_is_killed_by_a_test_that_sees_it_and_survives_one_that_does_not(two_tests):
    old, new = "np.max(ratios, initial=1.0)", "np.min(ratios)"
    assert tried(broken(old, new, f"{two_tests}::test_sound")).word == "killed"
    assert tried(broken(old, new, f"{two_tests}::test_blind")).word == "survived"
    assert tried(broken("import numpy as np", "import nonsense", str(two_tests))).word == "killed"


def test_a_case_with_spaces_in_its_name_is_found_again(two_tests):
    text = two_tests.read_text().replace(
        "def test_sound():", "@pytest.mark.parametrize('x', ['a b - c'])\ndef test_sound(x):"
    )
    two_tests.write_text("import pytest\n" + text)
    old, new = "np.max(ratios, initial=1.0)", "np.min(ratios)"
    assert tried(broken(old, new, str(two_tests))).word == "killed"


def test_a_test_that_fails_on_sound_code_kills_nothing(two_tests):
    two_tests.write_text("def test_wrong():\n    assert False\n")
    old, new = "np.max(ratios, initial=1.0)", "np.min(ratios)"
    assert tried(broken(old, new, str(two_tests))).word == "unknown"


def test_an_endless_mutant_is_killed_by_time(two_tests, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 5)
    old, new = "return float(np.max(ratios, initial=1.0))", "while True: pass"
    assert tried(broken(old, new, f"{two_tests}::test_sound")).word == "killed"


def test_the_tests_of_a_module_are_those_that_name_it():
    assert naming_tests("thresher/solve/solvers/frank_wolfe.py")[0] == "tests/linear/test_balls.py"
    assert naming_tests("thresher/parts/budgets.py")[0] == "tests/parts/test_budgets.py"


def test_the_score_counts_what_was_judged():
    mutant = Mutant("thresher/solve/path.py", 3, "x", "")
    outcomes = [Outcome(mutant, word, 1.0) for word in ("killed", "killed", "survived", "unknown")]
    found = command.summary(outcomes)
    assert found["score"] == pytest.approx(2 / 3)
    assert found["standard_error"] == pytest.approx((2 / 3 / 3 / 3) ** 0.5)
    assert found["by_room"] == {"solve": {"killed": 2, "survived": 1, "unknown": 1}}
    assert len(found["survivors"]) == 2


def test_what_is_drawn_is_the_same_by_seed_and_changes_what_code_does():
    pytest.importorskip("cosmic_ray")
    from benchmarks.mutants.draw import draw

    one, other = draw(4, 0, ["solve"]), draw(4, 0, ["solve"])
    assert one == other
    assert len({(mutant.file, mutant.source) for mutant in one}) == 4
    for mutant in one:
        sound = (ROOT / mutant.file).read_text(encoding="utf-8").splitlines()
        assert mutant.source.splitlines()[mutant.line - 1] != sound[mutant.line - 1]
        compile(mutant.source, mutant.file, "exec")


def test_the_command_tells_what_it_takes():
    run = [sys.executable, "-m", "benchmarks.mutants", "--help"]
    assert "--named" in subprocess.run(run, cwd=Path(ROOT), capture_output=True, text=True).stdout
