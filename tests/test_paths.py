"""Two paths, one function: which one runs, what it may never replace, what PyTorch's tools do with it, and a machine without a compiler or a place for its code."""
import copy, os, pickle, shutil, subprocess, sys, textwrap, threading, warnings
from pathlib import Path
import pytest, torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint
from memnet import MemNet, MemNetConfig, MemoryLayer, MultiHeadMemoryBank, set_memory_path
from memnet.foundations import compilation
from memnet.foundations.compilation import COMPILER_FAULT
from memnet.foundations.trees import tree_leaves
from memnet.memory.addressing import POLICIES, topk_policy
from memnet.memory.plasticity import last_trace
from memnet.memory.reading import GraphRule, chunk_events
from memnet.models.model_stream import TensorStep

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)
pytestmark = pytest.mark.skipif(COMPILER_FAULT is not None, reason=f"no compiler: {COMPILER_FAULT}")

def gen(seed): return torch.Generator().manual_seed(seed)
x, y = (torch.randint(11, (2, 19), generator=gen(i)) for i in (1, 2))
def tiny(bank=None, **over): return MemNet(MemNetConfig.tiny(**over), gen(0), bank).double()
def task_loss(model): return F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())
def gradients(model, loss): return dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)))
def furthest(a, b):
    "Largest difference of two gradients; a gradient that is missing in one of them only is a difference."
    return max(0. if a[n] is b[n] is None else (a[n] - b[n]).abs().max().item() for n in a)
def both_paths(model):
    "Logits and gradients on the path that the model takes, and on the reference path."
    got = []
    for path in ('auto', 'reference'):
        logits = set_memory_path(model, path)(x).logits
        got.append((logits, gradients(model, F.cross_entropy(logits.flatten(0, 1), y.flatten()))))
    set_memory_path(model, 'auto')
    return got

# --- which path
def test_the_path_is_said_and_can_be_chosen():
    m = tiny()
    assert m(x).info['path'] == 'fused' and m(x).info['path_reason'] == ''
    assert set_memory_path(m, 'reference')(x).info['path'] == 'reference'
    (a, da), (b, db) = both_paths(m)
    assert (a - b).abs().max() < 1e-12 and furthest(da, db) < 1e-12
    slow = set_memory_path(tiny(gamma=.9), 'fused')
    with pytest.raises(ValueError, match="gamma=0.9.*set_memory_path"): slow(x)
    with pytest.raises(ValueError, match="auto, fused, reference, got 'quick'"): set_memory_path(m, 'quick')
    with pytest.raises(ValueError, match="no memory bank"): set_memory_path(nn.Linear(2, 2), 'auto')

def counting(name):
    "A bank that counts the calls of one of its methods."
    class Counting(MultiHeadMemoryBank):
        calls = 0
        def __getattribute__(self, key):
            if key == name: type(self).calls += 1
            return super().__getattribute__(key)
    setattr(Counting, name, lambda self, *args, **kwargs: getattr(MultiHeadMemoryBank, name)(self, *args, **kwargs))
    return Counting

@pytest.mark.parametrize("name, path", [("features", "fused"), ("projections", "fused"), ("bank_parameters", "fused"), ("decay_rate", "reference"), ("read_chunk", "reference"),
                                        ("write_chunk", "reference"), ("reference_path", "reference"), ("effective_strength", "reference")])
def test_an_overridden_method_is_honoured_by_the_path_that_runs(name, path):
    bank = counting(name)
    info = tiny(bank)(x).info
    assert info['path'] == path and (name == "effective_strength" or bank.calls > 0)
    if path == "reference": assert name.split("_")[0] in info['path_reason']

def test_what_an_override_changes_is_changed_in_every_call():
    class Forgetful(MultiHeadMemoryBank):
        def decay_rate(self, values): return super().decay_rate(values) + .5
    m, plain = tiny(Forgetful), tiny()
    assert (m(x).logits - plain(x).logits).abs().max() > 1e-3
    assert torch.equal(m(x).logits, m(x, record=True).logits)
    assert m(x).info['path_reason'] == "a decay of its own"

