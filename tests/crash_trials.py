"""Kill -9 at random moments: in sweeps with two jobs, and while results are written. `python tests/crash_trials.py 200` (kills, seed, one in so many in a sweep) writes results/reliability/kills_runs.csv; `crash_trials` is what the tests call."""
import os, random, shutil, signal, sys, tempfile, time
from pathlib import Path
import pandas as pd
import psutil
from coin_experiment import write_coin
from reliability_tables import record
from memnet.runs.execution import run_all
from memnet.runs.experiments import list_experiments
from memnet.runs.planning import plan_runs
from memnet.runs.records import check_run
from memnet.runs.tables import collect_runs, complete_runs, recorded_runs, survey_runs
from memnet.runs.verification import check_tables

VICTIMS = ("command", "command", "worker", "kernel")   # which of the three processes of a run is killed

def in_child(work):
    "Fork a process that does `work` and ends: the command that is killed, without its start-up time."
    pid = os.fork()
    if pid: return psutil.Process(pid)
    try:
        os.setsid()
        with open(os.devnull, "w") as nothing: os.dup2(nothing.fileno(), 1); os.dup2(nothing.fileno(), 2)
        work()
    finally: os._exit(0)

def end(child):
    "Wait for a forked process."
    try: os.waitpid(child.pid, 0)
    except ChildProcessError: pass

def victim_of(child, kind, rng):
    "The process that is killed: the command, or a worker or kernel below it if there is one."
    try: workers = child.children()
    except psutil.Error: return child
    if kind == "command" or not workers: return child
    worker = rng.choice(workers)
    try: kernels = worker.children()
    except psutil.Error: return child
    return worker if kind == "worker" or not kernels else rng.choice(kernels)

def family(child):
    try: return child.children(recursive=True)
    except psutil.Error: return []

def contents(folder): return {f.name: f.read_bytes() for f in sorted(folder.glob("*.csv"))}

class Sweeps:
    "Sweeps with two jobs, killed and begun again until they are complete."
    def __init__(self, root, rng, n_runs=4):
        self.rng, self.coin = rng, list_experiments(root)["coin"]
        self.runs = plan_runs(self.coin, [dict(throws=40, seed=s) for s in range(n_runs)], "custom")
        self.home = self.runs[0].folder.parent
        start = time.time()
        assert {o.status for o in run_all(self.runs, jobs=2)} == {"complete"}
        self.span, self.whole = time.time() - start, {r.folder.name: contents(r.folder) for r in self.runs}
        shutil.rmtree(self.home)

    def complete(self): return {r.folder.name: (r.folder/"environment.json").read_bytes() for r in self.runs if check_run(r.folder, r.code).state == "complete"}

    def half(self): return sum(contents(self.home/name) != self.whole[name] for name in self.complete())

    def kill(self):
        "One kill, and what is on disk then."
        before, kind, delay = self.complete(), self.rng.choice(VICTIMS), self.rng.uniform(0, .6*self.span)
        child = in_child(lambda: run_all(self.runs, jobs=2))
        try: child.wait(delay)
        except psutil.TimeoutExpired: pass
        below, victim = family(child), victim_of(child, kind, self.rng)
        try: victim.kill()
        except psutil.Error: pass
        if victim != child:
            try: child.wait(300)
            except psutil.TimeoutExpired: child.kill()
        end(child)
        _, orphans = psutil.wait_procs(below, timeout=60)
        after = self.complete()
        lost = sum(after.get(name) != record for name, record in before.items())
        row = dict(what="sweep", killed=kind if victim != child or kind == "command" else "command", after=round(delay, 2), complete=len(after), lost=lost, half=self.half(), orphans=len(orphans), different=0)
        if len(after) == len(self.runs): self.begin_again()
        return row

    def begin_again(self): shutil.rmtree(self.home)

    def finish(self):
        "Resume without a kill: the tables are those of the sweep that was never interrupted."
        run_all(self.runs, jobs=2)
        return {name: contents(self.home/name) for name in self.complete()} == self.whole

class Collections:
    "Results that are written again and again, from two sets of runs in turn, and killed in between."
    def __init__(self, root, rng):
        self.rng, self.coin, self.folder = rng, list_experiments(root)["coin"], root/"results"/"coin"
        runs = plan_runs(self.coin, [dict(throws=40, seed=s) for s in range(2)], "full")
        assert {o.status for o in run_all(runs, jobs=2)} == {"complete"}
        self.raw = runs[0].folder.parent, root/"_runs"/"fewer"/"coin"
        shutil.copytree(runs[0].folder, self.raw[1]/runs[0].folder.name)
        self.whole = [self.collect(i) for i in (1, 0)][::-1]
        self.metrics = {r.id: r.metrics for r in complete_runs(self.raw[0])}
        start = time.time()
        for i in range(4): self.collect(i % 2)
        self.span = (time.time() - start)/4

    def collect(self, which):
        "Write the tables of one set of runs; their bytes."
        collect_runs(self.coin, self.raw[which], replace=True)
        return {f.relative_to(self.folder).as_posix(): f.read_bytes() for f in self.folder.rglob("*") if f.is_file() and not f.name.startswith(".")}

    def kill(self):
        delay = self.rng.uniform(0, 2*self.span)
        child = in_child(lambda: [self.collect(i % 2) for i in range(1, 1000)])
        time.sleep(delay)
        child.kill()
        end(child)
        try: half = sum(not r.metrics.equals(self.metrics[r.id]) for r in recorded_runs(self.folder))
        except ValueError: half = 1
        try: different = (self.collect(0) != self.whole[0]) + len(check_tables(self.coin))
        except ValueError: different = 1
        return dict(what="results", killed="command", after=round(delay, 4), complete=2, lost=2 - len(survey_runs(self.raw[0], "").complete), half=half, orphans=0, different=different)

def crash_trials(
    n=200,         # kills
    seed=0,        # of moments and victims
    say=None,      # called with every row
    n_runs=4,      # of a sweep
    every=2,       # one kill in so many is in a sweep, the others are while results are written
):                 # a row for each kill; lost, half, orphans and different are 0 where all is well
    "Kill, look, resume, compare. The last row is the end of the last sweep."
    rng, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as scratch:
        root = write_coin(Path(scratch)/"checkout")
        sweeps, results = Sweeps(root, rng, n_runs), Collections(root, rng)
        for i in range(n):
            rows.append(dict(trial=i) | (results if (i + 1) % every else sweeps).kill())
            if say: say(rows[-1])
        rows.append(dict(trial=n, what="resume", killed="nothing", after=0, complete=len(sweeps.runs), lost=0, half=0, orphans=0, different=int(not sweeps.finish())))
    return pd.DataFrame(rows)

def faults(table):
    "The rows that must not be there."
    return table[table[["lost", "half", "orphans", "different"]].any(axis=1)]

if __name__ == "__main__":
    given = [*map(int, sys.argv[1:])]
    n, seed, every = (*given, *(200, 0, 2)[len(given):])
    table = crash_trials(n, seed, every=every, say=lambda row: print(*row.values(), flush=True))
    counts = table.groupby(["what", "killed"]).agg(times=("trial", "count"), **{f: (f, "sum") for f in ("lost", "half", "orphans", "different")}).reset_index()
    print(counts.to_string(index=False))
    record("kills_runs", counts, seed=seed)
    sys.exit(1 if len(faults(table)) else 0)
