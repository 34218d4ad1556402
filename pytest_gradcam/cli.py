"""The `gradcam` command."""

from __future__ import annotations


def main() -> int:
    """Entry point of the `gradcam` command; returns the exit code."""
    raise SystemExit("not written yet")