def test_a_method_of_one_instance_and_a_patched_class_are_noticed(monkeypatch):
    m, calls = tiny(), []
    bank = m.controller.bank
    def write(*args, **kwargs): calls.append(1); return MultiHeadMemoryBank.write_chunk(bank, *args, **kwargs)
    bank.write_chunk = write
    assert m(x).info['path'] == 'reference' and len(calls) == 3
    del bank.write_chunk
    monkeypatch.setattr(MultiHeadMemoryBank, 'read_chunk', lambda self, *args: calls.append(2) or original(self, *args))
    assert m(x).info['path'] == 'reference' and 2 in calls

original = MultiHeadMemoryBank.read_chunk

def test_rules_and_policies_of_ones_own_rule_the_kernel_out(monkeypatch):
    m = tiny()
    frozen = GraphRule(lambda writes, state, p: chunk_events(writes, state, p._replace(graph_rule=None)), lambda state, writes, events, p: (state.edges, state.trace))
    m.controller.bank.graph_rule = frozen
    assert m(x).info['path'] == 'reference' and not m(x).state.memory.edges.any()
    m.controller.bank.graph_rule = None
    calls = []
    monkeypatch.setitem(POLICIES, 'topk', lambda *args: calls.append(1) or topk_policy(*args))
    assert m(x).info['path_reason'] == "the policy 'topk' is not a built-in one" and calls

def test_a_record_and_an_observer_change_no_bit():
    class Recorder:
        events = 0
        def n_rows(self, clock, next_clock): return 1
        def on_chunk(self, event): self.events += 1
    for dtype in (torch.float32, torch.float64):
        m, long = tiny(n_writes=2).to(dtype), torch.randint(11, (2, 8*66 + 3), generator=gen(3))   # longer than a segment that is observed at once
        out = m(long, generator=gen(4))
        recorded = m(long, generator=gen(4), record=True)
        m.controller.bank.observer = observer = Recorder()
        observed = m(long, generator=gen(4))
        assert observer.events == 66 and recorded.info['read'].shape[2] == long.shape[1]
        for other in (recorded, observed):
            assert torch.equal(out.logits, other.logits)
            assert all(torch.equal(a, b) for a, b in zip(out.state.memory[:9], other.state.memory[:9]))

def test_a_record_is_the_same_on_both_paths():
    for over in (dict(), dict(n_writes=0, match=.5), dict(graph=False)):
        m, mask = tiny(**over), torch.arange(19) < torch.tensor([[19], [11]])
        a, b = (set_memory_path(m, path)(x, mask=mask, record=True).info for path in ('fused', 'reference'))
        assert set(a) == set(b)
        for k in a:
            if isinstance(a[k], torch.Tensor): assert a[k].shape == b[k].shape and (a[k].double() - b[k].double()).abs().max() < 1e-12, k

def test_leaving_the_fused_path_is_said_once_and_only_where_it_costs(monkeypatch):
    monkeypatch.setattr(compilation, '_warned', set())
    def warned(bank, batch):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            with torch.no_grad(): bank(torch.zeros(batch, 64, 12))
        return [str(w.message) for w in seen if 'reference path' in str(w.message)]
    def bank(**over): return MultiHeadMemoryBank(MemNetConfig.tiny(**(dict(n_slots=64, chunk_size=64, n_writes=0) | over)))
    slow = bank(gamma=.9)
    assert warned(slow, 1) == [] and warned(bank(), 32) == [] and "more than 49 tokens" in warned(bank(n_writes=4), 32)[0]
    assert warned(set_memory_path(slow, 'reference'), 32) == []
    set_memory_path(slow, 'auto')
    assert "gamma=0.9" in warned(slow, 32)[0] and warned(slow, 32) == []

# --- layers that are more than a product
LAYERS = ('address', 'gate', 'policy', 'bottleneck', 'spread', 'content', 'out', 'decay')

