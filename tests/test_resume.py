"""`fit` in a folder: nothing that happened to the folder is believed, signals and crashes lose nothing, and what is resumed ends as if it had never been stopped."""
import json, os, shutil, signal, subprocess, sys
from pathlib import Path
import pytest, torch
from crash_fit import CFG, Batch, Net, Sign, ended, fit, train
from memnet.soundness.file_damage import try_mutations
from memnet.training.checkpoint import previous_checkpoint, read_checkpoint, write_checkpoint
from memnet.training.fit import TrainingInterrupted
from memnet.training.schedule import TrainConfig
from memnet.training.training_run import NonFiniteLoss, TrainingRun

torch.set_num_threads(1)

class Stop(Sign):
    "Raises what it is given after some batches."
    def __init__(self, after=None, error=None): self.left, self.error = after, error
    def sample(self, batch_size, generator):
        if self.left is not None:
            self.left -= 1
            if self.left < 0: raise self.error
        return super().sample(batch_size, generator)

def run(folder, seed=0, task=None, cfg=CFG, **kw): return fit(Net(seed), task or Stop(), cfg, folder, resume=True, progress=False, eval_tasks={"valid": Sign()}, **kw)

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "What an uninterrupted run leaves."
    folder = tmp_path_factory.mktemp("whole")/"run"
    run(folder)
    return ended(folder)

@pytest.fixture
def half(tmp_path):
    "A run that died in step 23 of 40; the last checkpoint is of step 21."
    with pytest.raises(RuntimeError): run(tmp_path/"run", task=Stop(22, RuntimeError("power cut")))
    return tmp_path/"run"

def refused(folder, *parts):
    "The run is refused in one sentence that names the parts; its folder and the model stay as they are."
    before, model = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}, Net(7)
    weights = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError) as e: fit(model, Stop(), CFG, folder, resume=True, progress=False, eval_tasks={"valid": Sign()})
    assert all(part in str(e.value) for part in parts), str(e.value)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before and all(map(torch.equal, weights, model.parameters()))

def test_resumed_is_uninterrupted(half, whole):
    run(half, 99)
    assert ended(half) == whole

