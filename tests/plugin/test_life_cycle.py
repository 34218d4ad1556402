"""Baselines through their life, for every way in which a test may be written, named, chosen and run."""

from __future__ import annotations

import pytest

from tests.plugin.life import Life, live

FUNCTION = """
def test_reads(gradcam, model, image):
    gradcam.check(model, image, 0)
"""
CLASS = """
class TestReads:
    class TestInside:
        def test_it(self, gradcam, model, image):
            gradcam.check(model, image, 0)
"""
PARAMETERS = """
import pytest

@pytest.mark.parametrize("cls", [0, 1])
@pytest.mark.parametrize("name", ["plain", "with space", "a/b", "Ünï"])
def test_reads(gradcam, model, image, cls, name):
    gradcam.check(model, image, cls)
"""
SEVERAL = """
def test_reads(gradcam, model, image):
    checks = [lambda cls=cls: gradcam.check(model, image, cls, name=f"class-{cls}") for cls in (0, 1)]
    failures = []
    for check in checks:
        try:
            check()
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]
"""
DOCTEST = '''
def reads():
    """Where the model looks.

    >>> gradcam, model, image = (getfixture(name) for name in ("gradcam", "model", "image"))
    >>> gradcam.check(model, image, 0).passed
    True
    """
'''
TEXT = """
>>> gradcam, model, image = (getfixture(name) for name in ("gradcam", "model", "image"))
>>> gradcam.check(model, image, 0).passed
True
"""
MANY = """
import pytest

@pytest.mark.parametrize("cls", [0, 1])
class TestReads:
    def test_one(self, gradcam, model, image, cls):
        gradcam.check(model, image, cls)

    def test_two(self, gradcam, model, image, cls):
        gradcam.check(model, image.flip(1), cls)
"""
OF_MANY = [f"__gradcam__/test_it/TestReads.test_{name}[{cls}].safetensors" for name in ("one", "two") for cls in (0, 1)]


class TestWritten:
    def test_as_a_function(self, life: Life) -> None:
        life.pytester.makepyfile(test_it=FUNCTION)
        live(life, ["__gradcam__/test_it/test_reads.safetensors"], tests=1)

    def test_in_a_class_inside_a_class_in_a_folder(self, life: Life) -> None:
        (life.root / "tests").mkdir()
        (life.root / "tests" / "test_it.py").write_text(CLASS)
        live(life, ["tests/__gradcam__/test_it/TestReads.TestInside.test_it.safetensors"], tests=1)

    def test_with_parameters_of_any_spelling(self, life: Life) -> None:
        life.pytester.makepyfile(test_it=PARAMETERS)
        assert life.run("--gradcam-update=new") == {"passed": 8}
        files = list(life.baselines())
        assert len(files) == 8
        assert {"test_reads[plain-0]", "test_reads[with space-1]"} <= {f.split("/")[-1][:-12] for f in files}
        for path in life.root.glob("__gradcam__/*/*"):
            path.unlink()
        live(life, files, tests=8)

    def test_with_several_checks(self, life: Life) -> None:
        life.pytester.makepyfile(test_it=SEVERAL)
        live(life, [f"__gradcam__/test_it/test_reads@class-{cls}.safetensors" for cls in (0, 1)], tests=1)

    def test_as_a_doctest(self, life: Life) -> None:
        life.pytester.makepyfile(users_code=DOCTEST)
        life.arguments = ["--doctest-modules"]
        live(life, ["__gradcam__/users_code/users_code.reads.safetensors"], tests=1)

    def test_as_a_doctest_in_a_text(self, life: Life) -> None:
        life.pytester.maketxtfile(test_reads=TEXT)
        live(life, ["__gradcam__/test_reads.txt/test_reads.txt.safetensors"], tests=1)