def test_hooks_on_every_layer_of_a_model_fire():
    m, seen = tiny(dream_every=1), set()
    for name, layer in m.named_modules():
        if isinstance(layer, nn.Linear) and 'reconstruct' not in name: layer.register_forward_pre_hook(lambda *_, name=name: seen.add(name))
    want = {n for n, layer in m.named_modules() if isinstance(layer, nn.Linear) and 'reconstruct' not in n}
    m(x)
    assert seen == want and {f'controller.bank.{n}' for n in LAYERS} <= seen

def test_a_hook_changes_what_the_memory_reads():
    m = tiny()
    before = m(x).logits
    m.controller.bank.gate.register_forward_hook(lambda layer, args, out: torch.full_like(out, -20.))   # nothing is written
    assert m(x).info['path'] == 'fused' and not m(x).state.memory.strength.any() and (m(x).logits - before).abs().max() > 1e-3
    m.controller.bank.decay.register_forward_hook(lambda layer, args, out: out + 9)
    assert m(x).info['path_reason'] == "a decay of its own"

def test_a_pruned_bank_trains():
    m = tiny()
    for name in LAYERS: prune.l1_unstructured(getattr(m.controller.bank, name), 'weight', .3)
    optimizer, losses = torch.optim.AdamW(m.parameters(), 1e-2), []
    for _ in range(5):
        losses.append(task_loss(m)); optimizer.zero_grad(); losses[-1].backward(); optimizer.step()
    assert losses[-1] < losses[0] and (m.controller.bank.address.weight == 0).double().mean() > .25

def test_weight_norm_of_both_kinds_adapters_and_the_plain_model_are_one_function():
    class Adapter(nn.Module):   # what a low-rank adapter puts in the place of a layer
        def __init__(self, base):
            super().__init__()
            self.base, self.down, self.up = base, nn.Linear(base.in_features, 2, bias=False).double(), nn.Linear(2, base.out_features, bias=False).double()
            nn.init.zeros_(self.up.weight)
        def forward(self, x): return self.base(x) + self.up(self.down(x))
    plain = tiny()(x).logits
    for change in (lambda bank, n: parametrizations.weight_norm(getattr(bank, n)), lambda bank, n: setattr(bank, n, Adapter(getattr(bank, n)))):
        m = tiny()
        for name in LAYERS: change(m.controller.bank, name)
        assert (m(x).logits - plain).abs().max() < 1e-10
        missing = [n for n, g in gradients(m, task_loss(m)).items() if g is None and 'reconstruct' not in n]
        assert not missing

@pytest.mark.filterwarnings("ignore")   # torch speaks of the successor of this function
def test_quantised_layers_are_called():
    m, layer = tiny(dream_every=1).float(), MemoryLayer(12, n_heads=2, n_slots=5, topk=3)
    quantised, quantised_layer = (torch.ao.quantization.quantize_dynamic(z, {nn.Linear}, dtype=torch.qint8) for z in (m, layer))
    vectors = torch.randn(2, 9, 12, generator=gen(1))
    assert 0 < (quantised(x).logits - m(x).logits).abs().max() < 1 and quantised(x).info['path_reason'] == "a decay of its own"
    assert 0 < (quantised_layer(vectors)[0] - layer(vectors)[0]).abs().max() < 1

# --- autograd and its relatives
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("path", ["fused", "reference"])
def test_activation_checkpointing_gives_the_same_gradients(reentrant, path):
    m = set_memory_path(tiny(), path)
    def run(e): return m.head(m.norm(m.controller(e, m.empty_state(2), generator=gen(5)).features))   # a generator of its own: the second run draws the same
    got = []
    for call in (run, lambda e: checkpoint(run, e, use_reentrant=reentrant)):
        e = m.embed(x).detach().requires_grad_()
        loss = F.cross_entropy(call(e).flatten(0, 1), y.flatten())
        loss.backward()
        got.append([e.grad, *(p.grad.clone() for p in m.controller.parameters())]); m.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(*got))

def test_a_checkpoint_drops_what_the_kernel_saved():
    m, saved = tiny(), []
    def pack(t): saved.append(t.numel()*t.element_size()); return t
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t): m(x)
    assert max(saved) > 20_000   # the saved chunks are a tensor like any other

