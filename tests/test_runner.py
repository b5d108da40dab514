"""The runner from the command line: what it refuses, keeps, reports and replaces. One kernel start costs about two seconds."""
import json, platform, signal, subprocess, sys, time
import pytest
from memnet.runs import runner

@pytest.fixture
def root(tmp_path): return runner.toy_experiment(tmp_path/"checkout")

@pytest.fixture
def say(capsys, monkeypatch):
    "The command `memnet` in a wide terminal: exit code and what it printed."
    def call(root, *words):
        monkeypatch.setattr(runner, "console", runner.Console(width=300, soft_wrap=True))
        code = runner.main(list(words), root)
        return code, capsys.readouterr().out
    return call

def made(root): return sorted(f.name for f in (root/"results").rglob("*-s*-*") if f.is_dir())

@pytest.mark.parametrize("words, hint", [
    (["run", "coni"], "did you mean 'coin'"),
    (["run", "coin", "-p", "thorws", "3"], "did you mean 'throws'"),
    (["run", "coin", "-p", "throws", "many"], "throws must be int"),
    (["run", "coin", "-p", "bias", "0.1", "-p", "bias", "0.2"], "given twice"),
    (["sweep", "coin", "-p", "throws", "10,1.5"], "throws must be int"),
    (["sweep", "coin"], "at least one -p"),
    (["report", "coni"], "did you mean 'coin'"),
])
def test_refused_before_anything_runs(root, say, words, hint):
    code, out = say(root, *words)
    assert code == 2 and hint in out
    assert not (root/"results").exists() or not made(root)

def test_what_the_experiment_refuses_is_refused_before_anything_runs(root):
    module = root/"memnet"/"experiments"/"coin.py"
    module.write_text(module.read_text().replace("    fail: str", "    def __post_init__(self):\n        if self.throws < 1: raise ValueError(f'throws must be >= 1, got {self.throws}')\n    fail: str"))
    with pytest.raises(ValueError, match="throws must be >= 1, got 0"):
        runner.plan_runs(runner.list_experiments(root)["coin"], [dict(throws=5), dict(throws=0)])
    assert not (root/"results").exists()

def test_a_second_call_keeps_and_overwrite_replaces(root, say):
    code, out = say(root, "run", "coin", "--profile", "smoke")
    assert code == 0 and "1 made" in out and "kept" not in out
    (folder,) = (root/"results"/"smoke"/"coin").glob("0-s0-*")
    assert (root/"results"/"smoke"/"coin"/"figures"/"heads.svg").exists() and "heads.svg" in out and "Does the share" in out
    (folder/"metrics.csv").write_text((folder/"metrics.csv").read_text() + "mine,0,0,x,1,all\n")
    code, out = say(root, "run", "coin", "--profile", "smoke")
    assert code == 0 and "1 kept" in out and "made" not in out and "mine" in (folder/"metrics.csv").read_text()
    code, out = say(root, "run", "coin", "--profile", "smoke", "--overwrite")
    assert code == 0 and "1 made" in out and "mine" not in (folder/"metrics.csv").read_text()

def test_broken_runs_are_reported_and_the_others_go_on(root, say):
    code, out = say(root, "sweep", "coin", "-p", "fail", "die,raise,", "--jobs", "2")
    assert code == 1 and "1 made, 2 failed" in out
    assert "the kernel died" in out and "a coin on its edge" in out and out.count("`if cfg.fail") == 2
    home = root/"results"/"custom"/"coin"
    partial = [f for f in home.iterdir() if runner.run_status(f) == "partial"]
    assert len(partial) == 2 and all((f/"before.txt").exists() and (f/"_run.ipynb").exists() for f in partial)
    assert json.loads((partial[0]/"environment.json").read_text())["status"] == "failed"
    before = {f.name for f in partial}
    code, out = say(root, "sweep", "coin", "-p", "fail", "raise,")           # again: made again, the old one kept aside
    assert code == 1 and "1 kept" in out and "1 failed" in out
    aside = [f for f in home.glob("_partial-*")]
    assert len(aside) == 1 and any(n in aside[0].name for n in before) and (aside[0]/"before.txt").exists()

