"""The numeric core: class activation maps. Knows torch; knows nothing of pytest, files, regions or reports."""

from pytest_gradcam.cam.explanation import Explanation

__all__ = ["Explanation"]
