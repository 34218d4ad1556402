"""One session of tests: what they share, and that no test sees the map of another state of the model."""

from __future__ import annotations

import pytest

COUNTED = """
import pytest, torch
from pytest_gradcam import explanations

computed = []
plain = explanations.explain_prepared


def counting(model, prepared, *rest):
    computed.append(len(prepared))
    return plain(model, prepared, *rest)


@pytest.fixture(scope="session", autouse=True)
def counted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explanations, "explain_prepared", counting)
        yield
"""


@pytest.fixture
def counted(project: pytest.Pytester) -> pytest.Pytester:
    """The project, whose model lives as long as the session, and whose computations are counted."""
    conftest = project.path / "conftest.py"
    text = conftest.read_text(encoding="utf-8").replace("@pytest.fixture\n", '@pytest.fixture(scope="session")\n')
    conftest.write_text(text + COUNTED, encoding="utf-8")
    return project


def outcomes(project: pytest.Pytester, tests: str, *arguments: str) -> dict[str, int]:
    (project.path / "test_demo.py").write_text(
        "import pytest, torch\nfrom conftest import *\n" + tests, encoding="utf-8"
    )
    # A process of its own, as a session has: what other tests have left in libraries would keep models unshared.
    return project.runpytest_subprocess("-p", "no:cacheprovider", *arguments).parseoutcomes()


SHARING = """
def test_first(gradcam, model, image):
    gradcam.assert_attention_in_region(model, image, RED, 0)

@pytest.mark.parametrize("metric", ["energy", "lift", "pointing_game"])
def test_others(gradcam, model, image, metric):
    gradcam.assert_attention_in_region(model, image, RED, 0, metric=metric)
    gradcam.assert_attention_outside_region(model, image, BLUE, 0)

def test_count():
    assert len(computed) == {count}
"""


def test_tests_of_one_image_share_one_computation(counted: pytest.Pytester) -> None:
    assert outcomes(counted, SHARING.replace("{count}", "1")) == {"passed": 5}


@pytest.mark.parametrize("how", ["option", "ini", "marker"])
def test_it_can_be_switched_off(counted: pytest.Pytester, how: str) -> None:
    tests, arguments = SHARING.replace("{count}", "7"), []
    if how == "option":
        arguments = ["--gradcam-cache=no"]
    elif how == "ini":
        counted.makeini("[pytest]\ngradcam_cache = false\n")
    else:
        tests = "pytestmark = pytest.mark.gradcam(cache=False)\n" + tests
    assert outcomes(counted, tests, *arguments) == {"passed": 5}


def test_weights_changed_between_tests(counted: pytest.Pytester) -> None:
    """The model reads red, is taught blue in place and back again, and each test judges the model as it is."""
    assert outcomes(
        counted,
        """
def swap(model):
    weight = model[1].weight.data
    weight[:] = weight.flip(0)

def test_red(gradcam, model, image):
    gradcam.assert_attention_in_region(model, image, RED, 0)

def test_blue(gradcam, model, image):
    swap(model)
    gradcam.assert_attention_in_region(model, image, BLUE, 0)

def test_no_longer_red(gradcam, model, image):
    with pytest.raises(AssertionError):
        gradcam.assert_attention_in_region(model, image, RED, 0)
    assert len(computed) == 2

def test_red_again(gradcam, model, image):
    swap(model)
    gradcam.assert_attention_in_region(model, image, RED, 0)
    assert len(computed) == 2  # the first map serves again
""",
    ) == {"passed": 4}


AHEAD = """
pytestmark = pytest.mark.gradcam(layer="1")
IMAGES = [torch.zeros(3, 96, 96) for _ in range(6)]
for i, each in enumerate(IMAGES):
    each[0, 64:96, 0:24] = 1.0
    each[2, 8:40, 40:72] = 0.1 * i

@pytest.fixture(scope="module", autouse=True)
def ahead(gradcam_prefetch, model):
    gradcam_prefetch(model, IMAGES, 0)

@pytest.mark.parametrize("number", range(6))
def test_reads_red(gradcam, model, number):
    gradcam.assert_attention_in_region(model, IMAGES[number], RED, 0)
    assert computed == [6]
"""


def test_maps_computed_ahead_are_those_of_the_module(counted: pytest.Pytester) -> None:
    assert outcomes(counted, AHEAD) == {"passed": 6}


def test_nothing_is_computed_ahead_where_nothing_is_shared(counted: pytest.Pytester) -> None:
    tests = AHEAD.replace("    assert computed == [6]\n", "    assert computed == [1] * (number + 1)\n")
    assert outcomes(counted, tests, "--gradcam-cache=false") == {"passed": 6}


def test_a_wrong_value_is_a_usage_error(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--gradcam-cache=perhaps")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--gradcam-cache: cache 'perhaps' is neither true nor false*"])