def test_saved_tensors_may_lie_elsewhere_and_two_graphs_live_at_once():
    m = tiny()
    with torch.autograd.graph.save_on_cpu(): first = task_loss(m)
    second = task_loss(m)
    assert furthest(gradients(m, first), gradients(m, second)) == 0

def test_double_backward_on_the_reference_path_and_a_word_on_the_other():
    def second(model):
        address = model.controller.bank.address.weight
        g = torch.autograd.grad(task_loss(model), address, create_graph=True)[0]
        return torch.autograd.grad(g.square().sum(), address)[0]
    m = set_memory_path(tiny(), 'reference')
    address, eps, v = m.controller.bank.address.weight, 1e-6, torch.randn(8, 12, generator=gen(1)).double()
    def g_norm():
        return torch.autograd.grad(task_loss(m), address)[0].square().sum()
    exact = (second(m)*v).sum()
    with torch.no_grad(): address += eps*v
    above = g_norm()
    with torch.no_grad(): address -= 2*eps*v
    assert abs((above - g_norm())/(2*eps) - exact) < 1e-4*abs(exact)
    with pytest.raises(RuntimeError, match="differentiated twice.*set_memory_path"): second(tiny())

def test_torch_func_takes_the_reference_path():
    m, paths = tiny(), []
    parameters = dict(m.named_parameters())
    def loss(parameters, inputs, targets):
        out = torch.func.functional_call(m, parameters, (inputs,))
        paths.append(out.info['path_reason'])
        return F.cross_entropy(out.logits.flatten(0, 1), targets.flatten())
    want = gradients(m, task_loss(m))
    got = torch.func.grad(loss)(parameters, x, y)
    assert max((got[n] - g).abs().max().item() for n, g in want.items() if g is not None) < 1e-12 and paths == ["inside a torch.func transform"]
    rows = torch.vmap(torch.func.grad(lambda p, i, t: loss(p, i.unsqueeze(0), t)), (None, 0, 0))(parameters, x, y)
    for r in range(2):
        alone = gradients(m, loss(parameters, x[r:r + 1], y[r:r + 1]))
        assert max((rows[n][r] - g).abs().max().item() for n, g in alone.items() if g is not None) < 1e-12
    with pytest.raises(ValueError, match="torch.func.*set_memory_path"): torch.func.grad(lambda p: loss(p, x, y))(set_memory_path(m, 'fused') and parameters)

def test_functional_call_uses_the_parameters_it_is_given():
    m, other = tiny(), MemNet(MemNetConfig.tiny(), gen(9)).double()
    out = torch.func.functional_call(m, dict(other.named_parameters()), (x,))
    assert out.info['path'] == 'fused' and torch.equal(out.logits, other(x).logits)

def small_layer(): return MemoryLayer(8, batch_first=True, generator=gen(0), n_heads=1, n_slots=4, topk=2, chunk_size=4, n_writes=2, d_key=4, d_value=4, bottleneck=4).double()

def test_compiled_models_run_both_paths(capfd):
    torch._dynamo.reset()   # what the tests before have compiled counts against its limit of recompiled frames
    layer, vectors = small_layer(), torch.randn(1, 5, 8, generator=gen(1)).double()
    fast = torch.compile(layer, backend='eager')
    (a, state), (b, state_b) = fast(vectors), layer(vectors)
    assert torch.equal(a, b) and torch.equal(fast(vectors, state)[0], layer(vectors, state_b)[0])
    grads = [torch.autograd.grad(f(vectors)[0].sum(), list(layer.parameters()), allow_unused=True) for f in (fast, layer)]
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(*grads))
    torch._dynamo.reset()
    nodes = []
    whole = torch.compile(set_memory_path(layer, 'reference'), backend=lambda graph, _: nodes.append(len(graph.graph.nodes)) or graph, fullgraph=True)
    assert torch.equal(whole(vectors)[0], layer(vectors)[0]) and len(nodes) == 1
    assert not [line for line in capfd.readouterr().err.splitlines() if not line.startswith('memnet: compiling')]   # which a first run says

