"""The report of a sweep: which differences it calls significant, what it takes for a knob, and its pages."""

import csv
import html
import json
import random
import re
import time
from pathlib import Path

import pytest

from qa_lm.errors import UserError
from qa_lm.reporting.sweep.findings import compare_jobs
from qa_lm.reporting.sweep.jobs import read_sweep
from qa_lm.reporting.sweep.next import next_steps
from qa_lm.reporting.sweep.report import write_sweep_report
from qa_lm.reporting.sweep.verdict import conclusion
from tests.reporting.report_example import HOSTILE
from tests.reporting.report_pages import Page, in_browser
from tests.sweeps.sweep_example import SHARED, failed_job, grid, job


def test_the_conclusion_of_a_planted_sweep(tmp_path):
    findings = compare_jobs(read_sweep(grid(tmp_path, noise=0.01, seeds=range(1, 7))))
    said = conclusion(findings)
    assert said[0].startswith("36 jobs, all finished; 75 min 0 s of compute, 37.0 million training tokens")
    assert said[1].startswith("Best by validation loss: optimizer=muon, lr=0.003, with 2.0")
    assert "6 seeds)" in said[1]
    assert re.match(
        r"optimizer, averaged over the other settings: muon is significantly better than adamw by 0\.[34]", said[2]
    )
    assert said[3].startswith("optimizer.lr, averaged over the other settings: 0.003 is significantly better than ")
    assert said[4] == "The best setting is significantly better than all 5 other settings."
    (step,) = next_steps(findings)
    assert step.text.startswith("Nothing: ")


def test_one_seed_each_is_not_tested_and_more_are_proposed(tmp_path):
    findings = compare_jobs(read_sweep(grid(tmp_path, seeds=[1])))
    assert "No difference can be tested: each setting has one seed" in " ".join(conclusion(findings))
    (step,) = next_steps(findings)
    assert step.commands == [
        "python scripts/train.py -m experiment=recall data.path=faq.jsonl optimizer=muon,adamw "
        "optimizer.lr=0.003,0.001,0.01 seed=2,3"
    ]
    assert "(12 jobs, about 25 min 0 s of compute)" in step.text


def test_a_lead_that_is_not_significant_asks_for_seeds_of_the_two(tmp_path):
    findings = compare_jobs(read_sweep(grid(tmp_path)))
    step = next_steps(findings)[0]
    assert "new seeds of only these two" in step.text
    assert len(step.commands) == 1
    assert re.search(r"optimizer=muon optimizer.lr=0.00\d,0.0\d+ 'seed=range\(4,\d+\)'$", step.commands[0])


def test_equal_settings_are_not_distinguished(tmp_path):
    findings = compare_jobs(read_sweep(grid(tmp_path, mean=lambda kind, rate: 2.0)))
    assert "not significantly better than (" in " ".join(conclusion(findings))
    assert not any(findings.is_better(each) for each in findings.against_best)


def test_the_best_at_an_edge_asks_for_a_wider_range(tmp_path):
    def mean(kind, rate):
        return 2.0 - 20 * rate + 0.5 * (kind == "adamw")

    findings = compare_jobs(read_sweep(grid(tmp_path, noise=0.001, mean=mean)))
    (step,) = next_steps(findings)  # and not that nothing is left, though all else is significant
    assert step.text == "The best optimizer.lr is the largest value tried: the optimum may lie beyond it."
    assert "optimizer.lr=0.033 seed=1,2,3" in step.commands[0]


def test_text_with_signs_of_hydras_grammar_is_quoted(tmp_path):
    for number, path in enumerate(("a b.jsonl", "c=d.jsonl")):
        job(tmp_path, number, 1.0 + number, 1, [f"data.path={path}", "model.layers=2"], data={"path": path})
    (line,) = next_steps(compare_jobs(read_sweep(tmp_path)))[0].commands
    assert "model.layers=2 " in line
    assert """'data.path=a b.jsonl,'"'"'c=d.jsonl'"'"'' seed=2,3""" in line


# Pages


def plain(sweep: Path, name: str = "report.md", lines: bool = False) -> str:
    written = html.unescape((sweep / name).read_text(encoding="utf-8"))
    text = re.sub(r"\\([*_\[\]~$#+=-])", r"\1", written)
    return text if lines else " ".join(text.split())


def test_pages_and_table_say_the_same(tmp_path):
    sweep = grid(tmp_path)
    printed = write_sweep_report(sweep)
    page, markdown = Page(sweep / "report.html"), plain(sweep)
    assert page.open == []
    for said in conclusion(compare_jobs(read_sweep(sweep))):
        assert said in page.text
        assert said in markdown
        assert said in " ".join(printed.split())
    assert printed.endswith(str(sweep / "report.html"))
    assert "Determined by optimizer: optimizer.kind, optimizer.warmup_steps." in page.text
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
    assert f"| muon | 0.001 | 1 | finished (stopped early) | {float(rows[9]['best_val_loss']):.4f} |" in markdown
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
    assert "One job allows no comparison." in printed
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
    assert "model.layers, averaged over the other settings: the best value, " in " ".join(printed.split())
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
    assert refused.stderr.startswith(f"error: {sweep}/0: is a run folder, not a sweep folder")
    assert refused.stderr.count("\n") == 1


def test_a_folder_that_is_not_a_sweep(tmp_path):
    sweep = grid(tmp_path, seeds=[1])
    for folder, why in (
        (tmp_path, "not a sweep folder"),
        (tmp_path / "none", "no such folder"),
        (sweep / "0", "is a run folder"),
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
