"""Nothing finished is lost, nothing half-written is taken for whole: kills, signals, full disks, two at once, damaged files, other code."""
import errno, json, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path
import psutil, pytest
import crash_trials
from coin_experiment import write_coin
from memnet.foundations import files
from memnet.runs import execution, tables
from memnet.runs.execution import run_all
from memnet.runs.experiments import list_experiments, load_module
from memnet.runs.planning import plan_runs
from memnet.runs.records import check_run
from memnet.runs.tables import collect_runs, load_metrics
from memnet.runs.verification import check_tables
from test_runner import command, root  # fixtures

CALL = "import sys; from memnet.runs.command_line import main; from pathlib import Path; sys.exit(main(sys.argv[2:], Path(sys.argv[1])))"

def coin(root): return list_experiments(root)["coin"]
def slow_coin(root):
    "A coin whose last cell waits for a file, so that there is time to disturb it."
    nb = root/"nbs"/"experiments"/"coin_run.ipynb"
    nb.write_text(nb.read_text().replace("if out_dir: run(cfg, out_dir)", "open(Path(out_dir)/'begun', 'w').close()\\nwhile not Path('go').exists(): time.sleep(.1)\\nrun(cfg, out_dir)"))

def until(true, seconds=120):
    "Wait for something."
    end = time.time() + seconds
    while not true():
        if time.time() > end: raise TimeoutError("it did not happen")
        time.sleep(.05)

def gone(pids, seconds=60): return not psutil.wait_procs([p for p in pids], timeout=seconds)[1]

# --- kill -9
def test_killed_at_random_moments_nothing_is_lost_or_half():
    table = crash_trials.crash_trials(10, seed=7, n_runs=2, every=5)   # 200 kills: python tests/crash_trials.py 200
    assert len(table) == 11 and not len(crash_trials.faults(table)), crash_trials.faults(table).to_string()

def test_the_trials_find_a_writer_that_is_not_safe(tmp_path, monkeypatch):
    results = crash_trials.Collections(write_coin(tmp_path/"checkout"), crash_trials.random.Random(0))
    def in_place(path, write):
        write(path.with_name("whole"))
        content = path.with_name("whole").read_bytes()
        with open(path, "wb", buffering=0) as f:
            for i in range(0, len(content), 1 + len(content)//4): f.write(content[i:i + 1 + len(content)//4]); time.sleep(.02)
    from memnet.runs import result_files
    monkeypatch.setattr(result_files, "replace_file", in_place)
    monkeypatch.setattr(results, "span", .3)
    found = [results.kill() for _ in range(6)]
    assert any(row["half"] or row["different"] for row in found)

# --- signals
@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGINT]], ids=lambda s: "-".join(x.name for x in s))
def test_every_signal_ends_the_whole_family_and_says_so(root, signals):
    slow_coin(root)
    runs = plan_runs(coin(root), [dict(seed=0), dict(seed=1)], "custom")
    def work():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        (root/"ended").write_text(json.dumps([o.status for o in run_all(runs)]))
    child = crash_trials.in_child(work)
    until((runs[0].folder/"begun").exists)
    below = child.children(recursive=True)
    assert len(below) == 2
    for s in signals: child.send_signal(s); time.sleep(.3)
    crash_trials.end(child)
    assert gone(below) and json.loads((root/"ended").read_text()) == ["interrupted", "not begun"]
    assert json.loads((runs[0].folder/"environment.json").read_text())["status"] == "interrupted" and check_run(runs[0].folder).state == "unfinished"
    assert not execution.runs_in_use(runs)

def test_interrupted_when_all_is_made_it_does_not_go_on_as_if_nothing_were(root, monkeypatch):
    (run,) = plan_runs(coin(root), [{}], "custom")
    def interrupt(done, busy):
        if done: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): run_all([run], progress=interrupt)
    assert check_run(run.folder, run.code).state == "complete"

# --- two at once
def test_two_of_the_same_do_not_meet(root):
    slow_coin(root)
    words = [sys.executable, "-c", CALL, str(root), "run", "coin", "--profile", "smoke"]
    first = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    home = root/"_runs"/"smoke"/"coin"
    until(lambda: list(home.glob("*/begun")) or first.poll() is not None)
    second = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    assert second.returncode == 2 and f"is being made by process {first.pid}, at work since" in second.stdout and "--wait" in second.stdout
    (root/"nbs"/"experiments"/"go").touch()
    out, _ = first.communicate()
    assert first.returncode == 0 and "1 made" in out and not list(home.glob("_*-s0-*"))

