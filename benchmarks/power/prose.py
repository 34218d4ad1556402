"""The words of docs/power.md around the tables; numbers are put in by `report.py`."""

from __future__ import annotations

BEGINNING = """\
# Detection power

How often do the assertions find what is wrong, and how often do they fail a model that is right? Measured on small
models whose fault is planted. This page is written by `python -m benchmarks.power.report`; all numbers come from
[results.json](../benchmarks/power/results.json).

Every picture (48 × 48 pixels, four classes) has an object whose stripes name the class, and three bystanders: a
coloured patch in a corner, a watermark, a background texture. A convolutional network (cnn) and a small vision
transformer (vit) were trained {trained} times each (seeds {first}–{last}), for each of: nothing tied to the class
(*clean*), the patch tied to it with probability .6, .85, .95 or 1 (the dose), the watermark, the texture. Of the
clean ones something was broken: another class asked for, all rows of the head alike, head or last block
re-initialised, channels in the order BGR, normalisation forgotten, a wrong input size, the map transposed or moved
by a cell, an early layer. Honest are clean models, the same in bfloat16, and with noise of two levels in the
pictures.

A shortcut counts where swapping its cue for another class's flips at least half of the predictions: a plain test,
where all cues agree, sees nothing of it (*accuracy* below). A suite is one call of the assertion on {suite}
pictures; suites of a model do not overlap. *Not passed* is failed or inconclusive. Even seeds fit thresholds, odd
seeds ({held}) judge; in brackets exact 95% intervals over suites, which count suites of one model as if they were
independent.

![dose and response](images/power.png)
"""

READING = """\
*Every block* is the same assertion with a `method` that reads HiResCAM at `norm1` of every block of the transformer,
instead of the layers that `auto` finds. *Same as before* compares with the same weights before anything was broken,
*same as another training* with a clean model of another seed. A picture without evidence fails its suite. Where
`auto` reads a transformer decides whether honest ones pass: the table of layers below.
"""

HOW_TO_RUN = """\
## How to run it

```shell
python -m benchmarks.power.train      # about 10 s a model on one core; kept in a temporary folder, see --at
python -m benchmarks.power.measure    # about 9 minutes on one core; --resume adds what was trained since
python -m benchmarks.power.report --output docs/power.md --plot docs/images/power.png
```
"""
