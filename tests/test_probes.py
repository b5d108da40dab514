"""Adapters for other libraries, against what those libraries say of themselves. Skipped, with a reason, where one is not installed."""
import pytest, torch
from memnet.analysis import probes
from memnet.analysis.slot_lifetimes import slot_lifetimes
from memnet.analysis.survival import survival_table
from memnet.analysis.probes import MemoryProbe, make_probe, probe_measures

torch.set_num_threads(1)
def gen(seed): return torch.Generator().manual_seed(seed)
def peer(library): return pytest.importorskip(library, reason=f"{library} is not installed: pip install 'memnet[peers]'")
def words(t=64): return torch.randint(0, 20, (3, t), generator=gen(1))
def vectors(t=64): return torch.randn(3, t, 16, generator=gen(2))

def rmt(**over):
    torch.manual_seed(0)
    return peer("recurrent_memory_transformer_pytorch").RecurrentMemoryTransformer(**(dict(dim=32, num_tokens=20, depth=2, num_memory_tokens=6, seq_len=32, heads=2, dim_head=16) | over))

@pytest.mark.parametrize("over", [{}, dict(rotary_pos_emb=True), dict(use_xl_memories=False), dict(num_residual_streams=1)], ids=str)
def test_rmt_reads_and_writes(over):
    model = rmt(**over); p = make_probe(model); seen, state = p(words()); more, _ = p(words(40), state)
    assert isinstance(p, MemoryProbe) and seen.read.shape == seen.write.shape == (3, 4, 64, 6) and more.read.shape[2] == 40
    assert 0 < seen.read.sum(-1).max() < 1 and 0 < seen.write[:, :, :32].sum(2).max() < 1     # the rest goes to tokens and to nothing
    changed = words(); changed[:, 20] += 1; other, _ = p(changed % 20)
    assert torch.equal(other.read[:, :, :20], seen.read[:, :, :20]) and not torch.equal(other.read[:, :, 32:], seen.read[:, :, 32:])   # the second segment reads another memory
    with torch.no_grad(): alone = model(words()[:, :32])[1]; again = model(words()[:, :32])[1]
    assert torch.equal(alone, again), "watching has left something behind"

def test_rmt_that_computes_another_attention_is_refused(monkeypatch):
    p = make_probe(rmt()); monkeypatch.setattr(probes, "_attention_weights", lambda q, k, mask=None, causal=False: (q @ k.mT).softmax(-1))
    with pytest.raises(ValueError, match="another way"): p(words())

def test_block_recurrent_states():
    model = peer("block_recurrent_transformer_pytorch").BlockRecurrentTransformer(num_tokens=20, dim=32, depth=3, heads=2, dim_head=16, block_width=16, max_seq_len=64, num_state_vectors=6, recurrent_layers=(2, 3))
    p = make_probe(model); seen, state = p(words()); p(words(), state)
    assert seen.read.shape == seen.write.shape == (3, 4, 64, 6)
    torch.testing.assert_close(seen.read.sum(-1), torch.ones(3, 4, 64)); torch.testing.assert_close(seen.write.unflatten(2, (4, 16)).sum(3), torch.ones(3, 4, 4, 6))
    assert not any(m._forward_hooks for m in model.modules())

def test_dnc_agrees_with_its_own_debug_log():
    model = peer("dnc").DNC(input_size=16, hidden_size=32, nr_cells=12, cell_size=8, read_heads=2, debug=True)
    torch.manual_seed(0); seen, _ = make_probe(model)(vectors(20)); torch.manual_seed(0)     # it draws its first hidden state
    with torch.no_grad(): *_, own = model(vectors(20))
    torch.testing.assert_close(seen.read[0].transpose(0, 1).flatten(1), torch.from_numpy(own["read_weights"]))
    torch.testing.assert_close(seen.write[0, 0], torch.from_numpy(own["write_weights"]))
    torch.testing.assert_close(seen.edges[0, 0].mT.flatten(), torch.from_numpy(own["link_matrix"][-1]))
    with pytest.raises(ValueError, match="share_memory"): make_probe(type(model)(16, 32, share_memory=False))

def test_dnc_link_points_from_earlier_to_later():
    memory = peer("dnc").DNC(input_size=16, hidden_size=8, nr_cells=3, cell_size=4).memories[0]
    first, then = torch.eye(3)[0].view(1, 1, 3), torch.eye(3)[1].view(1, 1, 3)
    links = memory.get_link_matrix(torch.zeros(1, 1, 3, 3), then, first).mT          # transposed, as the adapter does
    assert links[0, 0, 0, 1] == 1 and links.sum() == 1

def test_titans_surprise_is_the_loss_of_its_memory():
    memory = peer("titans_pytorch").NeuralMemory(dim=16, chunk_size=8)
    seen, state = make_probe(memory)(vectors()); make_probe(memory)(vectors(), state)
    with torch.no_grad():
        x = memory.store_norm(vectors()); wrong = (memory.memory_model(memory.to_keys(x)) - memory.to_values(x)).square().mean(-1)
    torch.testing.assert_close(seen.surprise[:, 0], wrong, rtol=1e-4, atol=1e-5)
    assert seen.gate.shape == (3, 1, 64) and seen.read is None and "no slots" in seen.missing["read"]
    with pytest.raises(ValueError, match="multiple of 8"): make_probe(memory)(vectors(9))

@pytest.mark.parametrize("step,gain", [(8, 1.), (4, 2.), (16, 0.)])
def test_memoria_lives_are_its_engrams(step, gain):
    memory = peer("memoria").Memoria(num_reminded_stm=4, stm_capacity=16, ltm_search_depth=3, initial_lifespan=4, num_final_ltms=4, track_id=True, track_age=True)
    torch.manual_seed(0); p = make_probe(memory, step=step, gain=gain); seen, _ = p(vectors()); table = slot_lifetimes(seen.events)
    assert len(table) == 3*64                                                        # each token founds one
    here = {(b, i): a for b, (ids, ages) in enumerate(zip(memory.engrams.engram_ids.tolist(), memory.engrams.age.tolist())) for i, a in zip(ids, ages) if i >= 0}
    alive = table[~table.observed].set_index(["row", "slot"]).duration.to_dict()
    assert {i: a*step for i, a in here.items()} == alive and not (table.observed & (table.duration < step)).any()
    if gain == 0: assert set(table[table.observed].duration) == {4*step}             # nobody earns more than the lifespan it was given
    else: assert probe_measures(seen).set_index("measure").value["reciprocity"] == pytest.approx(1.)
    assert survival_table(table).survival.is_monotonic_decreasing and table.entry.is_unique

def test_memoria_without_numbers_is_refused():
    with pytest.raises(ValueError, match="track_id"): make_probe(peer("memoria").Memoria(4, 16, 3, 4, 4))