@pytest.mark.parametrize("name", ["metrics.csv", "checkpoint.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut", "bit", "empty", "foreign"])
def test_a_damaged_file_is_named(half, name, damage):
    path = half/name
    data = path.read_bytes()
    if damage == "gone": path.unlink()
    else: path.write_bytes(dict(cut=data[:len(data)//3], bit=data[:len(data)//3] + bytes([data[len(data)//3] ^ 4]) + data[len(data)//3 + 1:], empty=b"", foreign=b"run,step\n")[damage])
    refused(half, str(path), "new run_dir")

def test_a_damaged_record_is_named(half, whole):
    record = (half/"train.json").read_text()
    for text in ("", "{", "[]", record[:50]):
        (half/"train.json").write_text(text)
        refused(half, str(half/"train.json"))
    (half/"train.json").write_text(record.replace('"steps": 40', '"steps": 41'))
    refused(half, "train.json", "train.steps was 41, now 40")
    (half/"train.json").unlink()          # the checkpoint holds the same record
    run(half, 99)
    assert ended(half) == whole and json.loads((half/"train.json").read_text()) == json.loads(record)

def test_the_checkpoint_before_is_a_way_to_go_on(half, whole):
    path = half/"checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(half, "rename checkpoint.previous.safetensors to checkpoint.safetensors")
    previous_checkpoint(path).rename(path)
    assert read_checkpoint(path)[1]["step"] == 18
    run(half, 99)
    assert ended(half) == whole

def rewrite(folder, tensors=lambda t: t, **meta):
    "Change a checkpoint and give it a digest that fits."
    path = folder/"checkpoint.safetensors"
    t, m = read_checkpoint(path)
    write_checkpoint(path, tensors(t), m | meta)

META = [dict(step=41), dict(step=-1), dict(step=2.5), dict(step=None), dict(step=True), dict(todo=7), dict(todo=[["a"]]), dict(log=None), dict(log={}), dict(optimized=None), dict(optimized=[]), dict(optimized=["layers.0.weight"]), dict(device="cuda")]

@pytest.mark.parametrize("meta", META, ids=str)
def test_a_header_that_cannot_be(half, meta):
    rewrite(half, **meta)
    refused(half, "checkpoint.safetensors")

W, EXP = "layers.0.weight", "optimizer/layers.0.weight/exp_avg"
TENSORS = {"weight gone": lambda t: {k: v for k, v in t.items() if k != "model/" + W}, "moment gone": lambda t: {k: v for k, v in t.items() if k != EXP}, "moments gone": lambda t: {k: v for k, v in t.items() if not k.startswith("optimizer")},
           "generator gone": lambda t: {k: v for k, v in t.items() if k != "generator/global"}, "one more": lambda t: t | {"model/x": torch.ones(1)}, "shape": lambda t: t | {"model/" + W: torch.ones(9, 3)}, "dtype": lambda t: t | {"model/" + W: torch.ones(8, 3).double()},
           "whole numbers": lambda t: t | {EXP: torch.ones(8, 3).long()}, "nan": lambda t: t | {EXP: torch.full((8, 3), float("nan"))}, "negative": lambda t: t | {EXP + "_sq": torch.full((8, 3), -1.)}, "steps": lambda t: t | {f"optimizer/{W}/step": torch.tensor(99.)},
           "generator": lambda t: t | {"generator/data": torch.zeros_like(t["generator/data"])}, "small generator": lambda t: t | {"generator/data": torch.zeros(16, dtype=torch.uint8)}}

@pytest.mark.parametrize("change", TENSORS.values(), ids=TENSORS)
def test_tensors_that_cannot_be(half, change):
    rewrite(half, change)
    refused(half, "checkpoint.safetensors")

def test_other_settings_are_named(half):
    with pytest.raises(ValueError, match="train.lr was 0.003, now 0.001"): run(half, cfg=TrainConfig(**{**CFG.to_dict(), "lr": 1e-3}))

@pytest.mark.parametrize("name", ["checkpoint.safetensors", "metrics.csv"])
def test_no_mutation_of_a_file_passes(half, name):
    "Either refused by name, or what is read is what was written."
    good = read_checkpoint(half/"checkpoint.safetensors")
    place = good[1]["log"]
    def read():
        from memnet.training.metric_log import read_log_rows
        return read_log_rows(half/"metrics.csv", place)[1] if name == "metrics.csv" else read_checkpoint(half/name, lambda meta: {k: tuple(v.shape) for k, v in good[0].items()})
    data = (half/"metrics.csv").read_bytes()[:place["bytes"]]
    same = (lambda found: found == data) if name == "metrics.csv" else (lambda found: found[1] == good[1] and all(torch.equal(found[0][k], v) for k, v in good[0].items()))
    trial = try_mutations(half/name, read, same, 300)
    assert trial.tried == 300 and not trial.faults, trial.faults

# --- signals and crashes

def child(code): return subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120)

def test_kills_signals_and_full_disks():
    "A short form of `python tests/crash_fit.py --kills 100`."
    r = subprocess.run([sys.executable, "crash_fit.py", "--kills", "10", "--seed", "1"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=1800)
    assert r.returncode == 0 and "10 stops" in r.stdout, r.stdout + r.stderr

def test_a_second_fit_in_the_folder_is_told_who_is_at_work(tmp_path, whole):
    class Enter(Stop):
        def sample(self, *args):
            if self.left == 4:
                with pytest.raises(ValueError, match=f"process {os.getpid()}, at work since 20"): run(tmp_path/"run")
            return super().sample(*args)
    run(tmp_path/"run", task=Enter(99, None))
    assert not (tmp_path/"run"/".lock.json").exists()

def test_an_interrupt_goes_on_its_way_and_says_what_is_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="after step 5 of 40, saved: call fit with the same arguments and resume=True") as e: run(tmp_path/"run", task=Stop(5, KeyboardInterrupt()))
    assert isinstance(e.value, TrainingInterrupted) and e.value.result.steps_done == 5 and read_checkpoint(tmp_path/"run"/"checkpoint.safetensors")[1]["step"] == 5

def test_an_interrupt_before_the_first_step_waits_for_the_imports_and_says_that_nothing_was_written(tmp_path):
    class Early(Net):
        "Ctrl-C while the optimiser is made, which imports hundreds of modules the first time."
        armed = False
        def named_parameters(self, *args, **kw):
            if self.armed:
                self.armed = False
                signal.raise_signal(signal.SIGINT)
            return super().named_parameters(*args, **kw)
    model, old = Early(0), signal.signal(signal.SIGINT, signal.default_int_handler)
    model.armed = True
    try:
        with pytest.raises(TrainingInterrupted, match="before the first step; nothing was written") as e: fit(model, Sign(), CFG, tmp_path/"run", progress=False)
        assert not model.armed and e.value.result.steps_done == 0 and not (tmp_path/"run").exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally: signal.signal(signal.SIGINT, old)

@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_while_the_folder_is_taken_waits_for_it(tmp_path, whole, monkeypatch, begun):
    if begun:
        with pytest.raises(TrainingInterrupted): run(tmp_path/"run", task=Stop(22, KeyboardInterrupt()))
    claim, old = TrainingRun.claim_folder, signal.signal(signal.SIGINT, signal.default_int_handler)
    def interrupted(self, *args):
        signal.raise_signal(signal.SIGINT)
        claim(self, *args)
    monkeypatch.setattr(TrainingRun, "claim_folder", interrupted)
    try:
        with pytest.raises(TrainingInterrupted, match=f"after step {22*begun} of 40, saved: call fit with the same arguments and resume=True") as e: run(tmp_path/"run")
        assert e.value.result.steps_done == 22*begun and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally: signal.signal(signal.SIGINT, old)
    monkeypatch.undo()
    run(tmp_path/"run", 99 if begun else 0)
    assert ended(tmp_path/"run") == whole

def test_signals_that_the_program_handles_are_left_to_it(tmp_path):
    seen = []
    old = signal.signal(signal.SIGTERM, lambda *a: seen.append(1))
    try:
        class Term(Stop):
            def sample(self, *args):
                if self.left == 95: signal.raise_signal(signal.SIGTERM)
                return super().sample(*args)
        assert run(tmp_path/"run", task=Term(99)).steps_done == 40 and seen == [1]
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally: signal.signal(signal.SIGTERM, old)

# --- what a task may give

def test_a_loss_that_is_not_finite_keeps_the_checkpoint_before(tmp_path):
    class Bad(Sign):
        n = 0
        def sample(self, *args):
            self.n += 1
            b = super().sample(*args)
            return b if self.n < 9 else b._replace(inputs=b.inputs * float("nan"))
    with pytest.raises(NonFiniteLoss, match="step 8: task is not finite"): run(tmp_path/"run", task=Bad())
    tensors, meta = read_checkpoint(tmp_path/"run"/"checkpoint.safetensors")
    assert meta["step"] == 6 and all(t.isfinite().all() for k, t in tensors.items() if k.startswith("model/"))

B = Sign().sample(4, torch.Generator().manual_seed(0))
ODD = [None, (1, 2), {}, B._replace(inputs=None), B._replace(inputs=B.inputs[:0], targets=B.targets[:0]), B._replace(targets=B.targets[:2]), B._replace(targets=B.targets.float()), B._replace(targets=B.targets + 9), B._replace(mask=[True]), B._replace(slices={"x": 1})]

@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_what_is_no_batch_is_named(tmp_path, odd):
    class Odd(Sign):
        def sample(self, *args): return odd
    with pytest.raises(ValueError, match="Odd.sample must return|targets must be"): run(tmp_path/"run", task=Odd())

@pytest.mark.parametrize("kw", [dict(task=[]), dict(task=torch.utils.data.DataLoader([1])), dict(cfg=dict(steps=1)), dict(eval_tasks={"a": 3})], ids=["list", "loader", "config", "eval"])
def test_bad_arguments_of_fit(kw):
    with pytest.raises(ValueError): fit(**dict(model=Net(0), task=Sign(), cfg=CFG, progress=False) | kw)