def compiled_and_eager(model, pieces, call):
    "Answers, states and gradients of a stream in pieces, compiled as one graph a piece and not."
    torch._dynamo.reset()
    out = []
    for f in (torch.compile(model, backend='eager', fullgraph=True), model):
        state, answers = None, []
        for piece in pieces:
            y, state = call(f, piece, state)
            answers.append(y)
        y = torch.cat(answers, 1)
        grads = torch.autograd.grad(y.square().sum(), list(model.parameters()), allow_unused=True)
        out.append([y, *(z for _, z in tree_leaves(state)), *(g for g in grads if g is not None)])
    torch._dynamo.reset()
    for a, b in zip(*out, strict=True): assert a.dtype == b.dtype and a.shape == b.shape and (a.numel() == 0 or (a.double() - b.double()).abs().max() < 1e-9)

def test_a_layer_that_goes_on_is_one_graph():
    "Two tokens, and two pieces of three that end inside of a chunk of four and on its border."
    layer, vectors = set_memory_path(small_layer(), 'reference'), torch.randn(2, 8, 8, generator=gen(1)).double()
    compiled_and_eager(layer, vectors.split((2, 3, 3), 1), lambda f, y, state: f(y, state))

def test_a_model_that_goes_on_is_one_graph():
    "Token by token over a border, each step the same graph, and one graph for the start."
    model = set_memory_path(MemNet(MemNetConfig.tiny(chunk_size=3, n_writes=2, n_layers=1), gen(0)).double(), 'reference')
    def call(f, y, state):
        out = f(y, state)
        return out.logits, out.state
    compiled_and_eager(model, x[:, :6].split(1, 1), call)

def test_a_step_is_exported_to_a_file_and_goes_on(tmp_path):
    step = TensorStep(MemNet(MemNetConfig.tiny(chunk_size=3, n_writes=2, n_layers=1), gen(0)).double().eval())
    with torch.no_grad():
        torch.export.save(torch.export.export(step, (x[:, :1], *step.empty_state(2))), tmp_path/'step.pt2')
        program = torch.export.load(tmp_path/'step.pt2').module()
        state = there = step.empty_state(2)
        for t in range(8):
            (logits, *state), (far, *there) = step(x[:, t:t + 1], *state), program(x[:, t:t + 1], *there)
            for a, b in zip((logits, *state), (far, *there), strict=True): assert a.dtype == b.dtype and (a.numel() == 0 or (a.double() - b.double()).abs().max() < 1e-9)

def test_inference_can_be_exported():
    layer = small_layer()
    class Reader(nn.Module):
        def __init__(self): super().__init__(); self.layer = layer
        def forward(self, x): return self.layer(x)[0]
    vectors = torch.randn(1, 4, 8, generator=gen(1)).double()
    exported = torch.export.export(Reader(), (vectors,)).module()
    assert (exported(2*vectors) - layer(2*vectors)[0]).abs().max() < 1e-12

def test_copies_pickles_and_modules_without_numbers():
    m = tiny(dream_every=1)
    for other in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))): assert torch.equal(other(x).logits, m(x).logits)
    with torch.device('meta'): bare = MemNet(MemNetConfig.tiny(dream_every=1))
    assert all(p.is_meta for p in bare.parameters())
    for call in (lambda: bare(x.to('meta')), lambda: bare(x), lambda: m(x.to('meta')), lambda: bare.controller.bank(torch.zeros(1, 4, 12, device='meta'))):
        with pytest.raises(ValueError, match='to_empty'): call()
    bare = bare.to_empty(device='cpu').double()
    bare.load_state_dict(m.state_dict())
    assert torch.equal(bare(x).logits, m(x).logits)

def test_two_threads_share_one_model():
    m, wrong = tiny(), []
    want = gradients(m, task_loss(m))
    def work():
        for _ in range(5): wrong.append(furthest(gradients(m, task_loss(m)), want))
    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(wrong) == 10 and max(wrong) == 0

