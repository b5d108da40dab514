"""The command `memnet`: what it refuses, keeps, reports, collects and verifies. One kernel start costs about two seconds."""
import json, platform, shutil, signal, subprocess, sys, time
import pytest
from coin_experiment import write_coin
from memnet.runs import command_line, experiments
from memnet.runs.benchmark import benchmark_memory, benchmark_slots
from memnet.runs.execution import run_all
from memnet.runs.planning import plan_runs
from memnet.runs.records import run_status
from memnet.runs.reports import execute_report
from memnet.runs.tables import load_metrics

@pytest.fixture
def root(tmp_path): return write_coin(tmp_path/"checkout")

@pytest.fixture
def command(capsys, monkeypatch):
    "The command `memnet` in a wide terminal: exit code and what it printed."
    def call(root, *words):
        monkeypatch.setattr(command_line, "_console", command_line.Console(width=300, soft_wrap=True))
        code = command_line.main(list(words), root)
        return code, capsys.readouterr().out
    return call

def made(root): return sorted(f.name for f in (root/"_runs").rglob("*-s*-*") if f.is_dir())

@pytest.mark.parametrize("words, hint", [
    (["run", "coni"], "did you mean 'coin'"),
    (["run", "coin", "-p", "thorws", "3"], "did you mean 'throws'"),
    (["run", "coin", "-p", "throws", "many"], "throws must be int"),
    (["run", "coin", "-p", "bias", "0.1", "-p", "bias", "0.2"], "given twice"),
    (["sweep", "coin", "-p", "throws", "10,1.5"], "throws must be int"),
    (["sweep", "coin"], "at least one -p"),
    (["report", "coni"], "did you mean 'coin'"),
])
def test_refused_before_anything_runs(root, command, words, hint):
    code, out = command(root, *words)
    assert code == 2 and hint in out
    assert not made(root)

def test_what_the_experiment_refuses_is_refused_before_anything_runs(root):
    module = root/"memnet"/"experiments"/"coin.py"
    module.write_text(module.read_text().replace("    fail: str", "    def __post_init__(self):\n        if self.throws < 1: raise ValueError(f'throws must be >= 1, got {self.throws}')\n    fail: str"))
    with pytest.raises(ValueError, match="throws must be >= 1, got 0"):
        plan_runs(experiments.list_experiments(root)["coin"], [dict(throws=5), dict(throws=0)])
    assert not made(root)

def test_a_second_call_keeps_and_overwrite_replaces(root, command):
    code, out = command(root, "run", "coin", "--profile", "smoke")
    assert code == 0 and "1 made" in out and "kept as" not in out
    (folder,) = (root/"_runs"/"smoke"/"coin").glob("0-s0-*")
    assert (root/"_runs"/"smoke"/"coin"/"figures"/"heads.svg").exists() and "heads.svg" in out and "Does the share" in out
    before = (folder/"environment.json").read_bytes()
    code, out = command(root, "run", "coin", "--profile", "smoke")
    assert code == 0 and "1 kept" in out and "1 made" not in out and (folder/"environment.json").read_bytes() == before
    code, out = command(root, "run", "coin", "--profile", "smoke", "--overwrite")
    assert code == 0 and "1 made" in out and (folder/"environment.json").read_bytes() != before
    assert [f.name for f in folder.parent.iterdir() if f.is_dir()] in (["figures", folder.name], [folder.name, "figures"])   # what was replaced is gone

def test_broken_runs_are_reported_and_the_others_go_on(root, command):
    code, out = command(root, "sweep", "coin", "-p", "fail", "die,raise,", "--jobs", "2")
    assert code == 1 and "1 made, 2 failed" in out
    assert "the kernel died" in out and "a coin on its edge" in out and out.count("`if cfg.fail") == 2
    home = root/"_runs"/"custom"/"coin"
    partial = [f for f in home.iterdir() if run_status(f) == "partial"]
    assert len(partial) == 2 and all((f/"before.txt").exists() and (f/"_run.ipynb").exists() for f in partial)
    assert json.loads((partial[0]/"environment.json").read_text())["status"] == "failed"
    before = {f.name for f in partial}
    code, out = command(root, "sweep", "coin", "-p", "fail", "raise,")           # again: made again, the old one kept aside
    assert code == 1 and "1 kept" in out and "1 failed" in out
    aside = [f for f in home.glob("_partial-*")]
    assert len(aside) == 1 and any(n in aside[0].name for n in before) and (aside[0]/"before.txt").exists()

def test_same_interpreter_one_thread_and_nothing_private(root):
    nb = root/"nbs"/"experiments"/"coin_run.ipynb"
    probe = "import sys, os; (Path(out_dir)/'probe.txt').write_text(sys.executable + '|' + os.environ['OMP_NUM_THREADS'])"
    nb.write_text(nb.read_text().replace("if out_dir: run(cfg, out_dir)", probe + "; run(cfg, out_dir)"))
    coin = experiments.list_experiments(root)["coin"]
    (outcome,) = run_all(plan_runs(coin, [dict(bias=1e-05)]))
    assert outcome.status == "complete", outcome.message
    folder = outcome.run.folder
    assert (folder/"probe.txt").read_text() == f"{sys.executable}|1"
    record = json.loads((folder/"environment.json").read_text())
    took = record["seconds"]
    assert record["peak_memory_mb"] > 10 and took > 0 and record["python"]
    kept = "".join((folder/f).read_text() for f in ("_run.ipynb", "params.json", "environment.json"))
    assert str(root) not in kept
    assert platform.node() not in [str(v) for v in record.values()]
    assert json.loads((folder/"params.json").read_text())["config"]["bias"] == 1e-05
    assert load_metrics("coin", root, "quick")["bias"].tolist() == [1e-05]

