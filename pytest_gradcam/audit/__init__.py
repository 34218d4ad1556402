"""A whole data set explained, measured and judged: what `audit`, `assert_dataset_attention` and `gradcam audit` do.

`data` reads data sets, `preparing` makes their images model input, `measuring` makes rows of them, `store` keeps rows,
`judging` decides over them, `writing` tells a person; `work` is what can be sent away, and `engines` send it.
What is public stands here, and costs nothing until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_gradcam.audit.data.opening import open_source
    from pytest_gradcam.audit.data.sample import Asked, DataSetError, Sample, SampleError, Source
    from pytest_gradcam.audit.report import AuditReport
    from pytest_gradcam.audit.run import audit
    from pytest_gradcam.audit.store import AuditError

_HOME = {
    "Asked": "data.sample",
    "AuditError": "store",
    "AuditReport": "report",
    "DataSetError": "data.sample",
    "Sample": "data.sample",
    "SampleError": "data.sample",
    "Source": "data.sample",
    "audit": "run",
    "open_source": "data.opening",
}

__all__ = [
    "Asked",
    "AuditError",
    "AuditReport",
    "DataSetError",
    "Sample",
    "SampleError",
    "Source",
    "audit",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pytest_gradcam"):
            raise
        raise ImportError(f'audits need {error.name}: pip install "pytest-gradcam[audit]"', name=error.name) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
