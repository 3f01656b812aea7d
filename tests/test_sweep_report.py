"""The sweep's report: which differences it calls settled, what it takes for a knob, and pages of any sweep."""

import csv
import html
import json
import random
import re
import time
from pathlib import Path

import pytest
from scipy import stats

from qa_lm.errors import UserError
from qa_lm.reporting.sweep_axes import named_ticks, number_axis, value_axis
from qa_lm.reporting.sweep_charts import knob_charts
from qa_lm.reporting.sweep_curves import learning_curves
from qa_lm.reporting.sweep_findings import find
from qa_lm.reporting.sweep_heat import heat_maps
from qa_lm.reporting.sweep_jobs import label, read_sweep
from qa_lm.reporting.sweep_knobs import SEED, design
from qa_lm.reporting.sweep_next import next_steps
from qa_lm.reporting.sweep_report import write_sweep_report
from qa_lm.reporting.sweep_statistics import (
    Comparison,
    Difference,
    against_best,
    between_levels,
    difference,
    estimate,
    seeds_needed,
)
from qa_lm.reporting.sweep_verdict import conclusion
from tests.report_example import HOSTILE
from tests.sweep_example import SHARED, failed_job, grid, job
from tests.test_report import Page, in_browser

Values = dict[tuple[str, ...], dict[str, float]]

LEVELS = (("a", "b"), ("1", "2", "3"))


# Statistics


