"""Baselines that no test uses: reported of modules that were collected whole, removed on request, never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.life import Life

TWO = """
def test_one(gradcam, model, image):
    gradcam.check(model, image, 0)

def test_two(gradcam, model, image):
    gradcam.check(model, image, 0)
    gradcam.check(model, image, 1, name="blue")
"""
ONE = "__gradcam__/test_it/test_one.safetensors"
SECOND = "__gradcam__/test_it/test_two.safetensors"
BLUE = "__gradcam__/test_it/test_two@blue.safetensors"


@pytest.fixture
def grown(life: Life) -> Life:
    """A project with three baselines of two tests."""
    life.pytester.makepyfile(test_it=TWO)
    assert life.run("--gradcam-update=new") == {"passed": 2}
    assert sorted(life.baselines()) == [ONE, SECOND, BLUE]
    return life


def without_the_second(life: Life) -> None:
    life.pytester.makepyfile(test_it=TWO.partition("\n\n")[0])


class TestAreReported:
    def test_when_their_test_is_gone(self, grown: Life) -> None:
        without_the_second(grown)
        assert grown.run() == {"passed": 1}
        assert "baselines: 1 same, 2 unused" in grown.said
        assert f"unused   {SECOND}  (its test is gone)" in grown.said
        assert f"unused   {BLUE}  (its test is gone)" in grown.said
        assert "--gradcam-update=prune removes unused baselines" in grown.said
        assert sorted(grown.baselines()) == [ONE, SECOND, BLUE]

    def test_when_their_test_ran_and_did_not_ask(self, grown: Life) -> None:
        grown.pytester.makepyfile(test_it=TWO.rpartition("\n    ")[0])
        assert grown.run() == {"passed": 2}
        assert f"unused   {BLUE}  (its test ran, and did not ask for it)" in grown.said
        assert f"unused   {SECOND}" not in grown.said

    def test_when_no_test_asks_for_any_any_more(self, grown: Life) -> None:
        grown.pytester.makepyfile(test_it="def test_one():\n    pass\n")
        assert grown.run() == {"passed": 1}
        assert "baselines: 3 unused" in grown.said

    def test_when_their_module_is_gone(self, grown: Life) -> None:
        """Where another module beside it was collected whole: a folder that was not looked at tells nothing."""
        (grown.root / "test_it.py").rename(grown.root / "test_renamed.py")
        assert grown.run("--gradcam-update=new") == {"passed": 2}
        assert f"unused   {ONE}  (its module is gone)" in grown.said
        assert grown.said.count("its module is gone") == 3

    def test_with_several_workers(self, grown: Life) -> None:
        without_the_second(grown)
        assert grown.run("-n", "2") == {"passed": 1}
        assert "baselines: 1 same, 2 unused" in grown.said
        assert grown.said.count("its test is gone") == 2

    def test_not_where_the_ini_file_says_so(self, grown: Life) -> None:
        without_the_second(grown)
        grown.pytester.makeini("[pytest]\ngradcam_orphans = ignore\n")
        assert grown.run() == {"passed": 1}
        assert "unused" not in grown.said

    def test_and_fail_the_run_where_the_ini_file_says_so(self, grown: Life) -> None:
        grown.pytester.makeini("[pytest]\ngradcam_orphans = fail\n")
        arguments = ("-p", "no:cacheprovider")
        assert grown.pytester.runpytest_inprocess(*arguments).ret == pytest.ExitCode.OK
        without_the_second(grown)
        result = grown.pytester.runpytest_inprocess(*arguments)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["*the run fails: gradcam_orphans = fail"])
        assert grown.pytester.runpytest_inprocess(*arguments, "--gradcam-update=prune").ret == pytest.ExitCode.OK

    def test_a_wrong_value_in_the_ini_file_ends_the_run(self, grown: Life) -> None:
        grown.pytester.makeini("[pytest]\ngradcam_orphans = failing\n")
        grown.run()
        assert "gradcam_orphans in the ini file: unknown orphans 'failing'" in grown.said
        assert "did you mean 'fail'" in grown.said


class TestAreNotGuessed:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("-k", "one"),
            ("--deselect", "test_it.py::test_two"),
            ("test_it.py::test_one",),
            ("-m", "not nothing", "-k", "one"),
            ("--shard",),
            ("--pyargs", "test_it::test_one"),
            ("-o", "python_functions=test_one"),
        ],
        ids=lambda arguments: arguments[0],
    )
    def test_where_tests_were_left_out(self, grown: Life, arguments: tuple[str, ...]) -> None:
        """Nothing is unused in a module of which only a part was run, and nothing is removed."""
        shard = """
def pytest_addoption(parser):
    parser.addoption("--shard", action="store_true")

def pytest_collection_modifyitems(config, items):
    if config.getoption("--shard"):
        items[:] = [item for item in items if "one" in item.name]
"""
        grown.pytester.makepyfile(sharding=shard)
        grown.pytester.syspathinsert()
        assert grown.run("-p", "sharding", *arguments, "--gradcam-update=prune") == {"passed": 1}
        assert "unused" not in grown.said
        assert sorted(grown.baselines()) == [ONE, SECOND, BLUE]

    def test_where_a_conftest_that_is_loaded_late_leaves_tests_out(self, life: Life) -> None:
        (life.root / "sub").mkdir()
        (life.root / "sub" / "test_it.py").write_text(TWO)
        assert life.run("--gradcam-update=new") == {"passed": 2}
        (life.root / "sub" / "conftest.py").write_text(
            """
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items):
    items[:] = items[:1]
    return (yield)
"""
        )
        assert life.run("--gradcam-update=prune") == {"passed": 1}
        assert len(life.baselines()) == 3

    def test_where_parameters_are_empty_on_this_machine(self, life: Life) -> None:
        """A glob over the pictures of a data set finds none where the data set is not."""
        test = """