class TestRun:
    def test_with_k_leaves_others_alone(self, life: Life) -> None:
        life.pytester.makepyfile(test_it=MANY)
        assert life.run("--gradcam-update=new", "-k", "two") == {"passed": 2}
        others = life.baselines()
        assert sorted(others) == OF_MANY[2:]
        life.arguments = ["-k", "one"]
        files = OF_MANY[:2]
        assert life.run("--gradcam-update=new") == {"passed": 2}
        life.model_reads("blue")
        assert life.run() == {"failed": 2}
        assert life.received() == files
        assert life.run("--gradcam-update=all") == {"passed": 2}
        assert "baselines: 2 updated" in life.said
        assert "unused" not in life.said
        assert {name: life.baselines()[name] for name in OF_MANY[2:]} == others

    def test_with_x_one_is_approved_at_a_time(self, life: Life) -> None:
        life.pytester.makepyfile(test_it=MANY)
        life.arguments = ["-x"]
        live(life, OF_MANY, tests=4, stops=True)

    def test_with_lf(self, life: Life) -> None:
        """What failed is run alone, and updated alone; no baseline of the others is called unused."""
        life.pytester.makepyfile(test_it=MANY.replace("image.flip(1)", "image"))
        assert life.run("--gradcam-update=new") == {"passed": 4}
        first = life.baselines()
        text = life.pytester.path.joinpath("test_it.py").read_text()
        life.pytester.makepyfile(
            test_it=text.replace("check(model, image, cls)", "check(model, image.flip(2), cls)", 1)
        )
        cached = ("-p", "cacheprovider", "-o", "cache_dir=.cache")
        for arguments, outcomes in (((), {"failed": 2, "passed": 2}), (("--lf",), {"failed": 2})):
            result = life.pytester.runpytest_inprocess(*cached, *arguments)
            counted = result.parseoutcomes()
            assert {name: counted[name] for name in outcomes} == outcomes
            assert "unused" not in result.stdout.str()
        result = life.pytester.runpytest_inprocess(*cached, "--lf", "--gradcam-update=all")
        result.assert_outcomes(passed=2)
        assert {name for name in first if life.baselines()[name] != first[name]} == set(OF_MANY[:2])
        assert life.run() == {"passed": 4}

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_in_random_order(self, life: Life, seed: int) -> None:
        life.pytester.makepyfile(test_it=MANY)
        life.arguments = [f"--shuffle={seed}"]
        live(life, OF_MANY, tests=4)

    def test_by_four_workers(self, life: Life) -> None:
        life.pytester.makepyfile(test_it=MANY)
        life.arguments = ["-n", "4"]
        live(life, OF_MANY, tests=4)

    def test_again_where_it_is_flaky(self, life: Life) -> None:
        """A test that is run again asks for its baseline again: that is no second check of the same name."""
        pytest.importorskip("pytest_rerunfailures", reason="pytest-rerunfailures is not installed")
        life.pytester.makepyfile(
            test_it="""
            tries = []

            def test_reads(gradcam, model, image):
                gradcam.check(model, image, 0)
                tries.append(1)
                assert len(tries) > 1
            """
        )
        assert life.run("--gradcam-update=new", "--reruns", "2")["passed"] == 1
        assert "baselines:" in life.said and len(life.baselines()) == 1