def test_one_cell_is_scipys_own_test():
    draw = random.Random(1)
    first, second = ({str(seed): draw.gauss(mean, 1.0) for seed in range(5)} for mean in (0.0, 1.0))
    paired = difference([(first, second)])
    theirs = stats.ttest_rel(list(first.values()), list(second.values()))
    assert paired.paired
    assert paired.p == pytest.approx(theirs.pvalue)
    assert (paired.low, paired.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    other_seeds = {f"other {seed}": value for seed, value in second.items() if seed != "4"}
    welch = difference([(first, other_seeds)])
    theirs = stats.ttest_ind(list(first.values()), list(other_seeds.values()), equal_var=False)
    assert not welch.paired
    assert welch.p == pytest.approx(theirs.pvalue)
    assert (welch.low, welch.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_seeds_that_one_side_lacks_are_left_out_of_the_pairs():
    found = difference([({"1": 1.0, "2": 2.0, "3": 9.0}, {"1": 0.5, "2": 1.7})])
    assert found.paired
    assert found.runs == 2
    assert found.value == pytest.approx(0.4)


def test_the_interval_is_students():
    found = estimate([1.0, 2.0, 4.0])
    theirs = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    assert (found.low, found.high) == pytest.approx(theirs)
    assert estimate([1.0]).low is None


def test_one_seed_is_never_tested():
    values: Values = {("a",): {"1": 0.0}, ("b",): {"1": 1000.0}}
    compared = against_best(values, smaller_is_better=True)
    assert compared == [Comparison(("a",), ("b",), Difference(-1000.0))]
    assert compared[0].difference.outside is None


def test_no_spread_is_no_proof():
    three = difference([({"1": 9, "2": 9, "3": 9}, {"1": 10, "2": 10, "3": 10})])
    assert (three.p, three.low) == (0.25, None)
    assert difference([({"1": 9, "2": 9}, {"1": 9, "2": 9})]).p == 1.0
    apart = difference([({"1": 9, "2": 9, "3": 9}, {"4": 10, "5": 10, "6": 10})])
    assert apart.p == pytest.approx(2 / 20)


def test_the_correction_is_holms_over_all_pairs():
    draw = random.Random(2)
    values: Values = {
        (name,): {str(seed): draw.gauss(mean, 0.1) for seed in range(6)} for mean, name in enumerate("abcd")
    }
    compared = against_best(values, smaller_is_better=True)
    assert [each.other for each in compared] == [("b",), ("c",), ("d",)]
    ordered = sorted(each.difference.p for each in compared)  # type: ignore[type-var]
    expected = [min(1.0, p * (6 - rank)) for rank, p in enumerate(ordered)]  # type: ignore[operator]
    assert sorted(each.difference.corrected for each in compared) == pytest.approx(expected)  # type: ignore[type-var]
    assert [each.best for each in against_best(values, smaller_is_better=False)] == [("d",)] * 3


def simulated(draw: random.Random, effect: float, seeds: int, paired: bool, uneven: bool, two_knobs: bool) -> Values:
    """A sweep of six settings: noise of a standard deviation of 1, and what is planted at level b."""
    places = [(a, b) for a in LEVELS[0] for b in LEVELS[1]]
    shared = [draw.gauss(0, 1) for _ in range(seeds)]
    values: Values = {}
    for index, place in enumerate(places):
        spread = draw.choice((0.2, 1.0, 5.0)) if uneven else 1.0
        mean = effect if place[0] == "b" else 0.0
        values[place if two_knobs else (str(index),)] = {
            str(seed if paired else (index, seed)): mean + (shared[seed] if paired else 0.0) + draw.gauss(0, spread)
            for seed in range(seeds)
        }
    return values


def alarms(values: Values, two_knobs: bool) -> list[Comparison]:
    share = 0.5 if two_knobs else 1.0
    compared = against_best(values, True, share)
    if two_knobs:
        compared = [*compared, *(each for knob in between_levels(values, LEVELS, True, share) for each in knob)]
    assert all(each.difference.corrected is not None for each in compared)
    return [each for each in compared if each.difference.outside]


@pytest.mark.parametrize(
    ("seeds", "paired", "uneven", "two_knobs"),
    [
        (3, True, False, True),
        (3, True, True, True),
        (3, False, True, True),
        (2, False, True, True),
        (6, True, False, True),
        (6, True, False, False),
    ],
)
def test_false_alarms_come_in_at_most_one_sweep_of_twenty(seeds, paired, uneven, two_knobs):
    draw = random.Random(3)
    sweeps = [simulated(draw, 0.0, seeds, paired, uneven, two_knobs) for _ in range(400)]
    assert sum(bool(alarms(values, two_knobs)) for values in sweeps) <= 0.05 * len(sweeps)


@pytest.mark.parametrize("paired", [True, False])
def test_an_effect_that_is_there_is_found(paired):
    draw = random.Random(4)
    found = 0
    for _ in range(200):
        settled = alarms(simulated(draw, 3.0, 4, paired, False, True), True)
        # Every alarm is about the planted knob, or a false one.
        right = [each for each in settled if (each.best, each.other) == ("a", "b")]
        found += bool(right)
        assert all(-6 < each.difference.value < 0 for each in right)
    assert found >= 180


def test_an_interaction_is_no_seed_noise():
    """Level b helps much in one setting and little in another: with little seed noise both are seen as one effect."""
    draw = random.Random(5)
    values: Values = {
        (a, c): {str(seed): (gain if a == "b" else 0.0) + draw.gauss(0, 0.05) for seed in range(4)}
        for a in "ab"
        for c, gain in (("1", -4.0), ("2", -0.4))
    }
    (compared,) = between_levels(values, LEVELS, True)[0]
    assert compared.difference.outside
    assert compared.difference.value == pytest.approx(-2.2, abs=0.1)


def test_seeds_needed_give_the_power_that_they_promise():
    needed = seeds_needed(Difference(1.0, spread=1.5))
    assert needed == 20  # 1.5 * (1.96 + 0.84) squared is 17.6, and Student's t asks for a little more
    draw, seen = random.Random(6), 0
    for _ in range(400):
        gaps = {str(seed): draw.gauss(1.0, 1.5) for seed in range(needed)}
        seen += difference([(gaps, dict.fromkeys(gaps, 0.0))]).p < 0.05  # type: ignore[operator]
    assert 0.75 < seen / 400 < 0.86
    assert seeds_needed(Difference(0.001, spread=1.0)) is None
    assert seeds_needed(Difference(1.0)) is None
    assert seeds_needed(Difference(1e9, spread=1.0)) == 2


# Jobs and knobs


def test_knobs_are_what_was_given(tmp_path):
    layout = design(read_sweep(grid(tmp_path)))
    assert [(knob.key, knob.name, knob.levels) for knob in layout.knobs] == [
        ("optimizer", "optimizer", ["adamw", "muon"]),
        ("optimizer.lr", "lr", ["0.001", "0.003", "0.01"]),
    ]
    assert layout.knobs[1].numbers == [0.001, 0.003, 0.01]
    assert layout.followers == {"optimizer": ["optimizer.kind", "optimizer.warmup_steps"]}
    assert layout.places["9"] == ("muon", "0.001")
    assert layout.seeds["10"] == "2"


def test_knobs_are_found_without_the_launchers_word(tmp_path):
    layout = design(read_sweep(grid(tmp_path, told=False)))
    assert [knob.key for knob in layout.knobs] == ["optimizer.kind", "optimizer.lr"]
    assert layout.followers == {"optimizer.kind": ["optimizer.warmup_steps"]}
    assert layout.unexplained == []


def test_the_sweeps_command_tells_a_knob_from_its_followers(tmp_path):
    for number, (width, rate) in enumerate([(64, 0.1), (128, 0.2), (256, 0.3)]):
        job(tmp_path, number, 2.0, model={"hidden_size": width}, optimizer={"lr": rate})
    assert [knob.key for knob in design(read_sweep(tmp_path)).knobs] == ["model.hidden_size"]
    (tmp_path / "multirun.yaml").write_text(
        "hydra: {overrides: {task: ['experiment=recall', 'optimizer.lr=0.1,0.2,0.3']}}"
    )
    layout = design(read_sweep(tmp_path))
    assert [knob.key for knob in layout.knobs] == ["optimizer.lr"]
    assert layout.followers == {"optimizer.lr": ["model.hidden_size"]}


def test_the_split_seed_is_a_knob_unless_it_is_the_seed(tmp_path):
    for seed in (1, 2, 3):
        job(tmp_path / "own", seed, 2.0, 7, data={"split_seed": seed})
        job(tmp_path / "same", seed, 2.0, seed, data={"split_seed": seed})
    assert [knob.key for knob in design(read_sweep(tmp_path / "own")).knobs] == ["data.split_seed"]
    layout = design(read_sweep(tmp_path / "same"))
    assert layout.knobs == []
    assert layout.followers == {SEED: ["data.split_seed"]}


def test_what_no_knob_explains_is_said(tmp_path):
    for number, rows in enumerate((16, 32, 16, 16)):
        rate = (0.1, 0.2)[number // 2]
        job(tmp_path, number, 2.0, number % 2, [f"optimizer.lr={rate}"], data={"batch_size": rows})
    assert design(read_sweep(tmp_path)).unexplained == ["data.batch_size"]
    write_sweep_report(tmp_path)
    said = "Differ for another reason, and may blur the comparison: data.batch_size."
    assert said in Page(tmp_path / "report.html").text


def test_numbers_written_in_two_ways_are_one_level():
    assert label("3e-3") == label(0.003) == label("0.003") == "0.003"
    assert label("5e-05") == label(5e-5)
    assert [label(value) for value in (10, 10.0, True, None, "muon", [0.9, 0.95])] == [
        *("10", "10", "true", "null", "muon", "[0.9, 0.95]")
    ]


def test_jobs_come_by_number(tmp_path):
    for name in ("10", "2", "b", "1", "a10", "a9"):
        job(tmp_path, name, 1.0)
    assert [each.name for each in read_sweep(tmp_path).jobs] == ["1", "2", "10", "a9", "a10", "b"]


def test_broken_jobs_are_lines_of_the_report(tmp_path):
    sweep = grid(tmp_path)
    failed_job(sweep, 18, [*SHARED, "optimizer=muon", "optimizer.lr=0.03", "seed=1"], "ValueError: no <such> file")
    failed_job(sweep, 19, None)
    (sweep / "16" / "metrics.json").write_text('{"best_val_loss": 2.')
    (sweep / "16" / "config.yaml").write_text("a: [1, ")
    (sweep / "17" / "metrics.csv").write_text("epoch,val_loss\n1,2.0\n2,1.e,7,8\n")
    job(sweep, 20, None, 1, [*SHARED, "optimizer=muon", "optimizer.lr=0.1", "seed=1"], optimizer={"lr": 0.1})
    (sweep / "notes").mkdir()
    findings = find(read_sweep(sweep))
    states = {each.name: each.state for each in findings.sweep.jobs}
    assert (states["16"], states["18"], states["19"], states["20"]) == ("failed", "failed", "unfinished", "finished")
    assert "notes" not in states
    assert findings.sweep.jobs[18].error == "ValueError: no <such> file"
    write_sweep_report(sweep)
    page = Page(sweep / "report.html")
    assert "ValueError: no <such> file" in page.text
    assert "RuntimeError: boom" in page.text
    with (sweep / "results.csv").open(encoding="utf-8", newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)][18] == "ValueError: no <such> file"
    assert findings.measured[0].place == ("muon", "0.003")
    assert [group.place for group in findings.groups if not group.estimate] == [("muon", "0.03"), ("muon", "0.1")]


# The objective


def test_the_objective_is_what_the_runs_followed(tmp_path):
    for number, value in enumerate((0.5, 0.9)):
        job(tmp_path, number, 2.0, metrics={"recall": value}, monitor="train/recall", optimizer={"lr": number})
    findings = find(read_sweep(tmp_path))
    assert findings.objective.outcome.name == "recall"
    assert findings.measured[0].place == ("1",)
    assert find(read_sweep(tmp_path), "best_val_loss").objective.outcome.smaller_is_better
    assert find(read_sweep(tmp_path), "recall", "min").measured[0].place == ("0",)
    with pytest.raises(UserError, match="no job has it; they have best_epoch, best_val_loss, "):
        find(read_sweep(tmp_path), "accuracy")


def test_where_all_reached_their_recall_time_decides(tmp_path):
    for number in range(2):
        job(tmp_path, number, 2.0, monitor="train/recall", stop_at_recall=0.95, optimizer={"lr": number})
    assert find(read_sweep(tmp_path)).objective.outcome.name == "fit_seconds"
    job(tmp_path, 2, 2.0, metrics={"final_train_recall": 0.9}, monitor="train/recall", stop_at_recall=0.95)
    assert find(read_sweep(tmp_path)).objective.outcome.name == "recall"


def test_without_validation_recall_decides(tmp_path):
    for number in range(2):
        job(tmp_path, number, None, optimizer={"lr": number})
    assert find(read_sweep(tmp_path)).objective.outcome.name == "recall"


# The conclusion


def test_the_conclusion_of_a_planted_sweep(tmp_path):
    findings = find(read_sweep(grid(tmp_path, noise=0.01, seeds=range(1, 7))))
    said = conclusion(findings)
    assert said[0].startswith("36 jobs, all finished; 75 min 0 s of work, 37.0 million tokens")
    assert said[1].startswith("Best by validation loss: optimizer=muon, lr=0.003, with 2.0")
    assert "6 seeds)" in said[1]
    assert re.match(r"optimizer: on average over the other settings, muon is better than adamw by 0\.[34]", said[2])
    assert said[2].endswith("outside seed noise.")
    assert said[3].endswith("outside seed noise.")
    assert said[4] == "The best is better than each of the 5 other settings by more than seed noise."
    assert next_steps(findings)[0].words.startswith("Nothing more")


def test_one_seed_each_settles_nothing_and_says_what_would(tmp_path):
    findings = find(read_sweep(grid(tmp_path, seeds=[1])))
    assert "Nothing is settled: each setting has one seed" in " ".join(conclusion(findings))
    (step,) = next_steps(findings)
    assert step.commands == [
        "python scripts/train.py -m experiment=recall data.path=faq.jsonl optimizer=muon,adamw "
        "optimizer.lr=0.003,0.001,0.01 seed=2,3,4"
    ]
    assert "(18 jobs, about 37 min 30 s of work)" in step.words


def test_an_open_lead_asks_for_seeds_of_the_two(tmp_path):
    findings = find(read_sweep(grid(tmp_path)))
    step = next_steps(findings)[0]
    assert "new seeds of these two alone settle it" in step.words
    assert len(step.commands) == 1
    assert re.search(r"optimizer=muon optimizer.lr=0.00\d,0.0\d+ 'seed=range\(4,\d+\)'$", step.commands[0])


def test_alike_is_said_of_what_is_alike(tmp_path):
    findings = find(read_sweep(grid(tmp_path, mean=lambda kind, rate: 2.0)))
    assert "not told apart from (" in " ".join(conclusion(findings))
    assert not any(findings.settled(each) for each in findings.against_best)


def test_the_best_at_an_edge_asks_for_a_wider_range(tmp_path):
    findings = find(read_sweep(grid(tmp_path, noise=0.01, mean=lambda kind, rate: 2.0 - 20 * rate)))
    step = next_steps(findings)[-1]
    assert step.words == "The best optimizer.lr is the largest that was tried: the optimum may lie beyond."
    assert "optimizer.lr=0.033 seed=1,2,3" in step.commands[0]


def test_text_with_signs_of_hydras_grammar_is_quoted(tmp_path):
    for number, path in enumerate(("a b.jsonl", "c=d.jsonl")):
        job(tmp_path, number, 1.0 + number, 1, [f"data.path={path}", "model.layers=2"], data={"path": path})
    (line,) = next_steps(find(read_sweep(tmp_path)))[0].commands
    assert "model.layers=2 " in line
    assert """'data.path=a b.jsonl,'"'"'c=d.jsonl'"'"'' seed=2,3,4""" in line


# Charts


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


# Pages


def plain(sweep: Path) -> str:
    written = html.unescape((sweep / "report.md").read_text(encoding="utf-8"))
    return " ".join(re.sub(r"\\([*_\[\]~$#+=-])", r"\1", written).split())


def test_pages_and_table_say_the_same(tmp_path):
    sweep = grid(tmp_path)
    printed = write_sweep_report(sweep)
    page, markdown = Page(sweep / "report.html"), plain(sweep)
    assert page.open == []
    for said in conclusion(find(read_sweep(sweep))):
        assert said in page.text
        assert said in markdown
        assert said in " ".join(printed.split())
    assert printed.endswith(str(sweep / "report.html"))
    assert "Given by optimizer: optimizer.kind, optimizer.warmup_steps." in page.text
    with (sweep / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert (rows[9]["job"], rows[9]["optimizer"], rows[9]["optimizer.lr"], rows[9]["seed"]) == (
        "9",
        "muon",
        "0.001",
        "1",
    )
    assert float(rows[9]["best_val_loss"]) == json.loads((sweep / "9" / "metrics.json").read_text())["best_val_loss"]
    assert f"| muon | 0.001 | 1 | finished | {float(rows[9]['best_val_loss']):.4f} |" in markdown
    assert sorted(path.name for path in sweep.iterdir() if path.is_file()) == [
        *("multirun.yaml", "report.html", "report.md", "results.csv")
    ]


def test_an_empty_sweep(tmp_path):
    (tmp_path / "multirun.yaml").write_text("hydra: {}\n")
    printed = write_sweep_report(tmp_path)
    assert printed.startswith("The sweep has no jobs.\n")
    assert "The sweep has no jobs." in Page(tmp_path / "report.html").text
    assert (tmp_path / "results.csv").read_text() == "job,state,seed,error\n"


def test_a_sweep_of_one_job(tmp_path):
    job(tmp_path, 0, 2.0, 42, SHARED)
    printed = write_sweep_report(tmp_path)
    assert "One job is no comparison." in printed
    assert "python scripts/train.py -m experiment=recall data.path=faq.jsonl seed=1,2,3" in printed
    page = Page(tmp_path / "report.html")
    assert "Validation loss of the only setting: 2.0000 (1 seed)." in page.text
    assert "Epoch by epoch" in page.text
    assert "verdict" not in page.text


def test_a_sweep_broken_off_after_its_first_job(tmp_path):
    job(tmp_path, 0, 2.0, 1)
    (job(tmp_path, 1, 2.0, 2) / "metrics.json").unlink()
    printed = write_sweep_report(tmp_path)
    assert "2 jobs: 1 finished, 1 unfinished" in printed
    assert "Next: Only one setting has a result" in printed


def test_a_sweep_in_which_nothing_finished(tmp_path):
    for number in range(3):
        failed_job(tmp_path, number, [f"optimizer.lr={number}", "seed=1"])
    printed = write_sweep_report(tmp_path)
    assert "3 jobs: 0 finished, 3 failed" in printed
    assert "No job has finished" in printed
    assert "RuntimeError: boom" in Page(tmp_path / "report.html").text


def test_a_sweep_of_two_hundred_jobs(tmp_path):
    draw, number = random.Random(8), 0
    for rate in (0.0001, 0.0003, 0.001, 0.003, 0.01):
        for layers in (1, 2, 4, 8):
            for seed in range(10):
                given = [f"optimizer.lr={rate}", f"model.layers={layers}", f"seed={seed}"]
                loss = 2 + 30 * rate + draw.gauss(0, 0.02)
                job(tmp_path, number, loss, seed, given, 60, optimizer={"lr": rate}, model={"layers": layers})
                number += 1
    started = time.perf_counter()
    printed = write_sweep_report(tmp_path)
    assert time.perf_counter() - started < 20
    assert "200 jobs, all finished" in printed
    assert "model.layers: on average over the other settings, no value is told apart" in " ".join(printed.split())
    page = Page(tmp_path / "report.html")
    assert "All 200 jobs" in page.text
    assert page.tags.count("tr") == 20 + 1 + (12 + 1) + (200 + 1) + (4 + 3 + 1)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def hostile_sweep(root: Path) -> Path:
    for number in range(4):
        given = [f"data.path={HOSTILE}{number // 2}", f"seed={number % 2}"]
        job(root, number, 2.0 + number, number % 2, given, monitor=HOSTILE, data={"path": f"{HOSTILE}{number // 2}"})
    failed_job(root, HOSTILE.replace("/", "").replace("\n", " "), [f"{HOSTILE}=1"], HOSTILE.replace("\n", " "))
    return root


def test_foreign_text_stays_text(tmp_path):
    sweep = hostile_sweep(tmp_path)
    write_sweep_report(sweep)
    page = Page(sweep / "report.html")
    assert page.open == []
    assert not {"script", "img", "link", "iframe", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in page.attributes
    assert page.text.count("<script>") > 5
    assert "\u202e" not in page.text
    written = (sweep / "report.md").read_text(encoding="utf-8")
    prose = re.sub(r"^(`{3,})text\n.*?\n\1$", "", written, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"<[^>]*>", prose)) <= {"<br>"}
    for block in re.findall(r"(?:^\|.*\n)+", prose, flags=re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_the_script(tmp_path, script):
    sweep = grid(tmp_path, seeds=[1, 2])
    done = script("sweep_report.py", str(sweep), "--metric", "fit_seconds")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Best by training time" in done.stdout
    refused = script("sweep_report.py", str(sweep / "0"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"error: {sweep}/0: is the folder of one run")
    assert refused.stderr.count("\n") == 1


def test_what_is_no_sweep(tmp_path):
    sweep = grid(tmp_path, seeds=[1])
    for folder, why in (
        (tmp_path, "not a sweep folder"),
        (tmp_path / "none", "no such folder"),
        (sweep / "0", "one run"),
    ):
        with pytest.raises(UserError, match=why):
            write_sweep_report(folder)
    with pytest.raises(UserError, match="--metric speed"):
        write_sweep_report(sweep, "speed")
    assert [path.name for path in sweep.iterdir() if path.is_file()] == ["multirun.yaml"]


@pytest.mark.slow
def test_in_a_browser(tmp_path):
    sweep = hostile_sweep(tmp_path / "sweep")
    write_sweep_report(sweep)
    text = (sweep / "report.html").read_text(encoding="utf-8")
    # Without its Content-Security-Policy, so that the escaping alone has to hold, and the measuring script may run.
    unguarded = re.sub(r"<meta http-equiv=\"Content-Security-Policy\".*\n", "", text)
    assert unguarded != text
    page = tmp_path / "unguarded.html"
    measure = (
        "<script>addEventListener('load', () => parent.postMessage([document.title === 'ran', "
        "document.documentElement.scrollWidth, document.documentElement.clientWidth].join(' '), '*'));</script>"
    )
    page.write_text(unguarded.replace("</head>", measure + "</head>"), encoding="utf-8")
    ran, content, frame = in_browser(page)
    assert not ran
    assert content <= frame <= 360
