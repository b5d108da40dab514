"""The whole system at once: every part switched on and off, odd lengths, long streams, all models behind one call."""
import itertools, json
import pytest, torch
from memnet.models.attention_baselines import WindowedTransformer
from memnet.models.block_models import GlobalAttentionModel, GlobalConfig
from memnet.models.delta_memory import DeltaConfig, DeltaModel
from memnet.models.recurrent import GRUConfig, GRUModel, LSTMConfig, LSTMModel
from memnet.foundations.trees import tree_leaves, tree_map
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
        memory = m.detach_state(m.commit(out.state)).memory      # the last chunk of 4 and 8 is not full
        got.append((out.logits.detach(), memory._replace(pending=None), tuple(p.grad for p in m.parameters())))
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

MODELS = [(MemNet, MemNetConfig), (WindowedTransformer, MemNetConfig), (LSTMModel, LSTMConfig), (GRUModel, GRUConfig), (GlobalAttentionModel, GlobalConfig), (DeltaModel, DeltaConfig)]

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

def in_pieces(m, x, cuts, state=None, **kw):
    "Logits and last state of a stream that is cut there."
    logits, masks = [], kw.pop("mask", None)
    masks = [None]*(len(cuts) + 1) if masks is None else masks.tensor_split(cuts, 1)
    for piece, mask in zip(x.tensor_split(cuts, 1), masks):
        out = m(piece, state, mask=mask, **kw)
        logits.append(out.logits); state = out.state
    return torch.cat(logits, 1), state

CUTS = [tuple(range(1, 27)), (7, 14, 21), (8, 16), (1, 2, 13), (5,), (26,)]
ODD = [dict(), dict(n_writes=0, rho=.5), dict(n_writes=2, n_slots=3, match=.95), dict(eta_minus=.2, gamma=.9, hops=2), dict(graph=False, n_layers=0), dict(tied_addresses=False, n_layers=3),
       dict(dream_every=1, n_slots=4), dict(dream_every=2, gamma=.9), dict(chunk_size=5, n_writes=5), dict(chunk_size=1, n_writes=1), dict(policies=("random", "topk")), dict(policies=("random", "uniform"), gamma=.9)]

@pytest.mark.parametrize("over", ODD, ids=lambda d: " ".join(f"{k}={v}" for k, v in d.items()) or "default")
def test_a_stream_may_be_cut_anywhere(over):
    "Token by token, in sevens, at borders, once: the logits and every number of the state, on both paths, with and without sampling."
    m, x = tiny(**over), tokens(2, 27)
    for draws in (None, 3):
        run = lambda cuts: in_pieces(m, x, cuts, generator=None if draws is None else gen(draws))
        with torch.no_grad():
            whole = run(())
            for cuts in CUTS:
                got = run(cuts)
                assert (got[0] - whole[0]).abs().max() < 1e-9 and worst(got[1], whole[1]) < 1e-9, (cuts, draws)
    single, x = tiny(**over).float(), tokens(2, 27, seed=5)   # in single precision a number within rounding of a border between two steps may decide otherwise; in these rows none is
    with torch.no_grad(): assert (in_pieces(single, x, CUTS[0])[0] - single(x).logits).abs().max() < 1e-5

@pytest.mark.parametrize("over", (dict(), dict(gamma=.9), dict(dream_every=1)), ids=str)
def test_rows_of_any_length_in_any_call_are_rows_alone(over):
    "Padding is no time: each row of a batch whose rows bring different numbers of tokens is the row that gets its own tokens at once."
    m, lengths, rows, state, got = tiny(**over), torch.tensor([[7, 2, 0, 5, 9], [1, 1, 1, 1, 1], [0, 9, 8, 8, 0]]), tokens(3, 40), None, [[], [], []]
    seen = torch.zeros(3, dtype=torch.long)
    with torch.no_grad():
        for new in lengths.T:
            at = seen.unsqueeze(-1) + torch.arange(int(new.max()))
            out = m(rows.gather(1, at), state, mask=torch.arange(int(new.max())) < new.unsqueeze(-1))
            for r in range(3): got[r].append(out.logits[r, :new[r]])
            state, seen = out.state, seen + new
        for r in range(3):
            alone = m(rows[r:r + 1, :int(seen[r])])
            assert (torch.cat(got[r]) - alone.logits[0]).abs().max() < 1e-9
            assert worst(tuple(z[r:r + 1] for _, z in tree_leaves(state)), alone.state) < 1e-9