def test_same_interpreter_one_thread_and_nothing_private(root):
    nb = root/"nbs"/"experiments"/"coin_run.ipynb"
    probe = "import sys, os; (Path(out_dir)/'probe.txt').write_text(sys.executable + '|' + os.environ['OMP_NUM_THREADS'])"
    nb.write_text(nb.read_text().replace("if out_dir: run(cfg, out_dir)", probe + "; run(cfg, out_dir)"))
    coin = runner.list_experiments(root)["coin"]
    (outcome,) = runner.run_all(runner.plan_runs(coin, [dict(bias=1e-05)]))
    assert outcome.status == "complete", outcome.message
    folder = outcome.run.folder
    assert (folder/"probe.txt").read_text() == f"{sys.executable}|1"
    record = json.loads((folder/"environment.json").read_text())
    assert record["peak_memory_mb"] > 10 and record["seconds"] > 0 and record["python"]
    kept = "".join((folder/f).read_text() for f in ("_run.ipynb", "params.json", "environment.json"))
    assert str(root) not in kept
    assert platform.node() not in [str(v) for v in record.values()]
    assert json.loads((folder/"params.json").read_text())["config"]["bias"] == 1e-05
    assert runner.load_metrics("coin", root, "quick")["bias"].tolist() == [1e-05]

def test_interrupted_runs_say_how_to_go_on(root):
    nb = root/"nbs"/"experiments"/"coin_run.ipynb"
    nb.write_text(nb.read_text().replace("if out_dir: run(cfg, out_dir)", "import time; time.sleep(60 * cfg.seed); run(cfg, out_dir)"))
    call = "import sys; from memnet.runs.runner import main; from pathlib import Path; sys.exit(main(sys.argv[2:], Path(sys.argv[1])))"
    proc = subprocess.Popen([sys.executable, "-c", call, str(root), "sweep", "coin", "-p", "seed", "0,1,2"], stdout=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # whoever started the tests may have ignored it
    home, end = root/"results"/"custom"/"coin", time.time() + 60
    while not list(home.glob("1-s1-*/_run.ipynb")) and not list(home.glob("0-s1-*/_run.ipynb")) and time.time() < end: time.sleep(0.1)
    time.sleep(1)
    proc.send_signal(signal.SIGINT)
    out, _ = proc.communicate(timeout=40)
    assert proc.returncode == 1 and "1 made, 1 interrupted, 1 not begun" in out and "To go on: memnet sweep coin -p seed 0,1,2" in out
    states = {f.name.split("-")[1]: runner.run_status(f) for f in home.iterdir()}
    assert states == {"s0": "complete", "s1": "partial"}

def test_the_full_profile_replaces_the_reading_notebook_only_if_it_ran_through(root):
    coin = runner.list_experiments(root)["coin"]
    before = coin.read_nb.read_text()
    outcome = runner.report(coin, "full")                                    # no runs: groupby("throws") raises
    assert outcome.status == "failed" and "load_metrics" in outcome.message and coin.read_nb.read_text() == before

def test_outside_a_checkout_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.util, "find_spec", lambda name: type("Spec", (), dict(origin=str(tmp_path/"site"/"memnet"/"__init__.py"))))
    with pytest.raises(ValueError, match="clone the repository"): runner.find_root(tmp_path)

def test_bench_writes_its_tables(root):
    pytest.importorskip("memnet.models.memnet")
    times, summary = runner.bench(root, repeats=1, batch=(1, 16), dim=16, n_layers=1, n_heads=2, n_slots=8, chunk_size=8, window=8, topk=2, n_writes=2)
    assert len(times) == 2 and summary["ratio"][0] > 0
    assert sorted(f.name for f in (root/"results"/"bench").iterdir()) == ["environment.json", "summary.csv", "times.csv"]
