"""The charts of a sweep's report."""

from typing import Any

import pytest

from qa_lm.reporting.figures import named_ticks, new_axes, style
from qa_lm.reporting.sweep.charts import knob_charts, value_axis
from qa_lm.reporting.sweep.curves import learning_curves
from qa_lm.reporting.sweep.findings import compare_jobs
from qa_lm.reporting.sweep.heat import heat_maps
from qa_lm.reporting.sweep.jobs import read_sweep
from qa_lm.reporting.sweep.outcomes import OUTCOMES
from tests.sweeps.sweep_example import grid, job


def shown(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@style()
def test_names_at_an_axis_are_cut_or_left_out_where_there_is_no_room():
    _, axes = new_axes("knob")
    axes.set_xlim(0, 10)
    named_ticks(axes, [0, 10], ["short", "a/very/long/path/of/some/file.jsonl"], 200)
    assert shown(axes.xaxis) == ["short", "…ng/path/of/some/file.jsonl"]
    named_ticks(axes, [0, 0.1, 10], ["0.001", "0.002", "0.1"])
    assert shown(axes.xaxis) == ["0.001", "0.1"]
    named_ticks(axes, [1, 2], ["$a$\n#", "b"])
    assert shown(axes.xaxis) == ["$a$ #", "b"]


@style()
@pytest.mark.parametrize(
    ("name", "values", "scale", "limits"),
    [
        ("recall", [0.95, 1.0], "linear", (0.946, 1.0)),
        ("best_val_loss", [0.001, 5.0], "log", (0.001 / 1.1, 5.5)),
        ("best_val_loss", [1.0, 2.0], "linear", (0.92, 2.08)),
        ("fit_seconds", [0.0, 0.0], "linear", (0.0, 1.0)),
    ],
)
def test_an_axis_of_values_has_room_within_what_is_possible(name, values, scale, limits):
    _, axes = new_axes("knob")
    value_axis(axes, values, OUTCOMES[name])
    assert axes.get_yscale() == scale
    assert axes.get_ylim() == pytest.approx(limits)


def test_marks_are_at_their_means(tmp_path):
    findings = compare_jobs(read_sweep(grid(tmp_path)))
    by_optimizer, by_rate = knob_charts(findings)
    assert by_optimizer.legend == ((1, "lr 0.001"), (2, "lr 0.003"), (3, "lr 0.01"))
    assert by_rate.keys == [(1, "●", "optimizer adamw"), (2, "■", "optimizer muon")]
    axes: Any = by_rate.figure.axes[0]
    assert (axes.get_xscale(), shown(axes.xaxis)) == ("log", ["0.001", "0.003", "0.01"])
    by_place_low = {group.place: group.estimate.low for group in findings.measured if group.estimate}
    means = [line.lines[0].get_xydata().tolist() for line in axes.containers]
    by_place = {group.place: group.estimate.mean for group in findings.measured if group.estimate}
    assert means == [[[rate, by_place[kind, str(rate)]] for rate in (0.001, 0.003, 0.01)] for kind in ("adamw", "muon")]
    (ring,) = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert ring.get_xydata().tolist() == [means[1][1]]
    runs = [line for line in axes.lines if line.get_alpha()]
    assert sum(len(line.get_xdata()) for line in runs) == 18
    lows = [segment[0][1] for line in axes.containers for segment in line[2][0].get_segments()]
    assert lows == pytest.approx([low for _, low in sorted(by_place_low.items())])


def test_a_heat_map_frames_the_best(tmp_path):
    (heat,) = heat_maps(compare_jobs(read_sweep(grid(tmp_path))))
    axes: Any = heat.figure.axes[0]
    assert (shown(axes.xaxis), shown(axes.yaxis)) == (["0.001", "0.003", "0.01"], ["adamw", "muon"])
    *cells, frame = sorted(axes.patches, key=lambda patch: not patch.get_fill())
    assert len(cells) == 6
    deepest = max(cells, key=lambda cell: cell.get_facecolor()[3])
    assert deepest.get_facecolor()[3] == 1.0
    assert [round(edge) for edge in frame.get_xy()] == [*deepest.get_xy()] == [1, 1]
    assert [text.get_text() for text in axes.texts if text.get_weight() == "bold"] == ["1.997"]


def test_curves_are_means_of_the_seeds(tmp_path):
    for seed, epochs in ((1, 8), (2, 5)):
        job(tmp_path, seed, 2.0, seed, [f"seed={seed}"], epochs=epochs)
    loss, recall = learning_curves(compare_jobs(read_sweep(tmp_path)))
    assert (loss.key, recall.key) == ("curve-val_loss", "curve-train_recall")
    drawn: Any = loss.figure.axes[0].lines
    assert [len(line.get_xdata()) for line in drawn if line.get_linewidth() == 2] == [5]  # five epochs are shared
    assert [len(line.get_xdata()) for line in drawn if line.get_linewidth() == 1] == [8, 5]