@pytest.mark.parametrize("over", (dict(), dict(gamma=.9), dict(dream_every=1)), ids=str)
def test_gradients_do_not_depend_on_the_cut(over):
    m, x, targets = tiny(**over), tokens(2, 21), tokens(2, 21, seed=2)
    def gradients(cuts):
        logits, state = in_pieces(m, x, cuts)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()) + sum(z.square().mean() for z in state.memory[:3])
        return torch.autograd.grad(loss, [p for p in m.parameters()], allow_unused=True)
    whole = gradients(())
    for cuts in ((3, 13), tuple(range(1, 21))):
        for (n, _), a, b in zip(m.named_parameters(), gradients(cuts), whole): assert (a is None) == (b is None) and (a is None or (a - b).abs().max() < 1e-9), n

def test_a_truncated_history_is_cut_at_the_detached_state_alone():
    "Tokens that wait keep no history once detached, but they are read again: what they write is still learned from."
    m, x = tiny(), tokens(2, 12)
    first = m(x[:, :5])
    state = m.detach_state(first.state)
    assert first.state.memory.pending.features.requires_grad and not any(z.requires_grad for _, z in tree_leaves(state))
    m(x[:, 5:], state).logits.sum().backward()
    assert m.controller.bank.content.weight.grad.abs().max() > 0

@pytest.mark.parametrize("record", (False, True), ids=("fused", "reference"))
def test_a_row_that_is_reset_in_mid_chunk_is_fresh(record):
    m, x = tiny(), tokens(3, 20)
    with torch.no_grad():
        state = m(x[:, :5], record=record).state
        state = m(x[:, 5:11], state, reset=torch.tensor([False, True, False]), record=record).state
        out = m(x[:, 11:], state, reset=torch.tensor([False, False, True]), record=record)
        for r, start in enumerate((0, 5, 11)):
            alone = m(x[r:r + 1, start:], record=record)
            assert (out.logits[r] - alone.logits[0, 11 - start:]).abs().max() < 1e-9 and worst(tuple(z[r:r + 1] for _, z in tree_leaves(out.state)), alone.state) < 1e-9

def test_committing_writes_what_waits_and_nothing_else():
    m, x = tiny(), tokens(2, 13)
    with torch.no_grad():
        state = m(x).state
        done = m.commit(state)
        on_border = m(x[:, :8]).state
        assert state.memory.pending.n_tokens.tolist() == [5, 5] and done.memory.pending.n_tokens.tolist() == [0, 0]
        assert (done.memory.age[done.memory.strength > 0] < 13).all() and (done.memory.usage > state.memory.usage).any()
        assert torch.equal(done.memory.clock, state.memory.clock) and worst(m.commit(on_border), on_border) == 0
        assert worst(state.memory._replace(pending=None, clock=on_border.memory.clock), on_border.memory._replace(pending=None)) < 1e-12     # until then the slots are those of the border
        assert worst(m.commit(done), done) == 0

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

