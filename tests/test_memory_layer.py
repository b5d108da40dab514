"""A memory layer in the place of an LSTM: one answer in every form of a call, what a loop does with a state, what trains inside it, and what is refused."""
import copy, inspect, pickle, warnings
import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint
from memnet import MemoryLayer, set_memory_path
from memnet.memory.state import forget
from memnet.models.layer_interface import MemoryLayerState

torch.set_num_threads(1)
SMALL = dict(n_heads=2, n_slots=5, topk=3, chunk_size=6, n_writes=3, d_key=4, d_value=3, bottleneck=7)

def gen(seed=0): return torch.Generator().manual_seed(seed)
def draw(*shape, seed=0): return torch.randn(*shape, generator=gen(seed), dtype=torch.double)
def make(*args, **over): return MemoryLayer(*(args or (8,)), **SMALL | dict(dtype=torch.double) | over)
def close(a, b, eps=1e-10): return (a - b).abs().max().item() < eps
def equal(a, b): return all(close(p.double(), q.double()) for p, q in zip(a, b, strict=True))

def test_names_and_defaults_are_those_of_an_lstm():
    ours, theirs = (inspect.signature(c).parameters for c in (MemoryLayer, nn.LSTM.__init__))
    lstm = dict(input_size=None, hidden_size=None, num_layers=1, bias=True, batch_first=False, dropout=0., bidirectional=False, proj_size=0, device=None, dtype=None)
    assert list(ours)[:10] == list(lstm) and all(ours[n].default == d for n, d in lstm.items() if n != "input_size")
    made = nn.LSTM(3, 5)
    assert all(getattr(MemoryLayer(3, 5, **SMALL), n) == getattr(made, n) for n in lstm if n not in ("device", "dtype"))
    assert list(inspect.signature(MemoryLayer.forward).parameters)[1:3] == list(inspect.signature(nn.LSTM.forward).parameters)[1:3]

@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 15), min_size=1, max_size=4), st.booleans(), st.integers(1, 3), st.booleans(), st.integers(0, 2**20))
def test_every_form_of_a_call_gives_one_answer(lengths, batch_first, num_layers, residual, seed):
    layer = make(5, 8, num_layers, batch_first=batch_first, residual=residual)
    rows = [draw(n, 5, seed=seed + i) for i, n in enumerate(lengths)]
    packed, state = layer(pack_sequence(rows, enforce_sorted=False))
    out, n = pad_packed_sequence(packed, batch_first=True)
    assert n.tolist() == lengths
    x = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.arange(x.shape[1]) < n.unsqueeze(1)
    turn = (lambda y: y) if batch_first else (lambda y: y.transpose(0, 1))
    masked, masked_state = layer(turn(x), mask=turn(mask))
    assert close(turn(masked)*mask.unsqueeze(-1), out) and equal(state, masked_state)
    for i, row in enumerate(rows):
        alone, one = layer(row)
        assert close(alone, out[i, :len(row)]) and equal(one, [s.squeeze(1) for s in state.select([i])])

@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 2**20))
def test_a_stream_may_be_cut_anywhere_and_reset_before_any_token(pieces, seed):
    T, layer = sum(pieces), make(num_layers=2)
    x, reset = draw(T, 3, 8, seed=seed), torch.rand(T, 3, generator=gen(seed)) < .15
    whole, end = layer(x, reset=reset)
    outs, hidden, at = [], None, 0
    for n in pieces:
        y, hidden = layer(x[at:at + n], hidden, reset=reset[at:at + n])
        outs.append(y); at += n; hidden = tuple(hidden)
    assert close(torch.cat(outs), whole) and equal(hidden, end)
    for r in range(3):
        last = max([t for t in range(T) if reset[t, r]], default=0)
        assert close(layer(x[last:, r])[0], whole[last:, r])

def test_gradients_pass_the_cut_until_the_state_is_detached():
    layer, x = make(num_layers=2), draw(14, 2, 8)
    def grads(cut, between):
        a, h = layer(x[:cut])
        layer.zero_grad(); (a.square().sum() + layer(x[cut:], between(h))[0].square().sum()).backward()
        return [p.grad.clone() for p in layer.parameters() if p.grad is not None]
    layer.zero_grad(); layer(x)[0].square().sum().backward()
    whole = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
    assert all(close(a, b, 1e-8) for a, b in zip(grads(5, tuple), whole, strict=True)) and not all(close(a, b, 1e-8) for a, b in zip(grads(5, MemoryLayerState.detach), whole, strict=True))
    assert not any(s.requires_grad for s in layer(x)[1].detach())

