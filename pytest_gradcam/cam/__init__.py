"""The numeric core: class activation maps. Knows torch; knows nothing of pytest, files, regions or reports."""

from pytest_gradcam.cam.explain import Options, explain_input_classes, explain_inputs
from pytest_gradcam.cam.explanation import Explanation

__all__ = ["Explanation", "Options", "explain_input_classes", "explain_inputs"]
