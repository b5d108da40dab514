"""One model trained by several processes with the real engine (extra `scale`): the numbers of one process, a stop that all agree on, a run that goes on with another number of them. What is not installed is skipped, and says so."""
import csv, os, signal, subprocess, sys, time
from pathlib import Path
import pytest
from memnet import MemNet
from memnet.training.processes_of_training import FabricProcesses

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
MODEL = ["-p", "n_slots", "8", "-p", "dim", "16", "-p", "n_pairs", "2", "-p", "batch_size", "5", "-p", "eval_batches", "1", "-p", "log_every", "1"]

def lightning(): return pytest.importorskip("lightning.fabric", reason="lightning is not installed: pip install 'memnet[scale]'")

def words(out, steps, *more):
    "A command line; the script stands for `memnet`, which Fabric calls once more for every further process."
    script = out.parent/"memnet_script.py"
    script.write_text("import sys\nfrom memnet.runs.command_line import main\nsys.exit(main())\n")
    return [sys.executable, str(script), "train", "rebinding", "--out", str(out), "--steps", str(steps), *MODEL, *more]

def train(*words_, code=0):
    done = subprocess.run(words(*words_), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout

def log(folder):
    "(step, metric, slice) -> value, of a run's log."
    with open(folder/"metrics.csv", newline="") as f: return {(r["step"], r["metric"], r["slice"]): float(r["value"]) for r in csv.DictReader(f)}

def difference(a, b):
    assert a.keys() == b.keys() and len(a) > 20
    return max(abs(a[k] - b[k]) for k in a if k[1].startswith(("train/", "valid/loss")))

@pytest.fixture(scope="module")
def one(tmp_path_factory):
    "The log of a run of one process, without the engine."
    folder = tmp_path_factory.mktemp("one")/"run"
    train(folder, 60)
    return log(folder)

def test_without_the_engine_the_error_says_what_to_install(monkeypatch):
    for name in ("lightning", "lightning.fabric"): monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"pip install 'memnet\[scale\]'"): FabricProcesses(devices=2)

SCRIPT = '''
import sys, torch
from memnet.models.memnet import MemNet
from memnet.models.registry import build_model
from memnet.runs.train_command import TRAIN_TASKS, config_for_task, trainable_models
from memnet.training.data_parallel import ParallelRun
from memnet.training.processes_of_training import FabricProcesses
from memnet.training.schedule import TrainConfig, generator_for
from memnet.training.training_run import TrainingRun
torch.set_num_threads(1)
processes = FabricProcesses(devices=2)

class Padded:
    "Rows of different lengths, the longest ones last; the first rows ask nothing."
    vocab_size = TRAIN_TASKS["rebinding"](n_pairs=2).vocab_size
    def sample(self, batch_size, generator):
        batch = TRAIN_TASKS["rebinding"](n_pairs=2).sample(batch_size, generator)
        T = batch.inputs.shape[1]
        mask = torch.arange(T) < (torch.arange(1, batch_size + 1)*T//batch_size).unsqueeze(1)
        asked = mask & (torch.arange(batch_size) > 0).unsqueeze(1)
        return batch._replace(targets=batch.targets.masked_fill(~asked, -100), mask=mask, slices={})

def curve(run, steps=12):
    found = []
    for _ in range(steps):
        run.update()
        found.append(dict((name, value) for name, value, _ in run.pending))
    return found

CASES = [(model, TRAIN_TASKS["rebinding"](n_pairs=2), {}) for model in trainable_models()] + [("memnet", Padded(), {}), ("memnet", TRAIN_TASKS["memory_load"](often=1, rarely=2, important=1, never=2), {}), ("memnet", Padded(), dict(dream_every=1)), ("lstm", Padded(), {})]
for model, task, fields in CASES:
    small = dict(dim=16, n_slots=8, chunk_size=8) if model == "memnet" else dict(dim=16)
    cfg, config = TrainConfig(steps=12, batch_size=5, warmup=4, lr=3e-3), config_for_task(model, task, small | fields)
    make = lambda: build_model(config, generator_for("init", 0))
    several = curve(ParallelRun(make(), task, cfg, processes))
    if processes.rank: continue
    alone = curve(TrainingRun(make(), task, cfg))
    off = max(abs(a[k] - b[k]) for a, b in zip(alone, several) for k in a if a[k] == a[k] or b[k] == b[k])
    print(model, type(task).__name__, fields, sorted(alone[0]) == sorted(several[0]), f"{off:.1e}", off < 1e-5, flush=True)
'''

def test_every_model_has_the_numbers_of_one_process(tmp_path):
    lightning()
    script = tmp_path/"curves.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [l for l in done.stdout.splitlines() if "True" in l or "False" in l]
    assert len(lines) >= 9 and not [l for l in lines if "False" in l], done.stdout

def test_two_processes_give_the_curve_of_one(tmp_path, one):
    lightning()
    out = train(tmp_path/"run", 60, "--devices", "2")
    assert out.count("finished 60 steps") == 1                      # one process speaks
    assert difference(one, log(tmp_path/"run")) < 1e-5
    assert MemNet.load(tmp_path/"run").config.n_slots == 8

def test_a_signal_to_one_process_stops_all_and_another_number_goes_on(tmp_path, one):
    "The first of two processes is asked to stop; both do, after the same step. One process alone finishes the run."
    lightning()
    out, command = tmp_path/"run", words(tmp_path/"run", 60, "--devices", "2")
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) as p:
        until = time.monotonic() + 200
        while time.monotonic() < until and p.poll() is None and not ((out/"metrics.csv").exists() and len((out/"metrics.csv").read_bytes()) > 3000): time.sleep(.02)
        p.send_signal(signal.SIGINT)
        said, _ = p.communicate(timeout=200)
    assert p.returncode == 130 and "saved" in said, said
    assert not (out/"model.json").exists()
    train(out, 60)
    assert difference(one, log(out)) < 1e-5
    assert MemNet.load(out).config.n_slots == 8

def test_another_run_is_refused_once_and_nobody_waits(tmp_path):
    lightning()
    train(tmp_path/"run", 2)
    said = train(tmp_path/"run", 3, "--devices", "2", code=2)
    assert said.count("cannot resume") == 1 and "train.steps was 2, now 3" in said

def test_mixed_precision_is_a_setting_of_the_run(tmp_path):
    lightning()
    train(tmp_path/"run", 20, "--devices", "2", "--precision", "bf16-mixed")
    full, mixed = tmp_path/"full", log(tmp_path/"run")
    train(full, 20)
    off = difference(log(full), mixed)
    assert 1e-5 < off < 1                                             # other rounding, the same training
    assert "precision was 'bf16-mixed', now None" in train(tmp_path/"run", 20, code=2)
