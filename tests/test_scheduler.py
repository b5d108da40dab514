"""Runs on the workers of a real Dask scheduler: a worker, the command and the scheduler killed in the middle of a run. Where dask is not installed they are skipped, and say so."""
import json, os, signal, subprocess, sys
from pathlib import Path
import psutil, pytest
from coin_experiment import write_coin
from crash_trials import end, in_child
from memnet.runs import scheduler as scheduling
from memnet.runs.execution import run_lock, runs_in_use
from memnet.runs.planning import plan_runs
from memnet.runs.records import check_run
from memnet.runs.scheduler import run_on_workers
from test_crash_safety import coin, gone, slow_coin, until
from test_runner import command, root  # fixtures

ROOT = Path(__file__).resolve().parent.parent

class Cluster:
    "A scheduler and workers that see different GPUs."
    def __init__(self, folder, n):
        pytest.importorskip("distributed", reason="dask is not installed: pip install 'memnet[scale]'")
        self.file, self.processes = folder/"scheduler.json", []
        self.scheduler = self.start("scheduler", "--port", "0", "--host", "127.0.0.1")
        self.workers = [self.worker(gpu=i) for i in range(n)]
        until(self.file.exists)
        self.address = json.loads(self.file.read_text())["address"]

    def worker(self, gpu=""): return self.start("worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(self.file.parent), gpu=gpu)

    def start(self, what, *words, gpu=""):
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.processes.append(subprocess.Popen([sys.executable, "-m", f"distributed.cli.dask_{what}", *words, "--no-dashboard", "--scheduler-file", str(self.file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                               env=os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": str(gpu)}))
        return self.processes[-1]

    def call(self, runs, out):
        "Make runs in a forked process, which notes how they ended."
        def work():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try: said = [[o.run.id, o.status] for o in run_on_workers(runs, self.address)]
            except Exception as e: said = f"{type(e).__name__}: {e}"
            out.write_text(json.dumps(said))
        return in_child(work)

    def end(self):
        for p in self.processes: p.kill()
        for p in self.processes: p.wait()

@pytest.fixture
def cluster(tmp_path):
    made = []
    def make(n): made.append(Cluster(tmp_path, n)); return made[0]
    yield make
    for c in made: c.end()

def begun(run): return (run.folder/"begun").exists()
def seen(root):
    "Let the slow coin write down what its kernel was given."
    nb = root/"nbs"/"experiments"/"coin_run.ipynb"
    nb.write_text(nb.read_text().replace("open(Path(out_dir)/'begun', 'w').close()", "Path(out_dir, 'begun').write_text(' '.join(os.environ[n] for n in ('OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES')))"))

def test_a_worker_that_is_killed_loses_the_run_that_it_made_and_another_makes_it_again(root, tmp_path, cluster):
    slow_coin(root); seen(root)
    two = cluster(2)
    runs = plan_runs(coin(root), [dict(seed=s) for s in range(3)], "custom")
    child = two.call(runs, tmp_path/"said")
    until(lambda: sum(map(begun, runs)) == 2)
    one, other = [r for r in runs if begun(r)]
    pids = {r.id: run_lock(r).holder().pid for r in (one, other)}
    assert {p.pid for p in two.workers} == set(pids.values()) and sorted((r.folder/"begun").read_text() for r in (one, other)) == ["1 0", "1 1"]
    victim = psutil.Process(pids[one.id])
    below = victim.children(recursive=True)
    assert len(below) == 2
    victim.kill()
    assert gone(below) and check_run(one.folder).state == "unfinished"
    (root/"nbs"/"experiments"/"go").touch()
    end(child)
    assert sorted(json.loads((tmp_path/"said").read_text())) == sorted([r.id, "complete"] for r in runs)
    assert [check_run(r.folder, r.code).state for r in runs] == ["complete"]*3 and not runs_in_use(runs)
    assert [f.name.split("-")[1:-1] for f in one.folder.parent.glob("_partial-*")] == [one.folder.name.split("-")]   # only its run was begun twice
    assert {(r.folder/"begun").read_text() for r in (one, other)} == {(other.folder/"begun").read_text()}

def test_what_is_begun_ends_with_the_command_the_worker_or_the_scheduler(root, tmp_path, cluster):
    slow_coin(root)
    alone, said, go = cluster(1), tmp_path/"said", root/"nbs"/"experiments"/"go"
    for i, stop in enumerate(("interrupt the command", "kill the command", "end the worker", "kill the scheduler")):
        runs = plan_runs(coin(root), [dict(seed=2*i), dict(seed=2*i + 1)], "custom")
        child = alone.call(runs, said)
        until(lambda: any(map(begun, runs)))
        run, other = sorted(runs, key=begun, reverse=True)
        below = psutil.Process(alone.workers[-1].pid).children(recursive=True)
        assert len(below) == 2
        if stop == "interrupt the command": child.send_signal(signal.SIGINT)
        elif stop == "end the worker": alone.workers[-1].terminate()   # as a batch system does when its time is over
        else: (child if stop == "kill the command" else alone.scheduler).kill()
        assert gone(below), stop
        if stop == "end the worker":
            assert check_run(run.folder).state == "unfinished"
            go.touch()
            alone.workers.append(alone.worker())
        end(child)
        until(lambda: not runs_in_use(runs))
        if stop == "end the worker":
            assert sorted(json.loads(said.read_text())) == sorted([r.id, "complete"] for r in runs)
            go.unlink()
            continue
        assert check_run(run.folder).state == "unfinished" and not other.folder.exists(), stop
        if stop == "interrupt the command": assert sorted(json.loads(said.read_text())) == sorted([[run.id, "interrupted"], [other.id, "not begun"]])
        if stop == "kill the scheduler": assert "ConnectionError" in json.loads(said.read_text())
        assert json.loads((run.folder/"environment.json").read_text())["status"] == "interrupted", stop

def test_refused_before_anything_is_begun(root, command, monkeypatch):
    for words, said in (["--scheduler", "tcp://127.0.0.1:1"], "no scheduler answers at tcp://127.0.0.1:1"), (["--scheduler", "tcp://127.0.0.1:1", "--jobs", "2"], "leave out --jobs"):
        if "jobs" not in said: pytest.importorskip("distributed", reason="dask is not installed: pip install 'memnet[scale]'")
        code, out = command(root, "sweep", "coin", "-p", "throws", "9", *words)
        assert code == 2 and said in out
    for name in ("dask", "distributed"): monkeypatch.setitem(sys.modules, name, None)
    code, out = command(root, "run", "coin", "--scheduler", "tcp://127.0.0.1:1")
    assert code == 2 and "pip install 'memnet[scale]'" in out and not list((root/"_runs").glob("*/coin/*-s*-*"))

class Client:
    "A client whose workers see what the test gives them."
    def __init__(self, answer): self.answer = answer
    def run(self, function, exps, on_error): return {"tcp://a:1": self.answer(exps)}

def test_a_worker_with_other_code_is_refused(root):
    runs = plan_runs(coin(root), [{}], "custom")
    assert scheduling._require_same_code(Client(scheduling._code_there), runs) == 1
    for answer, said in (lambda exps: dict(coin="0"*16), "every machine must see the same checkout"), (lambda exps: ModuleNotFoundError("memnet"), "cannot take part"):
        with pytest.raises(ValueError, match=f"tcp://a:1 .*{said}"): scheduling._require_same_code(Client(answer), runs)