import pytest

@pytest.mark.parametrize("cls", {})
def test_reads(gradcam, model, image, cls):
    gradcam.check(model, image, cls)

def test_plain():
    pass
"""
        life.pytester.makepyfile(test_it=test.format([0, 1]))
        assert life.run("--gradcam-update=new") == {"passed": 3}
        life.pytester.makepyfile(test_it=test.format([]))
        assert life.run("--gradcam-update=prune") == {"passed": 1, "skipped": 1}
        assert len(life.baselines()) == 2

    def test_where_a_class_cannot_be_collected_outside_of_rootdir(self, grown: Life) -> None:
        (grown.root / "config").mkdir()
        (grown.root / "config" / "pytest.ini").write_text("[pytest]\n")
        fails = """
import pytest

class TestX:
    @pytest.mark.parametrize("a", [1], ids=["a", "b"])
    def test_y(self, a):
        pass
"""
        grown.pytester.makepyfile(test_it=fails)
        grown.run("-c", "config/pytest.ini", ".", "--gradcam-update=prune", "--continue-on-collection-errors")
        assert sorted(grown.baselines()) == [ONE, SECOND, BLUE]

    def test_of_a_test_that_failed_before_it_asked(self, grown: Life) -> None:
        grown.pytester.makepyfile(test_it=TWO.replace("image, 0)\n    gradcam", "image, 0)\n    assert 0\n    gradcam"))
        assert grown.run("--gradcam-update=prune") == {"passed": 1, "failed": 1}
        assert sorted(grown.baselines()) == [ONE, SECOND, BLUE]

    @pytest.mark.parametrize("how", ["pytest.skip('no GPU')", "pytest.xfail('known')"])
    def test_of_a_test_that_was_skipped_or_expected_to_fail(self, grown: Life, how: str) -> None:
        grown.pytester.makepyfile(
            test_it="import pytest\n"
            + TWO.replace("test_two(gradcam, model, image):", f"test_two(gradcam, model, image):\n    {how}")
        )
        grown.run("--gradcam-update=prune")
        assert sorted(grown.baselines()) == [ONE, SECOND, BLUE]

    def test_where_the_module_cannot_be_imported(self, grown: Life) -> None:
        grown.pytester.makepyfile(test_it="import nothing_of_that_name", test_other="def test_other():\n    pass\n")
        grown.run("--continue-on-collection-errors", "--gradcam-update=prune")
        assert sorted(grown.baselines()) == [ONE, SECOND, BLUE]

    def test_where_the_run_ends_early(self, grown: Life) -> None:
        grown.pytester.makepyfile(
            test_it=TWO.replace(
                "def test_one(gradcam, model, image):", "def test_one(gradcam, model, image):\n    assert 0"
            )
        )
        assert grown.run("-x", "--gradcam-update=prune") == {"failed": 1}
        assert sorted(grown.baselines()) == [ONE, SECOND, BLUE]

    def test_where_tests_are_only_listed(self, grown: Life) -> None:
        without_the_second(grown)
        grown.run("--collect-only", "--gradcam-update=prune")
        assert sorted(grown.baselines()) == [ONE, SECOND, BLUE]

    def test_in_another_folder(self, grown: Life) -> None:
        (grown.root / "sub").mkdir()
        (grown.root / "sub" / "test_sub.py").write_text(TWO)
        without_the_second(grown)
        assert grown.run("sub", "--gradcam-update=new") == {"passed": 2}
        assert "unused" not in grown.said


class TestPrune:
    def test_removes_them_and_nothing_else(self, grown: Life) -> None:
        without_the_second(grown)
        notes = grown.root / "__gradcam__" / "test_it" / "notes.txt"
        notes.write_text("mine")
        broken = grown.root / "__gradcam__" / "test_it" / "broken.safetensors"
        broken.write_bytes(b"mine, too")
        assert grown.run("--gradcam-update=prune") == {"passed": 1}
        assert sorted(grown.baselines()) == [broken.relative_to(grown.root).as_posix(), ONE]
        assert notes.read_text() == "mine"
        assert f"removed  {SECOND}  (its test is gone)" in grown.said

    def test_writes_nothing(self, grown: Life) -> None:
        before = grown.baselines()
        grown.model_reads("blue")
        assert grown.run("--gradcam-update=prune") == {"failed": 2}
        assert grown.baselines() == before

    def test_removes_the_pictures_beside_them(self, life: Life) -> None:
        life.pytester.makeini("[pytest]\ngradcam_previews = true\n")
        life.pytester.makepyfile(test_it=TWO)
        life.run("--gradcam-update=new")
        pictures = sorted(path.name for path in life.root.glob("__gradcam__/*/*.png"))
        assert pictures == ["test_one.png", "test_two.png", "test_two@blue.png"]
        without_the_second(life)
        life.run("--gradcam-update=prune")
        assert [path.name for path in life.root.glob("__gradcam__/*/*.png")] == ["test_one.png"]

    def test_follows_no_link(self, grown: Life, tmp_path: Path) -> None:
        without_the_second(grown)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        (elsewhere / "test_two.safetensors").write_bytes(grown.baselines()[SECOND])
        (grown.root / "__gradcam__" / "linked").symlink_to(elsewhere)
        grown.run("--gradcam-update=prune")
        assert (elsewhere / "test_two.safetensors").exists()


def test_drafts_of_a_killed_run_are_gone_after_the_next(grown: Life) -> None:
    draft = grown.root / "__gradcam__" / "test_it" / ".gradcam-0123456789abcdef.tmp"
    draft.write_bytes(b"half a")
    assert grown.run() == {"passed": 2}
    assert not draft.exists()
