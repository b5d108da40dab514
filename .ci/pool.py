"""Every chapter, every test, types and committed tables in one pool of jobs over the cores; `check.py pool` runs it.

A notebook is one job, a file of tests is one job, a file of tests that takes long is several. The longest begin first, by the processor
seconds in seconds.csv. Each job is a process of its own with one thread, forked from this one, which has loaded what most of them load.

    python .ci/check.py pool                        # all
    python .ci/check.py pool memory test_model      # the jobs whose name holds one of the words
    python .ci/check.py pool --record               # write the seconds down
"""
import os
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"): os.environ[_name] = "1"   # before anything is loaded
os.environ["MEMNET_POOL"] = str(os.getpid())   # by this, what a job started is known for ours
os.environ["IN_TEST"] = "1"

import argparse, ast, csv, ctypes, gc, importlib, shutil, signal, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT/".ci"/"seconds.csv"
LOADED = ("numpy", "pandas", "torch", "numba", "scipy.stats", "IPython", "matplotlib.pyplot", "nbdev.test", "execnb.shell", "pytest", "hypothesis", "networkx", "nbformat")
LONGEST = 25.   # seconds from which on a file of tests is several jobs
LIMIT = 3600    # seconds after which a job counts as endless
MEMNET = str(Path(sys.executable).parent/"memnet")
COMMANDS = {f"kernels {p}": [MEMNET, "warmup", "--precision", p] for p in ("float32", "float64")}   # first: in a fresh clone every job that needs them would compile them for itself
COMMANDS |= {"types": [sys.executable, "-m", "mypy"], "verify": [MEMNET, "verify", "--tables-only"]}
WITHOUT_KERNELS = ("types", "nbs/text")   # what may run beside that


# --- what there is to do
def recorded():
    "Job or test -> seconds."
    if not TABLE.exists(): return {}
    with TABLE.open() as f: return {r["name"]: float(r["seconds"]) for r in csv.DictReader(f)}

def notebooks():
    "Every notebook that nbdev would test, as a name below the root."
    found = [*ROOT.glob("*.ipynb"), *ROOT.glob("nbs/*.ipynb"), *ROOT.glob("nbs/*/*.ipynb"), *ROOT.glob("papers/*.ipynb")]
    return sorted(str(f.relative_to(ROOT)) for f in found if not f.name.startswith((".", "_")))

def test_functions(file):
    "The functions of a file of tests, in order."
    tree = ast.parse((ROOT/file).read_text(encoding="utf-8"))
    return [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]

def shares(file, seconds):
    "A file of tests as one job or several: lists of its functions, neighbours together."
    names = test_functions(file)
    took = {n: seconds.get(f"{file}::{n}", 1.) for n in names}
    if sum(took.values()) <= LONGEST: return [names]
    parts, left = [], 0.
    for n in names:
        if not parts or left < took[n]:
            parts.append([])
            left = LONGEST
        parts[-1].append(n)
        left -= took[n]
    return parts

def all_jobs(seconds=None):
    "(name, kind, target, seconds expected), the longest first. The last job of a file of tests takes whatever the others do not name."
    seconds = recorded() if seconds is None else seconds
    jobs = [(nb, "chapter", nb, seconds.get(nb, (ROOT/nb).stat().st_size/2e4)) for nb in notebooks()]
    for f in sorted((ROOT/"tests").glob("test_*.py")):
        file = str(f.relative_to(ROOT))
        parts = shares(file, seconds)
        for i, names in enumerate(parts):
            others = [f"--deselect={file}::{n}" for part in parts[:i] for n in part]
            target = [f"{file}::{n}" for n in names] if i + 1 < len(parts) else [file, *others]
            expected = sum(seconds.get(f"{file}::{n}", 1.) for n in names)
            jobs.append((file if len(parts) == 1 else f"{file} ({i + 1} of {len(parts)})", "tests", target, expected))
    jobs += [(name, "command", words, seconds.get(name, 30.)) for name, words in COMMANDS.items()]
    return sorted(jobs, key=lambda j: (not j[0].startswith("kernels"), -j[3]))


