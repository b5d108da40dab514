"""Numbers that must hold on both paths: read weights sum to one, rounding decides nothing, extremes stay finite, and the corners of the kernel are the reference."""
import itertools, math, random
import pytest, torch
from torch import Tensor
from memnet.foundations.trees import tree_leaves
from memnet.memory.bank import MultiHeadMemoryBank
from memnet.memory.config import MemoryConfig
from memnet.memory.plasticity import LAM_RANGE
from memnet.memory.reading import Features
from memnet.models.memory_layer import MemoryLayer
from memnet.models.memnet import MemNet, MemNetConfig

torch.set_num_threads(1)
f64 = torch.float64

def gen(seed): return torch.Generator().manual_seed(seed)
def tokens(*shape, seed=1, words=11): return torch.randint(0, words, shape, generator=gen(seed))
def far(a, b): return (a.double() - b.double()).abs().max().item() if a.numel() else 0.
def features(*shape, seed=1, words=0):
    "Random features, or `words` of them again and again."
    if not words: return torch.randn(*shape, generator=gen(seed), dtype=f64)
    return torch.randn(words, shape[-1], generator=gen(seed), dtype=f64)[torch.randint(0, words, shape[:-1], generator=gen(seed + 1))]

def bank_of(seed=0, **over):
    "A bank whose gates, spreading and decay differ from token to token."
    bank = MultiHeadMemoryBank(MemoryConfig.tiny(**over), gen(seed)).double()
    with torch.no_grad():
        bank.gate.weight.mul_(10)
        if bank.config.graph: bank.spread.weight.mul_(10)
        if bank.config.forgetting: bank.decay.bias.fill_(-3.)
    return bank

class Weights:
    "An observer that keeps the read weights of all rows."
    def __init__(self): self.seen = []
    def n_rows(self, clock, next_clock): return len(clock)
    def on_chunk(self, event): self.seen.append(event.weights)

# --- read weights

RULES = [dict(hops=1), dict(hops=3), dict(hops=2, rho=.5), dict(hops=2, gamma=.8), dict(hops=2, eta_minus=.9), dict(hops=3, eta_minus=-1., n_writes=0), dict(hops=3, n_writes=0, match=.6), dict(policies=("uniform", "topk"))]

@pytest.mark.parametrize("over", RULES, ids=str)
@pytest.mark.parametrize("path", ["reference_path", "fused_path"])
def test_read_weights_sum_to_one_as_soon_as_something_is_written(over, path):
    bank = bank_of(gate_floor=0., **over)
    x = features(2, 40, 12, words=7)
    f, state = bank.features(x), bank.empty_state(2)
    if path == "fused_path" and bank.choose_path(f, state)[0] != "fused": pytest.skip("the kernel has no such rule")
    seen = Weights()
    with torch.no_grad(): getattr(bank, path)(f, state, observer=seen)
    first, rest = seen.seen[0][:, :, :1], [w.sum(-1) for w in (seen.seen[0][:, :, 1:], *seen.seen[1:])]
    assert all((w >= 0).all() for w in seen.seen) and not first.any()      # nothing was written before the first token
    assert max(far(s, torch.ones_like(s)) for s in rest) < 1e-12

def test_read_weights_of_the_default_model_sum_to_one():
    "The default graph on a default row; a read of a mean of 0.62 is the fault that this test stands for."
    model = MemNet(MemNetConfig(vocab_size=32), gen(0))
    model.controller.bank.observer = seen = Weights()
    with torch.no_grad(): model(tokens(2, 128, words=32))
    sums = torch.cat([w.sum(-1) for w in seen.seen], 2)[:, :, 1:]
    assert far(sums, torch.ones_like(sums)) < 1e-5

# --- rounding

@pytest.mark.parametrize("match", [1., .9])
@pytest.mark.parametrize("over", [dict(), dict(n_writes=0), dict(tied_addresses=False)], ids=str)
def test_one_token_again_and_again_has_one_slot_on_both_paths_and_in_every_row(match, over):
    bank = MultiHeadMemoryBank(MemoryConfig(**(dict(dim=64, match=match) | over)), gen(0))
    for rows in (1, 2, 3, 7, 16):
        x = torch.randn(64, generator=gen(rows)).expand(rows, 70, 64).contiguous()
        with torch.no_grad(): states = [bank(x, record=record)[1] for record in (False, True)]
        for s in states: assert (s.strength > 0).sum(-1).eq(1).all()
        for (_, a), (_, b) in zip(*map(tree_leaves, states)): assert far(a, b) < 1e-4

def used(state): return (state.strength > 0).sum(-1)

