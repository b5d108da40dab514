"""Files of models: whatever is done to them, the model that was saved or one ValueError that names the file; no code runs, nothing is read for ever, no memory is filled."""
import json, os, resource, subprocess, sys
from pathlib import Path
import pytest, torch
from memnet.soundness.file_damage import safetensors_bytes, safetensors_parts, try_mutations
from memnet.foundations.tensor_files import tensor_digest
from memnet.models.memnet import MemNet, MemNetConfig
from memnet.models.recurrent import GRUConfig, GRUModel

torch.set_num_threads(1)

def model(**over): return MemNet(MemNetConfig.tiny(**over), torch.Generator().manual_seed(0))

def same_as(m): return lambda found: all(torch.equal(p, q) and p.dtype == q.dtype for p, q in zip(m.state_dict().values(), found.state_dict().values())) and found.config == m.config

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_comes_back_in_its_precision(tmp_path, dtype):
    for m in (model().to(dtype), GRUModel(GRUConfig(vocab_size=11, dim=8), generator=torch.Generator().manual_seed(0)).to(dtype)):
        m.save(tmp_path)
        back = type(m).load(tmp_path)
        x = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(1))
        assert same_as(m)(back) and torch.equal(back.eval()(x).logits, m.eval()(x).logits)

@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_no_mutation_of_a_model_passes(tmp_path, name):
    m = model()
    m.save(tmp_path)
    trial = try_mutations(tmp_path/name, lambda: MemNet.load(tmp_path), same_as(m), 120)
    assert trial.tried == 120 and not trial.faults, trial.faults

def test_a_save_over_another_model_is_one_of_the_two(tmp_path, monkeypatch):
    old, new = model(), model(n_slots=7, dim=8)
    for at in range(4):
        place = tmp_path/str(at)
        old.save(place)
        left, rename = [at], os.replace
        def replace(*paths):
            left[0] -= 1
            if left[0] < 0: raise KeyboardInterrupt
            rename(*paths)
        with monkeypatch.context() as m:
            m.setattr(os, "replace", replace)
            if at < 3:
                with pytest.raises(KeyboardInterrupt): new.save(place)
            else: new.save(place)
        assert same_as(old if at < 2 else new)(MemNet.load(place)), at

def rewrite(folder, config):
    "A folder whose config was changed by somebody who knows how the digest is made."
    path = folder/"model.json"
    about = json.loads(path.read_text())
    about["config"] = about["config"] | config
    from safetensors.torch import load_file
    about["sha256"] = tensor_digest(load_file(folder/"model.safetensors"), {k: v for k, v in about.items() if k != "sha256"})
    header, body = safetensors_parts((folder/"model.safetensors").read_bytes())
    header["__metadata__"]["sha256"] = about["sha256"]
    (folder/"model.safetensors").write_bytes(safetensors_bytes(header, body))
    path.write_text(json.dumps(about))

@pytest.mark.parametrize("config", [dict(dim=2**20), dict(dim=2**40), dict(n_layers=10**9), dict(vocab_size=10**9), dict(vocab_size=10**12), dict(ff=10**9), dict(d_value=10**9), dict(dim="12"), dict(dim=None), dict(n_heads=10**9), dict(policies=5), dict(policies=["topk"] * 10**6)], ids=lambda c: str(c)[:40])
def test_a_config_that_asks_for_more_than_the_file_holds(tmp_path, config):
    model().save(tmp_path)
    rewrite(tmp_path, config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="model.json|model.safetensors"): MemNet.load(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "KiB of memory that the file does not have"

def test_a_link_to_a_model_is_a_model(tmp_path):
    m = model()
    m.save(tmp_path/"there")
    (tmp_path/"here").mkdir()
    for name in ("model.json", "model.safetensors"): (tmp_path/"here"/name).symlink_to(tmp_path/"there"/name)
    assert same_as(m)(MemNet.load(tmp_path/"here"))

def test_a_disk_that_is_full_leaves_the_model_before(tmp_path):
    model().save(tmp_path)
    code = f"""import resource, torch
from memnet.models.memnet import MemNet, MemNetConfig
m = MemNet(MemNetConfig.tiny(dim=64), torch.Generator().manual_seed(0))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try: m.save({str(tmp_path)!r})
except OSError as e: print(e)"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "model.safetensors could not be written" in out and "as it was before" in out
    assert same_as(model())(MemNet.load(tmp_path))

def test_no_pickle_is_read_in_the_package():
    root = Path(__file__).resolve().parent.parent/"memnet"
    found = [f"{p.relative_to(root)}: {l.strip()}" for p in root.rglob("*.py") for l in p.read_text(encoding="utf-8").splitlines() if ("torch.load(" in l or "pickle.load" in l or "import pickle" in l or "allow_pickle=True" in l) and "weights_only=True" not in l]
    assert [f for f in found if not f.startswith("foundations/compilation.py")] == []   # machine code that this process has kept itself is code in any case; its folder is the user's own
