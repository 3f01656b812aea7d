"""The charts of a run's report."""

import re

from qa_lm.reporting.run.charts import coverage_chart, loss_chart, recall_chart
from qa_lm.reporting.run.files import read_run
from tests.reporting.report_example import (
    EPOCHS,
    METRICS,
    run_folder,
)
from tests.reporting.report_pages import both


def test_curves_stand_where_their_values_are(tmp_path):
    run = read_run(run_folder(tmp_path))
    loss, recall, coverage = loss_chart(run), recall_chart(run), coverage_chart(run)
    assert loss
    assert recall
    assert coverage
    assert [tick.label for tick in loss.x_ticks] == ["1", "2", "3"]
    assert loss.mark
    assert loss.mark.label == "best: 2"
    assert loss.mark.at == loss.lines[0].dots[1].x
    assert [len(line.dots) for line in loss.lines] == [3, 2]
    assert loss.lines[1].dots[1].words == "epoch 2, validation: 3.5000"
    left, right, top, bottom = recall.box
    assert recall.lines[0].dots[2].y == round(bottom - 0.75 * (bottom - top), 1)
    assert [dot.x for dot in coverage.lines[0].dots] == [round(left + 0.4 * (right - left), 1), right]


def test_a_line_goes_over_epochs_without_validation(tmp_path):
    epochs = EPOCHS + "4,32,1.0,3.25,0.5,0.75\n"
    loss = loss_chart(read_run(run_folder(tmp_path, epochs=epochs)))
    assert loss
    assert [line.path.count("L") for line in loss.lines] == [3, 2]


def test_one_epoch(tmp_path):
    folder = run_folder(tmp_path, epochs="\n".join(EPOCHS.splitlines()[:2]), metrics=METRICS | {"best_epoch": 1})
    page, _ = both(folder)
    loss = loss_chart(read_run(folder))
    assert loss
    assert [tick.label for tick in loss.x_ticks] == ["1"]
    assert "best: 1" in page.text


def test_many_epochs_are_thinned_but_the_best_is_there(tmp_path):
    epochs = EPOCHS.splitlines()[0] + "".join(f"\n{n},{n},1.0,1.0,0.0,0.0" for n in range(1, 501))
    folder = run_folder(tmp_path, epochs=epochs, metrics=METRICS | {"best_epoch": 333})
    _, plain = both(folder)
    rows = re.findall(r"^\| (\d+)(?: \(best\))? \| 1.0000", plain, flags=re.MULTILINE)
    assert len(rows) == 21
    assert {"1", "333", "500"} <= set(rows)
    loss = loss_chart(read_run(folder))
    assert loss
    assert loss.lines[0].dots == []
