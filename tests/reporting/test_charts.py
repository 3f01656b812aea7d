"""The charts of a run's report."""

import re
from typing import Any

import numpy as np

from qa_lm.reporting.figures import INK, PAGE_COLOURS, STYLES, new_axes, style, svg
from qa_lm.reporting.loss_curve import draw_loss_curve, loss_figure
from qa_lm.reporting.run.charts import coverage_chart, loss_chart, recall_chart
from qa_lm.run.reader import read_run
from tests.reporting.report_example import EPOCHS, HOSTILE, METRICS, run_folder
from tests.reporting.report_pages import both


def lines(figure: Any) -> dict[str, Any]:
    """The points of each line that has a name, by its name."""
    drawn = figure.axes[0].lines
    return {line.get_label(): line.get_xydata().tolist() for line in drawn if not line.get_label().startswith("_")}


def test_curves_hold_the_values_of_the_files(tmp_path):
    run = read_run(run_folder(tmp_path))
    loss, recall, coverage = loss_chart(run), recall_chart(run), coverage_chart(run)
    assert loss
    assert recall
    assert coverage
    assert lines(loss.figure) == {
        "train": [[1, 6.8335], [2, 2.25], [3, 1.125]],
        "validation": [[1, 5.9], [2, 3.5]],
    }
    assert lines(recall.figure)["trained pairs (recall)"][2] == [3, 0.75]
    (drawn,) = coverage.figure.axes[0].lines
    assert np.asarray(drawn.get_xydata()).tolist() == [[0.4, 0.97], [1.0, 0.57]]
    assert re.findall(r"<text[^>]*>(\d+%?|best.*)</text>", recall.svg)[:3] == ["1", "2", "3"]
    assert "best epoch: 2" in loss.svg
    assert "best epoch" not in coverage.svg


def test_a_line_goes_over_epochs_without_validation(tmp_path):
    epochs = EPOCHS + "4,32,1.0,3.25,0.5,0.75\n"
    figure = loss_figure(read_run(run_folder(tmp_path, epochs=epochs)))
    assert [len(points) for points in lines(figure).values()] == [4, 3]


def test_one_epoch(tmp_path):
    folder = run_folder(tmp_path, epochs="\n".join(EPOCHS.splitlines()[:2]), metrics=METRICS | {"best_epoch": 1})
    page, _ = both(folder)
    assert "best epoch: 1" in page.text
    assert lines(loss_figure(read_run(folder)))["train"] == [[1, 6.8335]]


def test_many_epochs_are_thinned_but_the_best_is_there(tmp_path):
    epochs = EPOCHS.splitlines()[0] + "".join(f"\n{n},{n},1.0,1.0,0.0,0.0" for n in range(1, 501))
    folder = run_folder(tmp_path, epochs=epochs, metrics=METRICS | {"best_epoch": 333})
    _, plain = both(folder)
    rows = re.findall(r"^\| (\d+)(?: \(best\))? \| 1.0000", plain, flags=re.MULTILINE)
    assert len(rows) == 21
    assert {"1", "333", "500"} <= set(rows)
    assert [line.get_marker() for line in loss_figure(read_run(folder)).axes[0].lines[:2]] == ["", ""]


def test_skipped_updates_and_spikes_are_at_their_steps(tmp_path):
    folder = run_folder(tmp_path)
    records = [f'{{"step": {step}, "kind": "{kind}"}}\n' for step, kind in ((4, "skipped"), (20, "spike"))]
    (folder / "bad_batches.jsonl").write_text("".join(records))
    drawn = lines(loss_figure(read_run(folder)))
    assert [drawn[name][0][0] for name in ("update skipped", "loss spike")] == [0.5, 2.5]


def test_the_picture_is_the_chart(tmp_path):
    folder = run_folder(tmp_path)
    assert draw_loss_curve(folder).read_bytes().startswith(b"\x89PNG")
    (folder / "metrics.json").unlink()  # as in a run that still trains
    assert draw_loss_curve(folder).stat().st_size > 10_000


@style()
def labelled(text):
    figure, axes = new_axes(text)
    axes.plot([1, 2], [1, 2], color=STYLES[1])
    axes.plot([1, 2], [2, 1], color=INK)
    axes.set_xticks([1, 2], [text, "$x^2$"])
    return figure


def test_an_svg_follows_the_page_and_depends_on_nothing():
    element = svg(labelled("plain"), "one", "label")
    assert element == svg(labelled("plain"), "one", "label")
    assert element.startswith('<svg class="chart" id="chart-one" viewBox="0 0 360 226" role="img" aria-label="label">')
    assert {"currentColor", "var(--s1)", "var(--soft)"} <= set(re.findall(r"currentColor|var\(--\w+\)", element))
    assert not [colour for colour in PAGE_COLOURS if colour in element]
    for foreign in ("<style", "<script", "<metadata", "http", "font-family", "url(http", "<!"):
        assert foreign not in element
    names = re.findall(r' id="(\w+)"', element)
    assert names
    assert set(re.findall(r"(?:href=\"|url\()#(\w+)", element)) == set(names)
    assert not {*names} & {*re.findall(r' id="(\w+)"', svg(labelled("plain"), "two", "label"))}


def test_labels_stay_what_they_are():
    for text in ("cost $a$ of $b", "#000000 font-family: x; \" ' = <g id=", "サ🙂", f"{INK};{HOSTILE}"):
        element = svg(labelled(text), "one", text)
        shown = " ".join(text.translate({7: "\ufffd", 0x202E: "\ufffd"}).split())
        escaped = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert f">{escaped}</text>" in element
        assert ">$x^2$</text>" in element
        assert {*re.findall(r"<(\w+)", element)} <= {"svg", "g", "path", "text", "use", "defs", "clipPath", "rect"}