# --- one job, in its process
class Durations:
    "A pytest plugin: processor seconds by function of a test."
    def __init__(self): self.seconds, self.before = {}, 0.
    def pytest_runtest_logstart(self, nodeid): self.before = processor_seconds()
    def pytest_runtest_logfinish(self, nodeid):
        name = nodeid.split("[")[0]
        self.seconds[name] = self.seconds.get(name, 0.) + processor_seconds() - self.before

def processor_seconds(): return sum(os.times()[:4])   # own and of children that have ended

def run_chapter(target):
    from nbdev.test import test_nb
    return test_nb(ROOT/target, skip_flags=["slow", "gpu"], basepath=ROOT)[0]

def run_tests(target, times):
    import pytest
    durations = Durations()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *target], plugins=[durations])
    times.write_text("".join(f"{n},{s:.2f}\n" for n, s in durations.seconds.items()))
    return code == 0

RUNNERS = {"chapter": lambda target, folder: run_chapter(target), "tests": lambda target, folder: run_tests(target, folder/"times.csv"), "command": lambda target, folder: os.execv(target[0], target)}

def in_child(kind, target, folder):
    "Become the process of a job; never comes back."
    os.setsid()
    if sys.platform == "linux": ctypes.CDLL(None).prctl(1, signal.SIGKILL)   # ends with this pool, however that ends
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    out = os.open(folder/"out.txt", os.O_WRONLY | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for there, fd in ((nothing, 0), (out, 1), (out, 2)): os.dup2(there, fd)
    os.environ["TMPDIR"] = str(folder/"tmp")
    tempfile.tempdir = None
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    ok = False
    try: ok = RUNNERS[kind](target, folder)
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(0 if ok else 1)


# --- the pool
def cores(): return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

def load():
    "What most jobs load, once."
    sys.path.insert(0, str(ROOT))
    import matplotlib
    matplotlib.use("Agg")
    for name in LOADED:
        try: importlib.import_module(name)
        except ImportError: pass
    import torch
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()

def begin(job, folder):
    "Start a job; gives its process id."
    (folder/"tmp").mkdir(parents=True)
    sys.stdout.flush(); sys.stderr.flush()
    pid = os.fork()
    if pid == 0: in_child(job[1], job[2], folder)
    return pid

def end_group(pid):
    "End what is left of a job's group; true where something was."
    try: os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError): return False
    return True

def end_rest():
    "End every process that carries our mark: children that went into sessions of their own."
    import psutil
    for p in psutil.process_iter():
        try:
            if p.pid != os.getpid() and p.environ().get("MEMNET_POOL") == str(os.getpid()): p.kill()
        except psutil.Error: pass