def test_interrupted_runs_say_how_to_go_on(root):
    nb = root/"nbs"/"experiments"/"coin_run.ipynb"
    nb.write_text(nb.read_text().replace("if out_dir: run(cfg, out_dir)", "import time; time.sleep(60 * cfg.seed); run(cfg, out_dir)"))
    call = "import sys; from memnet.runs.command_line import main; from pathlib import Path; sys.exit(main(sys.argv[2:], Path(sys.argv[1])))"
    proc = subprocess.Popen([sys.executable, "-c", call, str(root), "sweep", "coin", "-p", "seed", "0,1,2"], stdout=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # whoever started the tests may have ignored it
    home, end = root/"_runs"/"custom"/"coin", time.time() + 60
    while not list(home.glob("1-s1-*/_run.ipynb")) and not list(home.glob("0-s1-*/_run.ipynb")) and time.time() < end: time.sleep(0.1)
    time.sleep(1)
    proc.send_signal(signal.SIGINT)
    out, _ = proc.communicate(timeout=40)
    assert proc.returncode == 130 and "1 made, 1 interrupted, 1 not begun" in out and "To go on: memnet sweep coin -p seed 0,1,2" in out
    states = {f.name.split("-")[1]: run_status(f) for f in home.iterdir()}
    assert states == {"s0": "complete", "s1": "partial"}

def test_the_full_profile_replaces_the_reading_notebook_only_if_it_ran_through(root):
    coin = experiments.list_experiments(root)["coin"]
    before = coin.read_nb.read_text()
    outcome = execute_report(coin, "full")                                    # no runs: groupby("throws") raises
    assert outcome.status == "failed" and "load_metrics" in outcome.message and coin.read_nb.read_text() == before

def test_outside_a_checkout_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments.util, "find_spec", lambda name: type("Spec", (), dict(origin=str(tmp_path/"site"/"memnet"/"__init__.py"))))
    with pytest.raises(ValueError, match="clone the repository"): experiments.find_root(tmp_path)

def test_bench_writes_its_tables(root):
    pytest.importorskip("memnet.models.memnet")
    times, summary = benchmark_memory(root, repeats=1, batch=(1, 16), dim=16, n_layers=1, n_heads=2, n_slots=8, chunk_size=8, window=8, topk=2, n_writes=2)
    assert len(times) == 2 and summary["ratio"][0] > 0
    assert sorted(f.name for f in (root/"results"/"bench").iterdir()) == ["environment.json", "summary.csv", "times.csv"]

def test_bench_measures_slots(root):
    pytest.importorskip("memnet.models.memnet")
    table = benchmark_slots(root, repeats=1, sizes=(16, 40), n_tokens=8)
    assert len(table) == 6 and (table["ms_per_token"] > 0).all() and (table["held_bytes"] >= table["state_bytes"]).all()
    assert sorted(f.name for f in (root/"results"/"bench").iterdir()) == ["slots.csv", "slots_environment.json"]

def test_a_fresh_clone_keeps_the_committed_runs(root, command):
    assert command(root, "run", "coin", "--profile", "full", "--seeds", "2", "--jobs", "2")[0] == 0
    before = {f.name: f.read_bytes() for f in (root/"results"/"coin").rglob("*") if f.is_file()}
    assert {"metrics.parquet", "runs.csv", "digests.json", "summary.csv", "heads.svg", "sides.parquet"} == set(before)
    shutil.rmtree(root/"_runs")
    code, out = command(root, "run", "coin", "--profile", "full", "--seeds", "2")
    assert code == 0 and "6 kept" in out and "made" not in out.split("kept")[0] and not made(root)
    assert {f.name: f.read_bytes() for f in (root/"results"/"coin").rglob("*") if f.is_file()} == before
    code, out = command(root, "run", "coin", "--profile", "full", "--seeds", "3", "--jobs", "2")             # one seed more joins them
    assert code == 0 and "3 made, 6 kept" in out and len(made(root)) == 3 and len(load_metrics("coin", root, "full")) == 9
    assert command(root, "verify")[0] == 0

def test_verify_names_what_does_not_agree(root, command):
    assert command(root, "run", "coin", "--profile", "full", "--seeds", "1", "--jobs", "2")[0] == 0
    summary = root/"results"/"coin"/"summary.csv"
    summary.write_text(summary.read_text().replace("2000,", "2001,"))
    (root/"README.md").write_text("2 <!-- results/coin/summary.csv: throws=20; count -->\n")
    code, out = command(root, "verify", "coin")
    assert code == 1 and "summary.csv: row 3, throws: 2001, computed again 2000" in out and "README.md, line 1: 2 in the text, 1 in" in out and "2 disagree" in out