class Rows(torch.utils.data.Dataset):
    "A model that answers inside a worker of a loader."
    def __init__(self, model): self.model = model
    def __len__(self): return 2
    def __getitem__(self, i):
        with torch.no_grad(): return self.model(x[i:i + 1]).logits[0]

def test_a_worker_of_a_loader_runs_the_kernel():
    m = tiny()
    with torch.no_grad(): want = m(x).logits
    loader = torch.utils.data.DataLoader(Rows(m), batch_size=2, num_workers=1, multiprocessing_context='fork')
    assert (next(iter(loader)) - want).abs().max() < 1e-12

def test_a_bank_of_ones_own_goes_in_and_is_part_of_the_file(tmp_path):
    class Own(MultiHeadMemoryBank):
        def read_chunk(self, f, state, generator=None): return super().read_chunk(f._replace(gate=f.gate/2), state, generator)
    m = tiny(Own)
    made = MemNet(MemNetConfig.tiny(), bank=lambda cfg, g: Own(cfg, g))
    assert type(m.controller.bank) is type(made.controller.bank) is type(MemoryLayer(12, bank=Own, n_heads=2).banks[0]) is Own
    with pytest.raises(ValueError, match="another config: .*n_slots"): MemoryLayer(12, bank=Own(MemNetConfig.tiny()))
    with pytest.raises(ValueError, match="got bank=3"): MemoryLayer(12, bank=3)
    with pytest.raises(ValueError, match="memory=False"): MemNet(MemNetConfig.tiny(memory=False), bank=Own)
    m.save(tmp_path)
    assert torch.equal(MemNet.load(tmp_path, bank=Own).double()(x).logits, m(x).logits)
    with pytest.raises(ValueError, match=r"MemNet\(bank=Own\), not a MemNet: .*bank="): MemNet.load(tmp_path)

# --- the process
def python(code, cwd=ROOT, **env):
    "Run code in a new process."
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=cwd, env={k: v for k, v in (os.environ | env).items() if v is not None}, capture_output=True, text=True)

SHORT_RUN = """
    import warnings; warnings.simplefilter('always')
    import torch; torch.set_num_threads(1)
    from memnet import MemNet, MemNetConfig
    model = MemNet(MemNetConfig.tiny()).double()
    out = model(torch.arange(8).view(1, 8))
    model.objective(out, torch.arange(8).view(1, 8))["total"].backward()
    print(out.info["path"], "|", out.info["path_reason"], "|", out.logits.sum().item())
"""

def test_without_a_compiler_the_reference_path_runs(tmp_path):
    answer = MemNet(MemNetConfig.tiny()).double()(torch.arange(8).view(1, 8)).logits.sum().item()
    (tmp_path/"missing").mkdir(); (tmp_path/"missing"/"numba.py").write_text("raise ImportError('not here')")
    (tmp_path/"newer").mkdir(); (tmp_path/"newer"/"numba.py").write_text("__version__ = '9.1.0'")
    for env, reason in ((dict(NUMBA_DISABLE_JIT="1"), "NUMBA_DISABLE_JIT is set"), (dict(PYTHONPATH=f"{tmp_path/'missing'}:{ROOT}"), "numba cannot be imported (ImportError: not here)"),
                        (dict(PYTHONPATH=f"{tmp_path/'newer'}:{ROOT}"), "numba 9.1.0 is newer than this package was tried with (below 0.69)")):
        done = python(SHORT_RUN, **env)
        path, why, total = (s.strip() for s in done.stdout.split("|"))
        assert (path, why) == ("reference", reason) and abs(float(total) - answer) < 1e-9, done.stderr
        assert done.stderr.count("RuntimeWarning") == 1 and "compiling" not in done.stderr

