"""The charts of a sweep's report."""

from qa_lm.reporting.axes import named_ticks, number_axis, value_axis
from qa_lm.reporting.sweep.charts import knob_charts
from qa_lm.reporting.sweep.curves import learning_curves
from qa_lm.reporting.sweep.findings import find
from qa_lm.reporting.sweep.heat import heat_maps
from qa_lm.reporting.sweep.jobs import read_sweep
from tests.sweeps.sweep_example import grid, job


def test_axes():
    axis = number_axis([0.001, 0.01, 0.1], 0, 100)
    assert [axis.place(value) for value in (0.001, 0.01, 0.1)] == [0, 50, 100]
    assert number_axis([1, 2, 4], 0, 90).place(2) == 30
    shares = value_axis([0.95, 0.96], 0, 100, (0.0, 1.0)).ticks(shares=True)
    assert len({tick.label for tick in shares}) == len(shares) > 2
    assert value_axis([0.001, 5.0], 0, 100, (0.0, None)).log
    assert [tick.label for tick in named_ticks([0, 100], ["short", "a/very/long/path.jsonl"])] == [
        "short",
        "…ng/path.jsonl",
    ]


def test_marks_stand_at_their_means(tmp_path):
    findings = find(read_sweep(grid(tmp_path)))
    by_optimizer, by_rate = knob_charts(findings)
    assert [line.name for line in by_optimizer.lines] == ["lr 0.001", "lr 0.003", "lr 0.01"]
    assert [line.name for line in by_rate.lines] == ["optimizer adamw", "optimizer muon"]
    assert [tick.label for tick in by_rate.x_ticks] == ["0.001", "0.003", "0.01"]
    assert by_rate.ring == (by_rate.lines[1].dots[1].x, by_rate.lines[1].dots[1].y)
    assert by_rate.lines[1].dots[1].y == max(dot.y for line in by_rate.lines for dot in line.dots)  # downwards
    assert sum(len(each.dots) for each in by_rate.faint) == 18
    assert all(len(line.whiskers) == 3 for line in by_rate.lines)
    (heat,) = heat_maps(findings)
    assert len(heat.cells) == 6
    assert [cell.depth for cell in heat.cells if cell.best] == [1.0]
    assert "optimizer=muon" in next(cell.words for cell in heat.cells if cell.best)


def test_curves_are_means_of_the_seeds(tmp_path):
    for seed, epochs in ((1, 8), (2, 5)):
        job(tmp_path, seed, 2.0, seed, [f"seed={seed}"], epochs=epochs)
    loss, recall = learning_curves(find(read_sweep(tmp_path)))
    assert [line.path.count("L") for line in loss.lines] == [4]  # five epochs are shared
    assert sorted(line.path.count("L") for line in loss.faint) == [4, 7]
    assert (loss.key, recall.key) == ("curve-val_loss", "curve-train_recall")