def test_a_smaller_batch_a_joined_one_and_rows_in_another_order():
    layer, x = make(), draw(9, 4, 8)
    out, state = layer(x)
    follow = layer(x, state)[0]
    assert close(layer(x[:, :3], state.select(range(3)))[0], follow[:, :3]) and close(layer(x[:, [2, 0]], state.select([2, 0]))[0], follow[:, [2, 0]])
    assert close(layer(x, MemoryLayerState.stack([state.select([0]), state.select([1, 2, 3])]))[0], follow)
    assert equal(state.select(torch.tensor([True, False, False, True])), state.select([0, 3]))

def test_what_is_forgotten_is_gone():
    layer = make(num_layers=2)
    state = layer.commit(layer(draw(9, 2, 8))[1])
    emptied = MemoryLayerState.from_banks([forget(b, lambda s: s.strength > 0) for b in state.banks])
    x = draw(1, 2, 8, seed=5)
    assert close(layer(x, emptied)[0], x) and not close(layer(x, state)[0], x)

# --- what acts on the layers inside
def linears(layer): return {n: m for n, m in layer.named_modules() if isinstance(m, nn.Linear)}

def test_hooks_fire_on_every_linear_and_what_they_change_counts():
    layer, seen = make(5, 8, 2), set()
    for n, m in linears(layer).items(): m.register_forward_pre_hook(lambda *_, n=n: seen.add(n))
    before = layer(draw(9, 2, 5))[0]
    assert seen == set(linears(layer)) and "project" in seen
    layer.banks[1].out.register_forward_hook(lambda m, args, y: 0*y)
    assert not close(layer(draw(9, 2, 5))[0], before)

class Adapter(nn.Module):
    "What a low-rank adapter puts in the place of a layer."
    def __init__(self, base):
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(base.in_features, 2, bias=False).double(), nn.Linear(2, base.out_features, bias=False).double()
        nn.init.zeros_(self.up.weight)
    def forward(self, x): return self.base(x) + self.up(self.down(x))

def adapt(layer):
    for n in linears(layer):
        parent, _, last = n.rpartition(".")
        setattr(layer.get_submodule(parent), last, Adapter(layer.get_submodule(n)))

def prune_all(layer):
    for m in linears(layer).values(): prune.identity(m, "weight")

@pytest.mark.parametrize("change", [adapt, lambda l: [parametrizations.weight_norm(m) for m in linears(l).values()], prune_all], ids=["adapter", "weight norm", "pruning"])
def test_what_leaves_the_function_as_it_is_leaves_the_answers_and_trains(change):
    layer, x = make(5, 8, 2), draw(13, 2, 5)
    want = layer(x)[0]
    change(layer)
    assert close(layer(x)[0], want)
    layer(x)[0].square().sum().backward()
    moved = {n for n, p in layer.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any("project" in n for n in moved) and any("banks.1.content" in n for n in moved)

def test_pruned_weights_are_not_read():
    layer, x = make(5, 8), draw(13, 2, 5)
    before = layer(x)[0]
    for m in linears(layer).values(): prune.l1_unstructured(m, "weight", .5)
    assert not close(layer(x)[0], before, .01)

@pytest.mark.filterwarnings("ignore")   # torch speaks of the successor of this function
def test_quantised_layers_are_called():
    layer, x = make(5, 8, 2, dtype=torch.float32), draw(13, 2, 5).float()
    quantised = torch.ao.quantization.quantize_dynamic(layer, {nn.Linear}, dtype=torch.qint8)
    assert 0 < (quantised(x)[0] - layer(x)[0]).abs().max() < .5

# --- what torch does with modules
def test_copies_pickles_half_precision_and_modules_without_numbers():
    layer, x = make(5, 8, 2), draw(9, 2, 5)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))): assert torch.equal(other(x)[0], layer(x)[0])
    for bare in (make(5, 8, 2, device="meta"), meta()):
        assert all(p.is_meta for p in bare.parameters())
        for given in (x, x.to("meta")):
            with pytest.raises(ValueError, match="to_empty"): bare(given)
        bare = bare.to_empty(device="cpu").double()
        bare.load_state_dict(layer.state_dict())
        assert torch.equal(bare(x)[0], layer(x)[0])
    half = copy.deepcopy(layer).bfloat16()
    y, h = half(x.bfloat16())
    assert y.dtype == torch.bfloat16 and h.strength.dtype == torch.float32 and half(x.bfloat16(), tuple(h))[0].isfinite().all()