@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 33])
def test_equal_rows_take_equal_slots(rows):
    "What a row writes depends neither on its place in the batch nor on the size of the batch nor on the path."
    bank = MultiHeadMemoryBank(MemoryConfig(dim=64, match=1., n_slots=12), gen(0))
    x = torch.randn(9, 64, generator=gen(1))[torch.randint(0, 9, (96,), generator=gen(2))].expand(rows, 96, 64)
    with torch.no_grad(): states = [bank(x.contiguous(), record=record)[1] for record in (False, True)] + [bank(x[:1].contiguous())[1]]
    for s in states:
        assert (used(s) == used(states[2])).all() and used(s).max() <= 9
        assert far(s.keys, states[2].keys.expand_as(s.keys)) < 1e-5 and (s.age == states[2].age).all()

def test_equal_slots_are_read_by_position_and_evicted_by_position():
    bank = bank_of(n_slots=9, topk=3, forgetting=False, gate_floor=.5)
    state = bank.empty_state(2)
    key = torch.nn.functional.normalize(features(1, 2, 1, 4), dim=-1).expand(2, 2, 9, 4)
    state = state._replace(keys=key.clone(), strength=torch.full_like(state.strength, .3) + 1e-12*torch.randn(state.strength.shape, generator=gen(2), dtype=f64), values=torch.randn(state.values.shape, generator=gen(3), dtype=f64))
    x = features(1, 8, 12, seed=4).expand(2, 8, 12)
    with torch.no_grad(): plain, shown = (bank(x, state, record=record) for record in (False, True))
    read = shown[2]["read"]
    assert far(plain[0], shown[0]) < 1e-9 and far(plain[1].keys, shown[1].keys) < 1e-9
    assert far(read[0], read[1]) < 1e-9
    for slot, new in zip(shown[2]["write_slot"].flatten(0, 1), shown[2]["allocated"].flatten(0, 1)): assert slot[new].tolist() == list(range(int(new.sum()))) and new.any()

# --- extremes

EXTREMES = [dict(zip(("part", "value"), v)) for v in itertools.product(("log_logit_scale", "lam_logit", "decay.bias", "decay.weight", "gate.bias", "spread.bias", "policy.bias", "address.weight", "content.weight"), (1e4, -1e4))]

def outcome(model, x, path, monkeypatch=None):
    "Logits, state and gradients on one path."
    model.zero_grad()
    out = model(x, record=path == "reference")
    model.objective(out, tokens(*x.shape[:2], seed=5))["total"].backward()
    return [out.logits.detach(), *(z.detach() for _, z in tree_leaves(out.state) if z.is_floating_point())], [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]

@pytest.mark.parametrize("case", EXTREMES, ids=str)
def test_a_learned_number_may_take_any_value(case):
    model = MemNet(MemNetConfig.tiny(), gen(0)).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if case["part"] in name: p.fill_(case["value"])
    (a, da), (b, db) = (outcome(model, tokens(2, 21), path) for path in ("fused", "reference"))
    for x in (*a, *b, *da, *db): assert x.isfinite().all()
    assert max(map(far, a, b)) < 1e-7 and max(far(x, y)/(1 + y.abs().max().item()) for x, y in zip(da, db)) < 1e-6

@pytest.mark.parametrize("factor", [0., 1e-40, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, f64], ids=str)
def test_all_weights_at_once_may_be_nothing_or_huge(factor, dtype):
    model = MemNet(MemNetConfig.tiny(), gen(0)).to(dtype)
    with torch.no_grad():
        for p in model.parameters(): p.mul_(factor)
    for path in ("fused", "reference"):
        numbers, gradients = outcome(model, tokens(2, 21), path)
        for x in numbers: assert x.isfinite().all()
        if factor*torch.finfo(dtype).eps < 1e-4:                   # in single precision the square of a reconstruction overflows there: `fit` stops
            for x in gradients: assert x.isfinite().all()

@pytest.mark.parametrize("size", [1e14, 1e-40, 0.])
def test_inputs_of_any_size(size):
    model = MemNet(MemNetConfig.tiny(input_dim=6, n_outputs=11), gen(0))
    x = torch.randn(2, 21, 6, generator=gen(3))*size
    for path in ("fused", "reference"):
        for xs in outcome(model, x, path):
            for y in xs: assert y.isfinite().all()

@pytest.mark.parametrize("value", [1e16, 1e30, math.inf, math.nan])
def test_inputs_beyond_reckoning_are_refused(value):
    x = torch.zeros(1, 3, 6); x[0, 1, 2] = value
    with pytest.raises(ValueError, match="inputs must"): MemNet(MemNetConfig.tiny(input_dim=6, n_outputs=11), gen(0))(x)
    with pytest.raises(ValueError, match="input must"): MemoryLayer(6, n_heads=1)(x)