def test_the_same_seed_gives_the_same_bits_and_the_global_generator_is_left_alone():
    x, targets, before = tokens(3, 24), tokens(3, 24, seed=4), torch.get_rng_state()
    def two_steps(seed):
        m = MemNet(MemNetConfig.tiny(), gen(0))
        opt, draws = torch.optim.SGD(m.parameters(), .1), gen(seed)
        for _ in range(2):
            opt.zero_grad()
            m.objective(m(x, generator=draws), targets)["total"].backward()
            opt.step()
        return torch.cat([p.detach().flatten() for p in m.parameters()])
    assert torch.equal(two_steps(1), two_steps(1)) and not torch.equal(two_steps(1), two_steps(2))
    assert torch.equal(before, torch.get_rng_state())

@pytest.mark.parametrize("over", (dict(), dict(n_layers=0, dream_every=1), dict(gamma=.9)), ids=str)
def test_a_token_before_which_its_row_starts_afresh_begins_a_new_stream(over):
    m, x, reset = tiny(**over), tokens(3, 21), torch.zeros(3, 21, dtype=torch.bool)
    reset[0, 5] = reset[0, 6] = reset[1, 13] = reset[2, 0] = True
    mask = torch.arange(21) < torch.tensor([[21], [17], [21]])
    with torch.no_grad():
        start = m(tokens(3, 11, seed=9)).state
        out = m(x, start, mask=mask, reset=reset)
        for r, begins in enumerate(((0, 5, 6), (0, 13), (0,))):
            state, logits, n = tree_map(lambda z: z[r:r + 1], start), [], int(mask[r].sum())
            for a, b in zip(begins, begins[1:] + (n,)):
                one = m(x[r:r + 1, a:b], None if a or r == 2 else state)
                logits.append(one.logits[0])
            assert (torch.cat(logits) - out.logits[r, :n]).abs().max() < 1e-9 and worst(tuple(z[r:r + 1] for _, z in tree_leaves(out.state)), one.state) < 1e-9
    with pytest.raises(ValueError, match=r"reset must be bool \(3,\) or \(3, 21\)"): m(x, start, reset=reset[:, :20])
    m.objective(m(x, start, mask=mask, reset=reset), x)["total"].backward()

def test_vectors_in_and_one_label_per_row():
    "Targets of shape `b` label whole rows: the answer is read at the last real token."
    m, v, n = tiny(input_dim=5, n_outputs=3), torch.randn(3, 24, 5, generator=gen(1)).double(), torch.tensor([24, 13, 5])
    mask, label = torch.arange(24) < n.unsqueeze(1), torch.tensor([2, 0, 1])
    o = m(v, mask=mask)
    assert o.logits.shape == (3, 24, 3)
    last = torch.stack([o.logits[i, k - 1] for i, k in enumerate(n)])
    assert torch.allclose(m.objective(o, label)["task"], torch.nn.functional.cross_entropy(last, label))
    m.objective(o, label)["total"].backward()
    assert m.embed.weight.grad.abs().min() > 0
    assert torch.allclose(m(v[:, :16]).logits[mask[:, :16]], o.logits[:, :16][mask[:, :16]])

def test_the_methods_of_the_model_are_the_functions():
    m, x = tiny(), tokens(2, 9)
    stream, seen = m.stream(), []
    with torch.no_grad(): assert (stream(x[:, :4]).logits - m(x).logits[:, :4]).abs().max() < 1e-12
    assert stream.state.memory.clock.tolist() == [4, 4]
    out = m.generate(x, 3, on_token=seen.append)
    assert torch.equal(out.tokens, torch.stack(seen, 1)) and out.state.memory.clock.tolist() == [12, 12]

def test_a_folder_whose_settings_do_not_fit_is_refused(tmp_path):
    MemNet(MemNetConfig.tiny(hops=2), gen(5)).save(tmp_path)
    about = json.loads((tmp_path/"model.json").read_text())
    for change, words in ((dict(slots=3), "no field 'slots'"), (dict(n_slots=5, d_value=4), "safetensors")):
        (tmp_path/"model.json").write_text(json.dumps(about | dict(config=about["config"] | change)))
        with pytest.raises(ValueError, match=words): MemNet.load(tmp_path)