# --- full disk
def test_a_full_disk_is_said_and_nothing_counts_as_complete(root, monkeypatch):
    nb = root/"nbs"/"experiments"/"coin_run.ipynb"
    whole = nb.read_text()
    nb.write_text(whole.replace("if out_dir: run(cfg, out_dir)", "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\\nif out_dir: run(cfg, out_dir)".replace("\\\\n", "\\n")))
    (run,) = plan_runs(coin(root), [{}], "custom")
    (outcome,) = run_all([run])
    assert outcome.status == "failed" and "File too large" in outcome.message and check_run(run.folder).state != "complete"
    nb.write_text(whole)
    (run,) = plan_runs(coin(root), [{}], "custom")
    write, full = execution.write_json, OSError(errno.ENOSPC, "No space left on device")
    def refuse(path, content):
        if content.get("status") == "complete": raise full
        write(path, content)
    monkeypatch.setattr(execution, "write_json", refuse)
    (outcome,) = run_all([run])
    assert outcome.status == "failed" and "No space left on device" in outcome.message and check_run(run.folder).state == "unfinished"
    def refuse_all(path, content): raise full
    monkeypatch.setattr(execution, "write_json", refuse_all)
    (outcome,) = run_all([run])
    assert outcome.status == "failed" and "could not be started" in outcome.message and not execution.runs_in_use([run])

# --- damaged files, other code, another memnet
@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    "A checkout in which everything of the full profile is made and collected: copied, since it takes kernels to make."
    root = write_coin(tmp_path_factory.mktemp("complete")/"checkout")
    runs = plan_runs(coin(root), [dict(throws=20, seed=s) for s in range(2)], "full")
    assert {o.status for o in run_all(runs, jobs=2)} == {"complete"}
    collect_runs(coin(root))
    return root

@pytest.fixture
def copied(complete, tmp_path): return Path(shutil.copytree(complete, tmp_path/"checkout"))