@pytest.mark.parametrize("over", [dict(logit_scale=v) for v in (0., -1., 1e300, math.inf, math.nan)] + [dict(lam=v) for v in (0., 1., 1e-300, math.nan)], ids=str)
def test_settings_that_leave_the_range_are_refused(over):
    with pytest.raises(ValueError, match=next(iter(over))): MemoryConfig.tiny(**over)

def test_a_parameter_beyond_its_bound_is_used_as_the_bound_and_can_come_back():
    bank = bank_of()
    with torch.no_grad(): bank.log_logit_scale.fill_(1e30); bank.lam_logit.fill_(-1e30)
    p = bank.bank_parameters()
    assert far(p.logit_scale, torch.full((1, 2, 1, 1), 1e3)) < 1e-9 and far(p.lam, torch.full((1, 2, 1, 1), LAM_RANGE[0])) < 1e-12
    assert all(g.abs().min() > 0 for g in torch.autograd.grad(p.logit_scale.sum() + p.lam.sum(), (bank.log_logit_scale, bank.lam_logit)))

def test_what_is_not_a_number_is_not_hidden():
    "A key that is not a number shows in the read vectors on both paths, so that a training loop can stop."
    bank = bank_of()
    f = bank.features(features(2, 12, 12))
    key = f.key.clone(); key[0, 0, 3] = math.nan
    f = Features(key, key, *f[2:])
    assert bank.choose_path(f, bank.empty_state(2)) == ("reference", "what is not a number")
    with torch.no_grad(): assert bank.reference_path(f, bank.empty_state(2))[0].isnan().any()

# --- the kernel in its corners

def corner(i):
    "Sizes at their ends: one token, one slot, a row shorter than its chunk, more writes than tokens, no gate above the floor, rows without a real token."
    r = random.Random(i)
    C, N = r.choice([1, 2, 16]), r.choice([1, 2, 33])
    cfg = dict(chunk_size=C, n_slots=N, n_heads=1, n_writes=r.choice([0, C]), topk=r.choice([1, N]), hops=r.choice([1, 3]), rho=r.choice([0., .5]), match=r.choice([-1., .8, 1.]),
               gate_floor=r.choice([0., .5, 1.]), tied_addresses=r.random() < .5, forgetting=r.random() < .7, graph=r.random() < .8, d_key=r.choice([1, 3]), d_value=1 + r.choice([0, 3]))
    T = r.choice([1, 3, C, C + 1])
    real = torch.tensor([[r.choice([0, 1, T])], [r.choice([0, T])]])
    return cfg, T, r.choice([None, torch.arange(T).expand(2, T) < real]), r.choice([0, 1, 20])

def both_paths(bank, x, state, mask):
    "Reads, mass and state of both paths, and the gradient of a random function of them."
    results = []
    for path in ("reference_path", "fused_path"):
        y = x.clone().requires_grad_()
        start = state._replace(**{name: getattr(state, name).clone().requires_grad_() for name in ("keys", "values", "strength", "edges", "trace")})
        read, new, mass = getattr(bank, path)(bank.features(y, mask), start, mask)[:3]
        parts = [read, mass, *(z for z in new if isinstance(z, Tensor) and z.requires_grad)]
        total = sum((z*torch.randn(z.shape, generator=gen(k), dtype=z.dtype)).sum() for k, z in enumerate(parts))
        leaves = [y, *bank.parameters(), *(z for z in start if isinstance(z, Tensor) and z.requires_grad)]
        given = list(torch.autograd.grad(total, leaves, allow_unused=True))
        if bank.config.graph:     # an empty slot has no edges and no trace, and no edge leads from a slot to itself: their derivatives mean nothing
            full = (state.strength > 0).double()
            given[-2] = given[-2]*full.unsqueeze(-1)*full.unsqueeze(-2)*(1 - torch.eye(full.shape[-1], dtype=f64))
            given[-1] = given[-1]*full
        results.append(([z.detach() for z in (read, mass, *new) if isinstance(z, Tensor)], [torch.zeros_like(a) if g is None else g for a, g in zip(leaves, given)]))
    return results

@pytest.mark.parametrize("block", range(4))
def test_the_kernel_is_the_reference_in_its_corners(block):
    for i in range(15*block, 15*block + 15):
        cfg, T, mask, before = corner(i)
        bank = bank_of(i, **cfg)
        state = bank.empty_state(2)
        with torch.no_grad():
            if before: state = bank(features(2, before, 12, seed=i, words=5), state)[1]
        (a, da), (b, db) = both_paths(bank, features(2, T, 12, seed=i + 1, words=4), state, mask)
        assert max(map(far, a, b)) < 1e-9 and max(map(far, da, db)) < 1e-9, (i, cfg, T, before)
