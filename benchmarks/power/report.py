"""From the measurements to docs/power.md and its dose-response plot: every number there comes from here.

    python -m benchmarks.power.report [--results FILE] [--output FILE.md] [--plot FILE.png]

Models of odd seeds judge the package's own verdicts, and thresholds that are fitted on the models of even seeds.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.power.measure import RESULTS, SUITE
from benchmarks.power.outcomes import (
    UNCOUNTED,
    Row,
    auroc_of,
    balanced,
    exact,
    fitted,
    interval,
    is_fit,
    is_honest,
    is_meant,
    is_planted,
    kept,
    outcomes,
)
from benchmarks.power.plants import DIFFER, EVERY_BLOCK, IGNORES, IN, OUT, PLANTS, RETRAINED, SAME
from benchmarks.power.prose import BEGINNING, HOW_TO_RUN, READING

NAMES = (IN, OUT, IGNORES, DIFFER, SAME, RETRAINED, *EVERY_BLOCK.values())
ARCHITECTURES = ("cnn", "vit")
PATCHES = ("patch-0.85", "patch-0.95", "patch-1")
DOSES = {"clean": "none", "patch-0.6": ".6", "patch-0.85": ".85", "patch-0.95": ".95", "patch-1": "1"}
# Of transformers, what `auto` may have found, by the name that an explanation gives it.
LAYERS: dict[str, Callable[[str], bool]] = {
    "`norm1` of all four blocks": lambda name: "(4 layers)" in name,
    "`norm1` of some blocks": lambda name: "norm1" in name and "(4 layers)" not in name,
    "what blocks end with": lambda name: name.startswith("blocks") and "norm1" not in name,
    "the embedded patches (`pos_drop`)": lambda name: not name.startswith("blocks"),
}


class Report:
    """The tables, from the rows of the results."""

    def __init__(self, rows: Sequence[Row], defaults: dict[str, float]) -> None:
        self.rows = [row for row in rows if "excluded" not in row]
        self.left_out = [row for row in rows if "excluded" in row]
        self.fit = [row for row in self.rows if is_fit(row)]
        self.held = [row for row in self.rows if not is_fit(row)]
        self.defaults = defaults
        self.fitted = {name: fitted(self.fit, name) for name in NAMES}
        self.better = {
            name: threshold
            for name, threshold in self.fitted.items()
            if balanced(self.fit, name, threshold) > balanced(self.fit, name) + 1e-9
        }

    def of(self, architecture: str | None, plant: str | None = None) -> list[Row]:
        """Held-out models of an architecture, or of both; of a plant that took."""
        found = [row for row in self.held if architecture in (None, row["architecture"])]
        return [row for row in found if plant in (None, row["plant"]) and is_planted(row)]

    def honest(self, architecture: str | None, name: str) -> list[Row]:
        """Held-out honest models that the assertion was asked of."""
        return [row for row in self.of(architecture) if is_honest(row) and kept(row, name)]

    def passed(self, architecture: str | None, name: str, threshold: float | None = None) -> tuple[int, int]:
        """Honest suites passed, and how many there are."""
        said = "".join(outcomes(row, name, threshold) for row in self.honest(architecture, name))
        return said.count("p"), len(said)

    def caught(self, rows: Iterable[Row], name: str, threshold: float | None = None) -> tuple[int, int, int]:
        """Planted suites not passed, those of them that failed, and how many there are."""
        said = "".join(outcomes(row, name, threshold) for row in rows)
        return len(said) - said.count("p"), said.count("f"), len(said)

    def headline(self) -> list[str]:
        """The two goals, and whether they hold."""
        text = [
            f"**Goal 1.** Default verdict, suites of {SUITE}, patch at dose ≥ .85: sensitivity ≥ 99% and specificity "
            "≥ 99%,\nboth architectures; single pictures AUROC ≥ .94.",
            "",
            "| | assertion | honest suites passed | planted suites not passed | of these failed | AUROC | holds |",
            "|---|---|--:|--:|--:|--:|---|",
        ]
        for architecture in ARCHITECTURES:
            for name in (IN, OUT, IGNORES, *([EVERY_BLOCK[IN], EVERY_BLOCK[OUT]] if architecture == "vit" else [])):
                rows = [row for row in self.of(architecture) if row["plant"] in PATCHES]
                hits, count = self.passed(architecture, name)
                stopped, failed, suites = self.caught(rows, name)
                score = auroc_of(rows, self.honest(architecture, name), name)
                lacking = [
                    what
                    for what, good in (
                        ("specificity", hits >= 0.99 * count),
                        ("sensitivity", stopped >= 0.99 * suites),
                        ("AUROC", score >= 0.94),
                    )
                    if not good
                ]
                text.append(
                    f"| {architecture} | {name} | {exact(hits, count)} | {exact(stopped, suites)} | {failed} | "
                    f"{score:.3f} | {'yes' if not lacking else 'no: ' + ', '.join(lacking)} |"
                )
        text += [
            "",
            "**Goal 2.** Sensitivity ≥ 95% for at least 10 of the plants, at specificity ≥ 99% by an assertion that is "
            "meant for\nthe plant.",
            "",
        ]
        for where in (*ARCHITECTURES, None):
            for title, thresholds in (("default thresholds", {}), ("fitted where better", self.better)):
                found, lost = self.found(where, thresholds)
                line = f"- {where or 'both at once'}, {title}: **{len(found)} of {len(found) + len(lost)}**"
                missing = ", ".join(lost) or "none"
                if len(lost) > len(found):
                    missing = "all but " + ", ".join(f"*{name}*" for name in found)
                text += textwrap.wrap(f"{line}; not found: {missing}", 118, subsequent_indent="  ")
        found, lost = self.found("vit", {}, EVERY_BLOCK)
        line = f"- vit, default thresholds, every block read: **{len(found)} of {len(found) + len(lost)}**"
        text += textwrap.wrap(f"{line}; not found: {', '.join(lost) or 'none'}", 118, subsequent_indent="  ")
        return text

    def found(
        self, architecture: str | None, thresholds: dict[str, float], instead: dict[str, str] | None = None
    ) -> tuple[list[str], list[str]]:
        """Plants that an assertion meant for them finds, and those that none finds; of None, on each architecture."""
        if architecture is None:
            each = [self.found(one, thresholds) for one in ARCHITECTURES]
            missed = [plant.name for plant in PLANTS if any(plant.name in missing for _, missing in each)]
            anywhere = [plant.name for plant in PLANTS if any(plant.name in there for there, _ in each)]
            return [name for name in anywhere if name not in missed], missed
        found: list[str] = []
        lost: list[str] = []
        for plant in PLANTS:
            rows = self.of(architecture, plant.name)
            if plant.is_honest or plant.name == UNCOUNTED or not rows:
                continue
            is_found = False
            for name in [(instead or {}).get(name, name) for name in plant.meant]:
                hits, count = self.passed(architecture, name, thresholds.get(name))
                stopped, _, suites = self.caught(rows, name, thresholds.get(name))
                is_found |= hits >= 0.99 * count and stopped >= 0.95 * suites
            (found if is_found else lost).append(plant.name)
        return found, lost

    def thresholds(self) -> list[str]:
        """What the package asks for, and what would part the models of even seeds best."""
        text = [
            "| assertion | default | fitted | balanced accuracy, even seeds: default | fitted |",
            "|---|--:|--:|--:|--:|",
        ]
        for name in NAMES:
            default = self.defaults.get(name, float("nan"))
            text.append(
                f"| {name} | {default:g} | {self.fitted[name]:.3f} | {balanced(self.fit, name):.3f} | "
                f"{balanced(self.fit, name, self.fitted[name]):.3f} |"
            )
        return text

    def honest_table(self) -> list[str]:
        """Honest suites passed, by model and assertion."""
        text = [
            "| | model | models | plain accuracy | assertion | suites passed | failed | passed, fitted |",
            "|---|---|--:|--:|---|--:|--:|--:|",
        ]
        for architecture in ARCHITECTURES:
            for plant in [plant for plant in PLANTS if plant.is_honest]:
                rows = self.of(architecture, plant.name)
                for name in [name for name in NAMES if rows and kept(rows[0], name)]:
                    stopped, failed, count = self.caught(rows, name)
                    better = self._fitted(rows, name, is_passing=True)
                    text.append(
                        f"| {architecture} | {plant.name} | {len(rows)} | {_mean(rows, 'plain')} | {name} | "
                        f"{exact(count - stopped, count)} | {failed} | {better} |"
                    )
        return text

    def planted_table(self, architecture: str) -> list[str]:
        """Planted suites not passed, by plant and assertion meant for it."""
        text = [
            "| plant | models | accuracy | flips | assertion | AUROC | not passed | failed | not passed, fitted |",
            "|---|--:|--:|--:|---|--:|--:|--:|--:|",
        ]
        for plant in [plant for plant in PLANTS if not plant.is_honest]:
            rows = self.of(architecture, plant.name)
            flips = _mean(rows, f"flipped by {plant.name.partition('-')[0]}")
            for name in [name for name in plant.meant if rows]:
                stopped, failed, count = self.caught(rows, name)
                score = auroc_of(rows, self.honest(architecture, name), name)
                text.append(
                    f"| {plant.name} | {len(rows)} | {_mean(rows, 'plain')} | {flips} | {name} | {score:.3f} | "
                    f"{exact(stopped, count)} | {failed} | {self._fitted(rows, name)} |"
                )
        return text

    def also_table(self) -> list[str]:
        """What assertions say of plants that they are not meant for."""
        text = [
            "| plant | assertion | cnn: AUROC | not passed | vit: AUROC | not passed |",
            "|---|---|--:|--:|--:|--:|",
        ]
        for plant in [plant for plant in PLANTS if not plant.is_honest]:
            for name in plant.also:
                cells = []
                for architecture in ARCHITECTURES:
                    rows = [row for row in self.of(architecture, plant.name) if kept(row, name)]
                    if not rows:
                        cells += ["–", "–"]
                        continue
                    stopped, _, count = self.caught(rows, name)
                    cells += [f"{auroc_of(rows, self.honest(architecture, name), name):.3f}", exact(stopped, count)]
                if any(cell != "–" for cell in cells):
                    text.append(f"| {plant.name} | {name} | {' | '.join(cells)} |")
        return text

    def layers_table(self) -> list[str]:
        """What `auto` read of the transformers, and what came of it."""
        text = [
            "| read | clean models | suites passed in the object | shortcut models | suites not passed |",
            "|---|--:|--:|--:|--:|",
        ]
        for title, is_so in LAYERS.items():
            cells = []
            for is_clean in (True, False):
                rows = [
                    row
                    for row in self.of("vit")
                    if "layer" in row
                    and is_so(row["layer"])
                    and is_honest(row) == is_clean
                    and row["plant"] != UNCOUNTED
                ]
                stopped, _, count = self.caught(rows, IN)
                cells += [str(len(rows)), exact(count - stopped if is_clean else stopped, count)]
            text.append(f"| {title} | {' | '.join(cells)} |")
        return text

    def misses(self) -> list[str]:
        """By name: honest suites that were not passed, and planted ones that were, by the default verdict."""
        alarms: list[str] = []
        misses: list[str] = []
        for architecture in ARCHITECTURES:
            for plant in PLANTS:
                rows = self.of(architecture, plant.name)
                for name in plant.meant:
                    counted = [row for row in rows if plant.is_honest or is_meant(row, name)]
                    wrong = []
                    for row in counted:
                        said = outcomes(row, name)
                        number = len(said) - said.count("p") if plant.is_honest else said.count("p")
                        if number:
                            wrong.append(f"{row['seed']} ({number}/{len(said)})")
                    if wrong:
                        line = f"- {architecture}, {plant.name}, {name}: {', '.join(wrong)}"
                        (alarms if plant.is_honest else misses).append(line)
        return [
            "Honest suites that the default verdict did not pass, by seed:",
            "",
            *(alarms or ["- none"]),
            "",
            "Planted suites that it passed, by seed:",
            "",
            *(misses or ["- none"]),
        ]

    def no_reliance(self) -> list[str]:
        """Trainings that are left out, and why."""
        out: dict[str, list[str]] = {}
        for row in self.held:
            if not is_planted(row):
                cue = row["plant"].partition("-")[0]
                key = f"{row['architecture']}, {row['plant']}"
                out.setdefault(key, []).append(f"{row['seed']} ({row[f'flipped by {cue}']:.2f})")
        lines = [f"- {key}: seed {', '.join(seeds)}" for key, seeds in out.items()]
        unlearnt = [f"{row['architecture']} {row['seed']}" for row in self.left_out]
        lines.append(f"- clean models that never learnt the object: {', '.join(unlearnt) or 'none'}")
        return lines

    def _fitted(self, rows: Sequence[Row], name: str, *, is_passing: bool = False) -> str:
        if name not in self.better:
            return ""
        stopped, _, count = self.caught(rows, name, self.better[name])
        return exact(count - stopped if is_passing else stopped, count)

    def text(self) -> str:
        """docs/power.md."""
        seeds = sorted({row["seed"] for row in self.rows})
        held = sorted({row["seed"] for row in self.held})
        parts = [
            BEGINNING.format(trained=len(seeds), first=seeds[0], last=seeds[-1], held=len(held), suite=SUITE),
            "## Two goals\n",
            *self.headline(),
            "\n" + READING.rstrip(),
            "\n## Thresholds\n",
            *self.thresholds(),
            "\n## Honest models\n",
            *self.honest_table(),
            *(
                line
                for architecture, title in zip(ARCHITECTURES, ("convolutional", "transformer"), strict=True)
                for line in (f"\n## Planted, {title} ({architecture})\n", *self.planted_table(architecture))
            ),
            "\n## Which layers `auto` read of the transformers\n",
            *self.layers_table(),
            "\n## What other assertions say of them\n",
            *self.also_table(),
            "\n## Misses by name\n",
            *self.misses(),
            "\n## Left out\n\nTrained with a tied cue, not reliant on it (share of predictions that a swap flips):\n",
            *self.no_reliance(),
            "\n" + HOW_TO_RUN,
        ]
        return "\n".join(parts)


def _mean(rows: Iterable[Row], key: str) -> str:
    values = [row[key] for row in rows if key in row]
    return f"{np.mean(values):.2f}" if values else "–"


def plot(report: Report, path: Path) -> None:
    """Dose against what a plain test sees, what a swap flips and which suites do not pass, on the held-out models."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), sharey=True, layout="constrained")
    for axis, architecture, title in zip(axes, ARCHITECTURES, ("convolutional", "transformer"), strict=True):
        # Whatever was trained with this dose, reliant or not.
        of = [[r for r in report.held if (r["architecture"], r["plant"]) == (architecture, dose)] for dose in DOSES]
        x = np.arange(len(DOSES))
        axis.plot(x, [np.mean([r["plain"] for r in rows]) for rows in of], "k:", label="accuracy in a plain test")
        axis.plot(
            x, [np.mean([r["flipped by patch"] for r in rows]) for rows in of], "0.55", lw=4, alpha=0.5,
            label="predictions flipped by a swap of the patch",
        )  # fmt: skip
        marks = ((IN, "o", "tab:blue"), (OUT, "s", "tab:orange"), (IGNORES, "^", "tab:green"))
        for place, (name, mark, colour) in enumerate(marks):
            rates, errors = [], []
            for rows in of:
                key = f"{name}: patch" if rows[0]["plant"] == "clean" and name != IN else name
                said = "".join(row["measures"][key]["outcomes"] for row in rows)
                hits = len(said) - said.count("p")
                low, high = interval(hits, len(said))
                rates.append(hits / len(said))
                errors.append((rates[-1] - low, high - rates[-1]))
            style = {"color": colour, "capsize": 2, "markersize": 5, "lw": 1, "label": f"suites not passed: {name}"}
            error = np.abs(np.array(errors).T)
            axis.errorbar(x + 0.09 * (place - 1), rates, yerr=error, fmt=f"{mark}-", **style)
        axis.set(title=title, xlabel="dose: how often the patch agrees with the class", ylim=(-0.04, 1.06))
        axis.set_xticks(x, list(DOSES.values()))
        axis.grid(axis="y", alpha=0.25)
    axes[0].set_ylabel("share, with exact 95% intervals")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8.5, ncols=2, loc="outside lower center", frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--output", type=Path, help="where the document goes; printed where it is not given")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    found = json.loads(arguments.results.read_text(encoding="utf-8"))
    report = Report(found["rows"], found["thresholds"])
    if arguments.output is None:
        print(report.text())
    else:
        arguments.output.write_text(report.text(), encoding="utf-8")
    if arguments.plot is not None:
        plot(report, arguments.plot)


if __name__ == "__main__":
    main()