class TestFails:
    def test_when_two_checks_would_share_a_file(self, life: Life) -> None:
        life.pytester.makepyfile(
            test_it="""
            def test_reads(gradcam, model, image):
                gradcam.check(model, image, 0)
                gradcam.check(model, image, 1)
            """
        )
        assert life.run("--gradcam-update=new") == {"failed": 1}
        assert (
            "two checks of test_it.py::test_reads would share the baseline test_it/test_reads.safetensors" in life.said
        )

    def test_when_names_differ_in_case_only(self, life: Life) -> None:
        life.pytester.makepyfile(
            test_it="""
            def test_reads(gradcam, model, image):
                gradcam.check(model, image, 0)

            def test_READS(gradcam, model, image):
                gradcam.check(model, image, 1)
            """
        )
        assert life.run("--gradcam-update=new") == {"passed": 1, "failed": 1}
        assert "where case is ignored: rename one of them" in life.said

    def test_when_two_tests_have_one_name(self, life: Life) -> None:
        """Parameters may be spelt alike and be others: pytest calls both of these test_reads[a-b-c]."""
        life.pytester.makepyfile(
            test_it="""
            import pytest

            @pytest.mark.parametrize("y", ["b-c", "c"])
            @pytest.mark.parametrize("x", ["a", "a-b"])
            def test_reads(gradcam, model, image, x, y):
                gradcam.check(model, image, int(x == "a"))
            """
        )
        assert life.run("--gradcam-update=all") == {"failed": 2, "passed": 2}
        assert "two tests are called test_it.py::test_reads[a-b-c]" in life.said
        assert len(life.baselines()) == 2

    def test_when_two_folders_are_one_through_a_link(self, life: Life) -> None:
        life.pytester.makeini("[pytest]\naddopts = --import-mode=importlib\n")
        for name in ("a", "b"):
            (life.root / name).mkdir()
            (life.root / name / "test_it.py").write_text(FUNCTION)
        (life.root / "a" / "__gradcam__").mkdir()
        (life.root / "b" / "__gradcam__").symlink_to("../a/__gradcam__")
        assert life.run("--gradcam-update=new") == {"passed": 1, "failed": 1}
        assert "through a link or where case is ignored" in life.said

    def test_when_a_fixture_is_kept_beyond_its_test(self, life: Life) -> None:
        life.pytester.makepyfile(
            test_it="""
            kept = []

            def test_one(gradcam, model, image):
                kept.append(gradcam)

            def test_two(model, image):
                kept[0].check(model, image, 0)
            """
        )
        assert life.run("--gradcam-update=new") == {"passed": 1, "failed": 1}
        assert "test_it.py::test_one has ended" in life.said
        assert life.baselines() == {}

    def test_before_a_strangers_picture_would_be_written_over(self, life: Life) -> None:
        life.pytester.makepyfile(test_it=FUNCTION)
        life.run("--gradcam-update=new")
        before = life.baselines()
        picture = life.root / "__gradcam__" / "test_it" / "test_reads.png"
        picture.write_bytes(b"mine")
        life.model_reads("blue")
        assert life.run("--gradcam-update=all", "--gradcam-previews=true") == {"failed": 1}
        assert "is no picture of ours, and nothing was written" in life.said
        assert (life.baselines(), picture.read_bytes()) == (before, b"mine")

    def test_where_the_folder_of_received_files_is_that_of_the_baselines(self, life: Life) -> None:
        """No plain run removes or writes a baseline, whatever folders are called and linked."""
        life.pytester.makepyfile(test_it=FUNCTION)
        life.run("--gradcam-update=new")
        before = life.baselines()
        (life.root / "gradcam-report").mkdir(exist_ok=True)
        (life.root / "gradcam-report" / "received").symlink_to("..")
        life.model_reads("blue")
        for _ in range(2):
            assert life.run("test_it.py") == {"failed": 1}
            assert life.baselines() == before

    @pytest.mark.parametrize(
        "name", ["../x", "/etc/x", "a/b", "a\\b", "CON", "x" * 61, "a\0b", "tеst", "a／b", "a\u202eb", "x.", "", " "]
    )
    def test_when_a_name_would_leave_the_folder(self, life: Life, name: str) -> None:
        life.pytester.makepyfile(
            test_it=f"""
            def test_reads(gradcam, model, image):
                gradcam.check(model, image, 0, name={name!r})
            """
        )
        before = sorted(life.root.parent.rglob("*.safetensors"))
        assert life.run("--gradcam-update=new") == {"failed": 1}
        assert "BaselineError: name " in life.said
        assert sorted(life.root.parent.rglob("*.safetensors")) == before

    def test_when_the_file_is_another_tests(self, life: Life) -> None:
        life.pytester.makepyfile(test_it=FUNCTION)
        assert life.run("--gradcam-update=new") == {"passed": 1}
        folder = life.root / "__gradcam__" / "test_it"
        (folder / "test_other.safetensors").write_bytes((folder / "test_reads.safetensors").read_bytes())
        life.pytester.makepyfile(test_it=FUNCTION.replace("test_reads", "test_other"))
        before = life.baselines()
        assert life.run("--gradcam-update=all") == {"failed": 1}
        assert "is the baseline of test_it.py::test_reads, not of test_it.py::test_other" in life.said
        assert life.baselines() == before

    @pytest.mark.parametrize("update", [(), ("--gradcam-update=new",), ("--gradcam-update=all",)])
    def test_when_the_file_is_cut_off_and_nothing_is_lost(self, life: Life, update: tuple[str, ...]) -> None:
        life.pytester.makepyfile(test_it=FUNCTION)
        life.run("--gradcam-update=new")
        (path,) = life.root.glob("__gradcam__/*/*.safetensors")
        path.write_bytes(path.read_bytes()[:-3])
        before = life.baselines()
        assert life.run(*update) == {"failed": 1}
        assert "BaselineError: " in life.said and "cannot be used: it is cut off" in life.said
        assert life.baselines() == before

    def test_where_the_folder_cannot_be_made(self, life: Life) -> None:
        life.pytester.makepyfile(test_it=FUNCTION)
        (life.root / "__gradcam__").write_text("a file")
        assert life.run("--gradcam-update=new") == {"failed": 1}
        assert "cannot be written" in life.said
        assert (life.root / "__gradcam__").read_text() == "a file"

    def test_outside_of_tests(self) -> None:
        import torch

        from pytest_gradcam import Gradcam
        from pytest_gradcam.errors import BaselineError

        with pytest.raises(BaselineError, match="ask with the `gradcam` fixture"):
            Gradcam().check(torch.nn.Identity(), torch.zeros(1, 3, 8, 8), 0)

    def test_for_a_list_of_images(self, life: Life) -> None:
        life.pytester.makepyfile(test_it=FUNCTION.replace("image, 0", "[image, image], 0"))
        assert life.run("--gradcam-update=new") == {"failed": 1}
        assert "check takes one image, and keeps a baseline for each" in life.said


class TestCi:
    def test_an_update_in_ci_says_so(self, life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")
        life.pytester.makepyfile(test_it=FUNCTION)
        assert life.run() == {"failed": 1}
        assert life.baselines() == {}
        assert life.run("--gradcam-update=new") == {"passed": 1}
        assert "CI is set, and baselines were written: --gradcam-update=new was given" in life.said

    def test_no_ini_file_updates(self, life: Life) -> None:
        life.pytester.makeini("[pytest]\ngradcam_update = all\n")
        life.pytester.makepyfile(test_it=FUNCTION)
        life.run()
        assert "unknown key 'gradcam_update' in the ini file" in life.said

    @pytest.mark.parametrize("value", ["yes", "All", ""])
    def test_a_wrong_value_ends_the_run(self, life: Life, value: str) -> None:
        life.pytester.makepyfile(test_it=FUNCTION)
        life.run(f"--gradcam-update={value}")
        assert "--gradcam-update: unknown update" in life.said