def package_without_a_place(tmp_path):
    "A copy of the package whose folder for compiled code cannot be made, and an environment without a home."
    shutil.copytree(ROOT/"memnet", tmp_path/"memnet", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path/"memnet"/"kernels"/"__pycache__").write_text("in the way")
    return dict(PYTHONPATH=str(tmp_path), HOME="/dev/null", XDG_CACHE_HOME="/dev/null", NUMBA_CACHE_DIR=None, PYTHONDONTWRITEBYTECODE="1")

def test_a_package_that_cannot_be_written_and_no_home(tmp_path):
    env = package_without_a_place(tmp_path)
    code = """
        import warnings; warnings.simplefilter('always')
        import memnet.models.memnet, memnet
        from memnet.foundations.compilation import code_folders, compiled
        @compiled()
        def f(x): return x + 1
        print(memnet.__file__, f(1))
        f(1.)
    """
    done = python(code, cwd=tmp_path, TMPDIR=str(tmp_path), **env)
    assert str(tmp_path) in done.stdout and "2" in done.stdout, done.stderr
    assert list(tmp_path.glob("memnet-*/*.code")) and done.stderr.count("RuntimeWarning") == 1 and "NUMBA_CACHE_DIR" in done.stderr
    private = next(tmp_path.glob("memnet-*"))
    assert private.stat().st_mode & 0o077 == 0
    private.chmod(0o777)                               # somebody else may have put something there
    done = python(code, cwd=tmp_path, TMPDIR=str(tmp_path), **env)
    assert "2" in done.stdout and "cannot be kept" in done.stderr and done.stderr.count("RuntimeWarning") == 1, done.stderr

def test_damaged_machine_code_is_compiled_again_and_one_line_says_so(tmp_path):
    code = """
        from memnet.foundations.compilation import compiled
        @compiled('a test', 3)
        def f(x): return x*x
        print(f(3.), sum(f.stats.cache_hits.values()))
    """
    (tmp_path/"module.py").write_text(textwrap.dedent(code))
    def run(): return python("import module", cwd=tmp_path, PYTHONPATH=f"{ROOT}:{tmp_path}", NUMBA_CACHE_DIR=str(tmp_path/"code"))
    first, again = run(), run()
    assert first.stdout == "9.0 0\n" and again.stdout == "9.0 1\n", first.stderr
    assert first.stderr.count("\n") == 1 and "a test" in first.stderr and "about 3 s" in first.stderr and again.stderr == ""
    file, = (tmp_path/"code"/"memnet").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])       # more kinds of damage in the chapter on compilation
    assert run().stdout == "9.0 0\n" and len(file.read_bytes()) == len(whole)
    assert python("import module", cwd=tmp_path, PYTHONPATH=f"{ROOT}:{tmp_path}", NUMBA_CACHE_DIR=str(tmp_path/"code"), NUMBA_CPU_NAME="generic").stdout == "9.0 0\n"   # another processor

def test_the_import_and_a_call_change_nothing_of_the_process_and_reach_for_no_network():
    done = python("""
        import socket, sys, warnings
        def refuse(*args, **kwargs): raise AssertionError("a connection")
        socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
        import numpy as np, torch, locale, signal
        torch.set_num_threads(1)
        def settings(): return (torch.get_num_threads(), torch.get_num_interop_threads(), torch.initial_seed(), torch.get_rng_state().sum().item(), np.random.get_state()[1].sum(), np.geterr(), warnings.filters[:],
                                torch.get_default_dtype(), torch.is_grad_enabled(), locale.setlocale(locale.LC_ALL), sys.getrecursionlimit(), signal.getsignal(signal.SIGINT), torch.are_deterministic_algorithms_enabled())
        import numba
        before = settings()
        from memnet import MemNet, MemNetConfig, MemoryLayer, fit, set_memory_path
        from memnet.training.schedule import TrainConfig
        from memnet.tasks.long_range import LongRangeRecall
        model = MemNet(MemNetConfig.tiny()).double()
        model(torch.arange(8).view(1, 8))
        assert settings() == before, [(a, b) for a, b in zip(before, settings()) if a != b]
        assert 'matplotlib' not in sys.modules and 'torch._dynamo' not in sys.modules
    """)
    assert done.returncode == 0, done.stderr