HALF, GONE, FOREIGN = (lambda b: b[:len(b)//2]), (lambda b: None), (lambda b: b"[1, 2]\n")
FLIPPED = lambda b: b[:-4] + bytes([b[-4] ^ 1]) + b[-3:]

def damage(path, change):
    content = change(path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)

@pytest.mark.parametrize("change", [HALF, FLIPPED, GONE, FOREIGN], ids=["half", "flipped", "gone", "foreign"])
@pytest.mark.parametrize("file", ["params.json", "environment.json", "metrics.csv", "sides.csv"])
def test_a_damaged_run_is_named_and_does_not_count(copied, command, file, change):
    folder = sorted((copied/"_runs"/"full"/"coin").glob("*-s0-*"))[0]
    shutil.rmtree(copied/"results"/"coin")                     # what is recorded would be kept
    damage(folder/file, change)
    (run,) = plan_runs(coin(copied), [dict(throws=20, seed=0)], "full")
    if file == "environment.json" and change is FLIPPED: return    # a flipped bit of a time or of a version is no damage to numbers
    assert run.folder == folder and check_run(folder, run.code).state in ("unfinished", "damaged", "changed") and not execution._is_made(run, False)
    code, out = command(copied, "list")
    assert code == 0 and folder.name in out and "does not count" in out
    code, out = command(copied, "collect", "coin")
    assert (code, folder.name in out) == ((2, True) if check_run(folder).state == "changed" else (0, False))
    code, out = command(copied, "verify", "coin", "--tables-only")
    assert code in (0, 1) and "Traceback" not in out

def test_a_damaged_run_is_set_aside_and_made_again(copied):
    folder = sorted((copied/"_runs"/"full"/"coin").glob("*-s0-*"))[0]
    shutil.rmtree(copied/"results"/"coin")
    before = load_metrics("coin", copied, "full")
    damage(folder/"metrics.csv", HALF)
    with pytest.raises(ValueError, match="metrics.csv is not the file that was recorded; call memnet run coin"): load_metrics("coin", copied, "full")
    outcomes = run_all(plan_runs(coin(copied), [dict(throws=20, seed=s) for s in range(2)], "full"))
    assert sorted(o.status for o in outcomes) == ["complete", "kept"] and "kept as _partial-" in next(o.message for o in outcomes if o.status == "complete")
    assert load_metrics("coin", copied, "full").equals(before) and len(list(folder.parent.glob("_partial-*"))) == 1

@pytest.mark.parametrize("change", [HALF, FLIPPED, FOREIGN], ids=["half", "flipped", "foreign"])
@pytest.mark.parametrize("file", ["metrics.parquet", "runs.csv", "digests.json", "artifacts/sides.parquet"])
def test_a_damaged_result_is_named_by_every_reader(copied, command, file, change):
    shutil.rmtree(copied/"_runs")
    damage(copied/"results"/"coin"/file, change)
    assert any(file in line or "digests" in file for line in check_tables(coin(copied)))
    code, out = command(copied, "verify", "coin", "--tables-only")
    assert code == 1 and "results/coin" in out
    assert command(copied, "list")[0] == 0
    reader = tables.load_tables if file.startswith("artifacts") else tables.load_metrics
    arguments = ("coin", "sides.csv", copied, "full") if file.startswith("artifacts") else ("coin", copied, "full")
    with pytest.raises(ValueError, match="results.coin"): reader(*arguments)

def test_a_changed_constant_makes_the_old_runs_outdated(copied, command):
    shutil.rmtree(copied/"results"/"coin")
    settings = [dict(throws=20, seed=s) for s in range(2)]
    assert all(execution._is_made(r, False) for r in plan_runs(coin(copied), settings, "full"))
    for file in (copied/"memnet"/"experiments"/"coin.py", copied/"nbs"/"experiments"/"coin_run.ipynb"):
        before = file.read_text()
        file.write_text(before.replace("coins thrown", "coins that are thrown"))
        assert all(execution._is_made(r, False) for r in plan_runs(coin(copied), settings, "full"))       # a comment
        file.write_text(before.replace("bias: float = 0.5", "bias: float = 0.50"))
        assert {check_run(r.folder, r.code).state for r in plan_runs(coin(copied), settings, "full")} == {"outdated"}
        file.write_text(before)

def test_tables_made_by_other_code_are_said_and_still_right(copied, command):
    module = copied/"memnet"/"experiments"/"coin.py"
    module.write_text(module.read_text().replace("rng.random() < cfg.bias", "rng.random() <= cfg.bias"))
    code, out = command(copied, "verify", "coin", "--tables-only")
    assert code == 0 and "note: results/coin: 2 of 2 runs were made by other code" in out

def test_a_kernel_that_imports_another_memnet_is_noticed(root, tmp_path, monkeypatch):
    nb = root/"nbs"/"experiments"/"coin_run.ipynb"
    nb.write_text(nb.read_text().replace("import csv, os, random, time", "import csv, os, random, time; import memnet.foundations.validation"))
    (run,) = plan_runs(coin(root), [{}], "custom")
    package = Path(files.__file__).parents[1]
    other = Path(shutil.copytree(package, tmp_path/"other"/"memnet", ignore=shutil.ignore_patterns("__pycache__")))/"foundations"/"validation.py"
    other.write_text(other.read_text().replace("IGNORE_INDEX = -100", "IGNORE_INDEX = -1"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path/"other"))
    (outcome,) = run_all([run])
    assert outcome.status == "failed" and "another memnet.foundations.validation than this checkout has" in outcome.message
    monkeypatch.delenv("PYTHONPATH")
    (outcome,) = run_all([run])
    kernel = json.loads((run.folder/"environment.json").read_text())["kernel"]
    assert outcome.status == "complete" and kernel["same_python"] and list(kernel["modules"]) == ["memnet.foundations.files", "memnet.foundations.validation"]

# --- other notebooks, other alphabets
def test_a_half_written_notebook_stops_nothing(root, command):
    (root/"nbs"/"experiments"/"other_run.ipynb").write_text('{"cells": [{"cell_type": "co')
    (root/"memnet"/"experiments"/"other.py").write_text("def settings(")
    code, out = command(root, "list")
    assert code == 0 and "coin" in out and "other_run.ipynb" in out and "passed over" in out
    code, out = command(root, "run", "other")
    assert code == 2 and "other_run.ipynb" in out
    assert [e for e in list_experiments(root)] == ["coin"] and load_module(coin(root)).Config

def test_the_reason_of_a_failure_survives_any_locale(root, monkeypatch):
    monkeypatch.setenv("LC_ALL", "POSIX"); monkeypatch.setenv("PYTHONIOENCODING", "ascii"); monkeypatch.setenv("PYTHONUTF8", "0")
    nb = root/"nbs"/"experiments"/"coin_run.ipynb"
    nb.write_text(nb.read_text(encoding="utf-8").replace("a coin on its edge", "größer ≥ 3, 硬币"), encoding="utf-8")
    (run,) = plan_runs(coin(root), [dict(fail="raise")], "custom")
    (outcome,) = run_all([run])
    assert outcome.message.endswith("RuntimeError: größer ≥ 3, 硬币")
    assert "größer ≥ 3" in json.loads((run.folder/"environment.json").read_text(encoding="utf-8"))["message"]