class Screen:
    "One line that says how far it is, or a line now and then where there is no terminal."
    def __init__(self, n): self.n, self.start, self.last, self.live = n, time.time(), 0., sys.stdout.isatty()
    def clock(self): return f"{int(time.time() - self.start)//60}:{int(time.time() - self.start)%60:02}"
    def say(self, text):
        if self.live: print("\r\033[K", end="")
        print(text, flush=True)
    def show(self, done, failed, names, force=False):
        if not force and time.time() - self.last < (0.5 if self.live else 30): return
        self.last = time.time()
        text = f"{self.clock()}  {done} of {self.n} done, {failed} failed; at work: {', '.join(Path(n).name for n in names)}"
        if self.live: print(f"\r\033[K{text[:shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        else: print(text, flush=True)

def next_job(waiting, running):
    "Take the next job: the first, or one that does without the kernels as long as they are being compiled."
    at = next((i for i, j in enumerate(waiting) if j[0].startswith(WITHOUT_KERNELS)), 0) if any(n.startswith("kernels") for n in running) and not waiting[0][0].startswith("kernels") else 0
    return waiting.pop(at)

def run_pool(jobs, cores, scratch):
    "Run all jobs; gives name -> (passed, seconds, processor seconds) and test -> processor seconds. A failure is shown with its output when it happens."
    screen, waiting, running = Screen(len(jobs)), list(jobs), {}
    outcome, tests, failed = {}, {}, 0
    def finish(pid, status, used, why=""):
        nonlocal failed
        job, start, folder = running.pop(pid)
        end_group(pid)
        ok, took = status == 0, time.time() - start
        outcome[job[0]] = (ok, took, used.ru_utime + used.ru_stime)
        times = folder/"times.csv"
        if times.exists(): tests.update((n, float(s)) for n, s in (line.rsplit(",", 1) for line in times.read_text().splitlines()))
        if not ok:
            failed += 1
            why = why or (f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "failed")
            screen.say(f"---- {job[0]} {why} after {took:.0f} s\n{(folder/'out.txt').read_text(encoding='utf-8', errors='replace').strip()}\n----")
        shutil.rmtree(folder, ignore_errors=True)
    try:
        while waiting or running:
            while waiting and len(running) < cores:
                job, folder = next_job(waiting, [j[0] for j, *_ in running.values()]), scratch/str(len(outcome) + len(running))
                while folder.exists(): folder = folder.with_name(folder.name + "_")
                running[begin(job, folder)] = (job, time.time(), folder)
            for pid in list(running):
                done, status, used = os.wait4(pid, os.WNOHANG)
                if done: finish(pid, status, used)
                elif time.time() - running[pid][1] > LIMIT:
                    end_group(pid)
                    finish(pid, *os.wait4(pid, 0)[1:], "did not end")
            screen.show(len(outcome), failed, [j[0][0] for j in running.values()])
            time.sleep(.05)
    finally:
        for pid in running: end_group(pid)
        end_rest()
        for pid in running: os.waitpid(pid, 0)
    screen.show(len(outcome), failed, [], force=True)
    if screen.live: print()
    return outcome, tests

def write_seconds(outcome, tests):
    "Write down what the jobs and tests took; those that did not run now keep their line while they exist."
    old = recorded()
    files = {str(f.relative_to(ROOT)) for f in (ROOT/"tests").glob("test_*.py")}
    there = {*notebooks(), *COMMANDS, *(f"{file}::{n}" for file in files for n in test_functions(file))}
    new = old | {n: s for n, (ok, _, s) in outcome.items() if ok} | tests
    with TABLE.open("w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(("name", "seconds"))
        writer.writerows((n, f"{s:.1f}") for n, s in sorted(new.items()) if n in there and s >= .05)

def main(arguments=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("words", nargs="*", help="only the jobs whose name holds one of these")
    p.add_argument("--cores", type=int, default=cores())
    p.add_argument("--record", action="store_true", help="write what each took to seconds.csv")
    p.add_argument("--list", action="store_true", help="only say which jobs there are")
    args = p.parse_args(arguments)
    jobs = [j for j in all_jobs() if not args.words or any(w in j[0] for w in args.words)]
    if not jobs: sys.exit(f"no job has {' or '.join(args.words)} in its name; --list shows them")
    if args.list: return print("\n".join(f"{j[3]:6.1f} s  {j[0]}" for j in jobs))
    def stop(number, frame): raise KeyboardInterrupt
    signal.signal(signal.SIGINT, stop)    # whoever started us may have ignored it
    signal.signal(signal.SIGTERM, stop)
    start = time.time()
    load()
    with tempfile.TemporaryDirectory(prefix="memnet-pool-", ignore_cleanup_errors=True) as scratch:
        try: outcome, tests = run_pool(jobs, args.cores, Path(scratch))
        except KeyboardInterrupt:
            print("\nstopped; nothing is left running", flush=True)
            return 130
    if args.record: write_seconds(outcome, tests)
    print("longest, in seconds of the clock and of a processor:")
    for n, (_, took, used) in sorted(outcome.items(), key=lambda o: -o[1][2])[:25]: print(f"  {took:6.1f} {used:6.1f}  {n}")
    bad = [n for n, (ok, *_) in outcome.items() if not ok]
    print(f"{len(outcome) - len(bad)} of {len(outcome)} jobs passed in {time.time() - start:.0f} s, {sum(c for *_, c in outcome.values()):.0f} s of processor time")
    for n in bad: print(f"  FAILED {n}")
    return 1 if bad else 0

if __name__ == "__main__": sys.exit(main())
