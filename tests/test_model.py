"""The whole system at once: every part switched on and off, odd lengths, long streams, all models behind one call."""
import itertools
import pytest, torch
from memnet.models.attention_baselines import WindowedTransformer
from memnet.models.recurrent import GRUConfig, GRUModel, LSTMConfig, LSTMModel
from memnet.foundations.trees import tree_leaves
from memnet.models.memnet import MemNet, MemNetConfig
from memnet.tasks.long_range import LongRangeRecall

torch.set_num_threads(1)

def gen(seed): return torch.Generator().manual_seed(seed)
def tiny(**over): return MemNet(MemNetConfig.tiny(**over), gen(0)).double()
def tokens(*shape, seed=1): return torch.randint(0, 11, shape, generator=gen(seed))
def worst(a, b): return max((p.double() - q.double()).abs().max().item() for (_, p), (_, q) in zip(tree_leaves(a), tree_leaves(b)) if p.numel())

SWITCHES = [dict(zip(("graph", "tied_addresses", "forgetting", "n_writes", "n_layers"), v))
            for v in itertools.product((True, False), (True, False), (True, False), (0, 4), (0, 3))]

@pytest.mark.parametrize("over", SWITCHES, ids=lambda d: " ".join(f"{k}={v:d}" for k, v in d.items()))
def test_stream_and_padding_with_every_part_on_and_off(over):
    m, x = tiny(**over), tokens(2, 19)
    with torch.no_grad():
        whole, first = m(x), m(x[:, :8])
        second = m(x[:, 8:], first.state)
        assert (torch.cat([first.logits, second.logits], 1) - whole.logits).abs().max() < 1e-10 and worst(second.state, whole.state) < 1e-10
        mask = torch.arange(19) < torch.tensor([[19], [10]])
        padded, alone = m(x, mask=mask), m(x[1:, :10])
    assert (padded.logits[1:, :10] - alone.logits).abs().max() < 1e-10
    assert worst(tuple(z[1:] for _, z in tree_leaves(padded.state)), alone.state) < 1e-10

def test_chunked_is_token_by_token_through_the_whole_model():
    "Without a write budget the size of the chunk is a matter of speed: answers, state and every gradient."
    got = []
    for chunk in (1, 4, 8, 30):
        m = tiny(chunk_size=chunk, n_writes=0, n_slots=3, topk=2, eta_minus=.2, gamma=.9, hops=2)
        out = m(tokens(2, 21))
        m.objective(out, tokens(2, 21, seed=2))["total"].backward()
        got.append((out.logits.detach(), m.detach_state(out.state), tuple(p.grad for p in m.parameters())))
    for other in got[1:]:
        for a, b in zip(got[0], other): assert worst(a, b) < 1e-8

def test_every_parameter_of_the_default_model_gets_a_gradient():
    task = LongRangeRecall()
    m, b = MemNet(MemNetConfig(vocab_size=task.vocab_size), gen(0)), task.sample(2, gen(1))
    m.objective(m(b.inputs, generator=gen(2)), b.targets)["total"].backward()
    assert [n for n, p in m.named_parameters() if p.grad is None or not p.grad.abs().max() > 0 or not p.grad.isfinite().all()] == []

def test_a_long_stream_stays_finite_and_keeps_its_size():
    m, state = tiny().float(), None
    with torch.no_grad():
        for i in range(60):
            out = m(tokens(1, 64, seed=i), state, generator=gen(i))
            state = out.state
    assert out.logits.isfinite().all() and all(z.isfinite().all() for _, z in tree_leaves(state) if z.is_floating_point())
    assert state.memory.clock.item() == 60*64
    assert sum(z.numel()*z.element_size() for _, z in tree_leaves(state)) == m.state_bytes()

MODELS = [(MemNet, MemNetConfig), (WindowedTransformer, MemNetConfig), (LSTMModel, LSTMConfig), (GRUModel, GRUConfig)]

