"""Kill `fit` at random moments, resume it, and compare the end with a run that was never stopped. As a script, which writes results/reliability/kills_fit.csv: python tests/crash_fit.py --kills 100 --only kill --record"""
import argparse, os, random, resource, shutil, signal, sys, tempfile, time, traceback
from pathlib import Path
from typing import NamedTuple
import pandas, torch, torch._dynamo   # pandas, and what an optimiser imports, before the children: an interrupt inside an import may become any error
import torch.nn.functional as F
from torch import nn
from reliability_tables import record
from memnet.training.checkpoint import read_checkpoint
from memnet.training.fit import TrainingInterrupted, fit
from memnet.training.schedule import TrainConfig, generator_for

class Batch(NamedTuple):
    inputs: torch.Tensor; targets: torch.Tensor; mask: object; slices: dict

class Out(NamedTuple):
    logits: torch.Tensor; state: object; losses: dict; info: dict

class Sign:
    "Class 1 where three numbers sum to more than zero."
    def sample(self, batch_size, generator):
        x = torch.randn(batch_size, 1, 3, generator=generator)
        return Batch(x, (x.sum(-1) > 0).long(), None, {"positive": (x[..., 0] > 0).long()})

class Net(nn.Module):
    "Dropout draws from the global generator, noise from the one that is passed."
    def __init__(self, seed):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(.1), nn.Linear(8, 2))
        for p in self.parameters(): nn.init.uniform_(p, -.5, .5, generator=generator_for("init", seed))
    def forward(self, inputs, state=None, mask=None, generator=None):
        return Out(self.layers(inputs + .1 * torch.randn(inputs.shape, generator=generator)), None, {}, {})
    def objective(self, out, targets):
        task = F.cross_entropy(out.logits.flatten(0, 1), targets.flatten())
        return {"total": task, "task": task}

CFG = TrainConfig(steps=40, batch_size=4, warmup=4, seed=1, eval_every=7, eval_batches=1, checkpoint_every=3, log_every=1)

def train(folder, seed): return fit(Net(seed), Sign(), CFG, folder, resume=True, progress=False)

def ended(folder):
    "All that a run leaves: the bytes of its log, and every tensor of its checkpoint."
    tensors, meta = read_checkpoint(folder/"checkpoint.safetensors")
    return (folder/"metrics.csv").read_bytes(), {k: t.numpy().tobytes() for k, t in tensors.items()}, meta["step"]

FAULT = Path(tempfile.gettempdir())/f"memnet-crash-fit-{os.getpid()}.txt"   # the last exception of a child

def in_a_child(work, quiet=True):
    "Start `work` in a forked process; returns its number."
    pid = os.fork()
    if pid: return pid
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)   # whoever started the tests may have ignored them
        signal.signal(signal.SIGTERM, signal.SIG_DFL); signal.signal(signal.SIGHUP, signal.SIG_DFL)
        if quiet:
            null = os.open(os.devnull, os.O_WRONLY); os.dup2(null, 1); os.dup2(null, 2)
        work(); code = 0
    except TrainingInterrupted: code = 130
    except KeyboardInterrupt: code = 131   # without a word about what is kept
    except OSError: code = 28
    except BaseException:
        code = 3
        FAULT.write_text(traceback.format_exc())   # what nobody should see, for whoever looks at the trial
    os._exit(code)

def wait_for(pid):
    "Exit code of a child, negative for a signal."
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

KINDS = {"kill": [signal.SIGKILL], "term": [signal.SIGTERM], "hangup": [signal.SIGHUP], "interrupt": [signal.SIGINT], "interrupt twice": [signal.SIGINT, signal.SIGINT], "disk full": []}
ALLOWED = {"kill": {-9}, "term": {-15}, "hangup": {-1}, "interrupt": {130, 131, 1}, "interrupt twice": {130, 131, 1}, "disk full": {28}}   # and 0, if it had ended before

def crash_trials(n, seed=0, kinds=tuple(KINDS)):
    "Stop `fit` `n` times, each time in one of the ways of `kinds`; resume until it is done, begin again. Returns counts by kind, the number of runs, and what was wrong: (kind, fault, text)."
    with tempfile.TemporaryDirectory() as folder:
        try: return stop_and_resume(n, seed, kinds, Path(folder))
        finally: FAULT.unlink(missing_ok=True)

def stop_and_resume(n, seed, kinds, folder):
    rng, count, wrong = random.Random(seed), {}, []
    torch.set_num_threads(1)
    pid = in_a_child(lambda: train(folder/"whole"/"run", 0)); wait_for(pid)
    whole, runs = ended(folder/"whole"/"run"), 0
    began = time.perf_counter(); wait_for(in_a_child(lambda: train(folder/"timed"/"run", 0))); long = time.perf_counter() - began
    while sum(count.values()) < n:
        place, step = folder/f"{runs}"/"run", -1
        runs += 1
        for attempt in range(10_000):
            kind = rng.choice(kinds)
            limit = rng.randrange(500, 20_000)
            def work():
                if kind == "disk full": resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                train(place, runs + attempt if step >= 0 else 0)   # whatever the first weights are, a checkpoint has others
            pid = in_a_child(work)
            if KINDS[kind]: time.sleep(rng.uniform(0, long))
            for number in KINDS[kind]:
                try: os.kill(pid, number)
                except ProcessLookupError: pass
                time.sleep(rng.choice([0, 0, .002]))
            code = wait_for(pid)
            if code == 0: break
            count[kind] = count.get(kind, 0) + 1
            if code not in ALLOWED[kind]: wrong.append((kind, "exit", f"ended with {code}" + (f": {FAULT.read_text()}" if code == 3 else "")))
            if (place/"checkpoint.safetensors").exists():
                now = read_checkpoint(place/"checkpoint.safetensors")[1]["step"]
                if now < step: wrong.append((kind, "lost", f"step {step} was saved, now {now}"))
                step = now
            elif step >= 0: wrong.append((kind, "lost", "the checkpoint is gone"))
            if sum(count.values()) >= n: wait_for(in_a_child(lambda: train(place, 99 if step >= 0 else 0))); break
        differ = [name for name, a, b in zip(("log", "tensors", "step"), ended(place), whole) if a != b]
        if differ: wrong.append(("resumed", "different", f"run {runs}: {' and '.join(differ)} are not what an uninterrupted run gives"))
        left = sorted(p.name for p in place.iterdir() if p.name.startswith(".new-"))
        if len(left) > len(KINDS): wrong.append(("resumed", "left", f"run {runs}: {len(left)} temporary files are left"))
        shutil.rmtree(place)
    return count, runs, wrong

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100); parser.add_argument("--seed", type=int, default=0); parser.add_argument("--only", choices=KINDS, action="append")
    parser.add_argument("--record", action="store_true", help="write the table")
    args = parser.parse_args()
    count, runs, wrong = crash_trials(args.kills, args.seed, tuple(args.only or KINDS))
    print(f"{sum(count.values())} stops in {runs} runs: {', '.join(f'{k} {v}' for k, v in sorted(count.items()))}")
    for line in wrong: print("wrong:", *line)
    if args.record: record("kills_fit", [dict(stopped_by=kind, times=n, **{f: sum(w[:2] == (kind, f) for w in wrong) for f in ("exit", "lost", "different", "left")}) for kind, n in [*sorted(count.items()), ("resumed", runs)]], seed=args.seed)
    sys.exit(bool(wrong))