def meta():
    with torch.device("meta"): return make(5, 8, 2)

def test_autocast_takes_what_a_layer_before_gives_and_carries_the_state():
    first, layer, x = nn.Linear(5, 8), make(dtype=torch.float32), draw(20, 2, 5).float()
    h = None
    with torch.autocast("cpu", torch.bfloat16):
        for piece in x.split(7): y, h = layer(first(piece), h)
    y.float().square().sum().backward()
    assert h.keys.dtype == torch.float32 and first.weight.grad.isfinite().all() and first.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="input must be torch.float32"): layer(first(x).bfloat16())

@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(reentrant):
    layer, got = make(num_layers=2), []
    for call in (lambda x: layer(x)[0], lambda x: checkpoint(lambda y: layer(y)[0], x, use_reentrant=reentrant)):
        x = draw(14, 2, 8).requires_grad_()
        call(x).square().sum().backward()
        got.append([x.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]); layer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(*got, strict=True))

def test_torch_func_and_compile():
    layer, x = set_memory_path(make(num_layers=2), "reference"), draw(9, 2, 8)
    want = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()), allow_unused=True)
    got = torch.func.grad(lambda p: torch.func.functional_call(layer, p, (x,))[0].square().sum())(dict(layer.named_parameters()))
    assert all(close(g, w) for g, w in zip(got.values(), want, strict=True) if w is not None)
    fast = torch.compile(layer, backend="eager")
    y, h = fast(x)
    assert torch.equal(y, layer(x)[0]) and torch.equal(fast(x, h)[0], layer(x, layer(x)[1])[0])
    torch._dynamo.reset()

def test_the_same_seed_draws_the_same_weights_and_no_others():
    before = torch.get_rng_state()
    a, b, c = make(5, 8, 2), make(5, 8, 2, generator=gen(0)), make(5, 8, 2, generator=gen(1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters())) and not torch.equal(a.project.weight, c.project.weight)
    assert not torch.equal(a.banks[0].address.weight, a.banks[1].address.weight)

def test_dropout_acts_between_layers_in_training_alone():
    layer, x = make(num_layers=2, dropout=.5), draw(9, 2, 8)
    assert not torch.equal(layer(x)[0], layer(x)[0]) and torch.equal(layer.eval()(x)[0], make(num_layers=2)(x)[0])
    with pytest.warns(UserWarning, match="dropout=0.5 does nothing"): layer = make(dropout=.5)
    assert torch.equal(layer(x)[0], make()(x)[0])

def test_the_gates_have_the_layout_of_the_input_and_their_gradient():
    for batch_first in (False, True):
        layer = make(num_layers=3, batch_first=batch_first)
        gate = layer(draw(7, 4, 8), return_info=True)[2]["gate"]
        assert gate.shape == (3, 7, 4, 2) and torch.autograd.grad(gate.sum(), layer.banks[2].gate.bias)[0].abs().sum() > 0

def test_no_warning_in_plain_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = make(5, 8, 2)
        layer.flatten_parameters()
        layer(draw(9, 2, 5))[0].sum().backward()

def test_a_layer_is_loaded_as_what_it_was(tmp_path):
    from memnet.memory.bank import MultiHeadMemoryBank
    class Own(MultiHeadMemoryBank): pass
    make(5, 8, 2, bank=Own, norm=False).save(tmp_path)
    loaded = MemoryLayer.load(tmp_path, bank=Own)
    assert isinstance(loaded.banks[1], Own) and isinstance(loaded.banks[1].norm, nn.Identity) and loaded.config.input_size == 5
    with pytest.raises(ValueError, match=r"MemoryLayer\(bank=Own\), not a MemoryLayer: .*bank="): MemoryLayer.load(tmp_path)
    with pytest.raises(ValueError, match="not a MemNet"): __import__("memnet").MemNet.load(tmp_path)