@pytest.mark.parametrize("kind, config", MODELS, ids=[k.__name__ for k, _ in MODELS])
def test_all_models_answer_the_same_call(kind, config, tmp_path):
    m, x = kind(config.tiny()), tokens(3, 8)
    out = m(x, state=None, mask=torch.ones(3, 8, dtype=torch.bool), reset=None, generator=gen(0), record=False)
    again = m(x, state=m.detach_state(out.state), reset=torch.tensor([True, False, True]))
    assert torch.allclose(again.logits[0], m(x[:1]).logits[0], atol=1e-5) and out.logits.shape == (3, 8, 11)
    terms = m.objective(again, x)
    assert {"total", "task"} <= set(terms) and set(terms) - {"total", "task"} == set(out.losses)
    m.save(tmp_path)
    assert torch.equal(kind.load(tmp_path)(x).logits, m(x).logits)

COUNTERS = ("age", "last_read", "clock")

def aged(state, tokens_ago):
    "The same memory, so many tokens later in the life of its stream."
    m, old = state.memory, state.memory.strength > 0
    return state._replace(memory=m._replace(age=m.age + tokens_ago*old, last_read=m.last_read + tokens_ago*(m.last_read > 0), clock=m.clock + tokens_ago))

@pytest.mark.parametrize("record", (False, True), ids=("fused", "reference"))
def test_counters_are_whole_numbers_and_exact_beyond_what_float32_can_count(record):
    "2^24 + 1 is no float32: a slot aged by 0 or 2 where one token went by."
    m, x = tiny(gate_floor=1.).float(), tokens(2, 64)
    writer = tiny().float(); writer.load_state_dict(m.state_dict())
    with torch.no_grad():
        start = aged(writer(x).state, 2**24)
        state = start
        for t in range(64): state = m(x[:, t:t + 1], state, record=record).state
        once = m(x, start, record=record).state
    before, after, whole = start.memory, state.memory, once.memory
    used = before.strength > 0
    assert used.any() and {getattr(after, k).dtype for k in COUNTERS} == {torch.long}
    assert torch.equal(after.age, (before.age + 64)*used) and torch.equal(after.age, whole.age)
    assert (after.last_read > 2**24).any() and torch.equal(after.last_read, whole.last_read) and torch.equal(after.clock, before.clock + 64)

@pytest.mark.parametrize("half", (torch.bfloat16, torch.float16))
def test_a_call_under_autocast_takes_the_state_it_gave(half):
    m, x, state = tiny(dream_every=1).float(), tokens(2, 24), None
    plain, fresh = m(x).logits, m.empty_state(2)
    with torch.autocast("cpu", dtype=half):
        for piece in x.split(8, 1):
            out = m(piece, state)
            state = m.dream(out.state)
            assert [(n, z.shape, z.dtype) for n, z in tree_leaves(state.memory)] == [(n, z.shape, z.dtype) for n, z in tree_leaves(fresh.memory)]
    assert out.logits.isfinite().all() and (out.logits.float() - plain[:, 16:]).abs().max() < .3*plain.abs().max()

@pytest.mark.parametrize("half", (torch.bfloat16, torch.float16))
def test_a_model_in_half_precision_keeps_its_memory_in_single(half):
    m, x = tiny(dream_every=1).to(half), tokens(2, 24)
    single = tiny(dream_every=1).to(half).float()
    out = m(x)
    again = m(x, m.dream(out.state))
    assert out.logits.dtype == half and again.logits.isfinite().all()
    memory = out.state.memory
    assert {z.dtype for n, z in tree_leaves(memory) if z.is_floating_point()} == {torch.float32} and {getattr(memory, k).dtype for k in COUNTERS} == {torch.long}
    assert memory.strength.max() > 0 and (out.logits.float() - single(x).logits).abs().max() < .2*single(x).logits.abs().max()
    m.objective(again, x)["total"].backward()
    assert all(p.grad.isfinite().all() for p in m.parameters() if p.grad is not None)
