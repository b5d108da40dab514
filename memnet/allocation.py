from typing import NamedTuple, Optional
import numba, numpy as np, torch
from torch import Tensor
import torch.nn.functional as F

class Plan(NamedTuple):
    "Who writes where in one chunk. Lineage i < n is the content that slot i held at the start, lineage n+w is born at write w."
    lineage:Tensor   # whose content the write changes, -1 = nothing is written, `b h w`
    birth:Tensor     # the write takes a new slot, `b h w`
    prev:Tensor      # the write of this chunk that it updates, -1 = none, `b h w`
    same:Tensor      # writes r <= w of the same lineage, `b h w r`
    current:Tensor   # 1 where write w is what its slot holds when token t reads, `b h t w`
    dead:Tensor      # lineage that token t cannot read, `b h t l`
    final:Tensor     # 1 where slot n holds write w at the end, `b h w n`
    born:Tensor      # 1 where slot n belongs to lineage n+w at the end, `b h w n`
    cleared:Tensor   # 1 where the tenant of the start is gone, `b h n`

def plan_row(cos_slot, cos_self, active, strength, rate, logit, age, last_read, gate, write_logit, step, n_read, match, forgetting, evict):
    "One row and head, token by token, in plain loops."
    W, N = cos_slot.shape
    L, f = N + W, gate.dtype
    lineage, prev, birth = np.full(W, -1, np.int64), np.full(W, -1, np.int64), np.zeros(W, np.bool_)
    same, current, dead = np.zeros((W, W), np.bool_), np.zeros((n_read, W), f), np.ones((n_read, L), np.bool_)
    final, born, cleared = np.zeros((W, N), f), np.zeros((W, N), f), np.zeros(N, f)
    owner, home, last = np.arange(N), np.full(L, -1, np.int64), np.full(L, -1, np.int64)   # slot -> lineage, lineage -> slot, lineage -> its last write
    full = strength > 0
    alive = np.zeros(L, np.bool_)
    for n in range(N): home[n] = n; alive[n] = full[n]
    held, rate, logit, since, read_at = strength.copy(), rate.copy(), logit.copy(), age + 1, last_read.copy()
    for w in range(W):
        if n_read > 0:                                            # what token w sees, before its own write
            for l in range(N + w): dead[w, l] = not alive[l]
            for s in range(w): current[w, s] = active[s] and alive[lineage[s]] and last[lineage[s]] == s
        if not active[w]: continue
        best, at = match, -1                                      # the most similar content that can be read
        for n in range(N):
            if alive[n] and cos_slot[w, n] > best: best, at = cos_slot[w, n], n
        for s in range(w):
            if alive[N + s] and cos_self[w, s] > best: best, at = cos_self[w, s], N + s
        if at < 0:                                                # nothing like it is stored: a new content is born
            at = N + w
            birth[w] = True; alive[at] = True
            if evict:                                             # in the weakest slot: empty, then least strength, then longest unread
                n, lowest, longest = 0, np.inf, np.inf
                for m in range(N):
                    if not full[m]: n = m; break
                    left = held[m]*np.exp(-rate[m]*(since[m] + step[w]))
                    if left < lowest or (left == lowest and read_at[m] < longest): lowest, longest, n = left, read_at[m], m
                if full[n]: alive[owner[n]] = False
                owner[n] = at; home[at] = n; full[n] = True
                held[n] = gate[w]; logit[n] = write_logit[w]; read_at[n] = np.inf
        else:
            prev[w] = last[at]
            n = home[at]
            if evict:
                held[n] = gate[w] + (1 - gate[w])*held[n]*np.exp(-rate[n]*(since[n] + step[w]))
                logit[n] = (1 - gate[w])*logit[n] + gate[w]*write_logit[w]
        if evict:
            since[n] = -step[w]
            if forgetting: rate[n] = np.log1p(np.exp(logit[n]))
        lineage[w] = at
        if last[at] >= 0: same[w] = same[last[at]]
        same[w, w] = True
        last[at] = w
    for n in range(N):
        if owner[n] != n: cleared[n] = 1; born[owner[n] - N, n] = 1
        if last[owner[n]] >= 0: final[last[owner[n]], n] = 1
    return lineage, birth, prev, same, current, dead, final, born, cleared

_plan_row = numba.njit(cache=True)(plan_row)

@numba.njit(cache=True)
def _plan_rows(cos_slot, cos_self, active, strength, rate, logit, age, last_read, gate, write_logit, step, n_read, match, forgetting, evict):
    R, W, N = cos_slot.shape
    L, f = N + W, gate.dtype
    lineage, birth, prev = np.empty((R, W), np.int64), np.empty((R, W), np.bool_), np.empty((R, W), np.int64)
    same, current, dead = np.empty((R, W, W), np.bool_), np.empty((R, n_read, W), f), np.empty((R, n_read, L), np.bool_)
    final, born, cleared = np.empty((R, W, N), f), np.empty((R, W, N), f), np.empty((R, N), f)
    for r in range(R):
        lineage[r], birth[r], prev[r], same[r], current[r], dead[r], final[r], born[r], cleared[r] = _plan_row(
            cos_slot[r], cos_self[r], active[r], strength[r], rate[r], logit[r], age[r], last_read[r], gate[r], write_logit[r], step[r], n_read, match, forgetting, evict)
    return lineage, birth, prev, same, current, dead, final, born, cleared

@torch.no_grad()
def plan_writes(
    cos_slot:Tensor,     # cosine of each write's key with the slots of the start, `b h w n`
    cos_self:Tensor,     # and with the keys of the other writes, `b h w w`
    active:Tensor,       # tokens that write at all, bool `b h w`
    state,               # `MemoryState` at the start: strength, age, last_read are looked at
    rate:Tensor,         # decay of each slot's strength per token, `b h n`
    logit:Tensor,        # its logit, `b h n`
    gate:Tensor,         # salience of each write, `b h w`
    write_logit:Tensor,  # logit of the decay that its content asks for, `b h w`
    step:Tensor,         # token of the chunk at which it is written, `b h w`
    match:float,         # cosine above which a write updates instead of taking a slot
    forgetting:bool,     # strength decays
    evict:bool,          # births take slots now; False = they stay beside the slots until the chunk ends
    reads:bool=True,     # also say what each token sees
)->Plan:
    "Decide, outside of the gradient, which slot every write goes to."
    b, h, W, N = cos_slot.shape
    rows = lambda x: x.detach().expand(b, h, *x.shape[2:]).flatten(0, 1).contiguous().cpu().numpy()
    out = _plan_rows(*(rows(x) for x in (cos_slot, cos_self, active, state.strength, rate, logit, state.age, state.last_read, gate, write_logit, step)),
                     W if reads else 0, match, forgetting, evict)
    return Plan(*(torch.from_numpy(x).to(gate.device).unflatten(0, (b, h)) for x in out))

def lineage_onehot(
    plan:Plan,
    active:Tensor,   # bool, `b h w`
    n_slots:int,
    dtype=torch.float32,
)->Tensor:           # `b h w l`, l = n_slots + w
    "The write addresses as one-hot rows over slots and births."
    z = torch.zeros(*active.shape, n_slots + active.shape[-1], dtype=dtype, device=active.device)
    return z.scatter_(-1, plan.lineage.clamp(min=0).unsqueeze(-1), active.unsqueeze(-1).to(dtype))

class Versions(NamedTuple):
    "What every write leaves in its slot."
    values:Tensor            # `b h w d`
    strength:Tensor          # `b h w`
    rate:Tensor              # decay of that strength per token, `b h w`
    root:Optional[Tensor]    # slot of the start that the write goes back to, `b h w`; None = every write is a birth
    rooted:Optional[Tensor]  # 1 where it goes back to one, `b h w`

def chain(
    log_keep:Tensor,  # log of what each write keeps of the version before it, 0 at a birth, `b h w`
    same:Tensor,      # bool, `b h w r`
)->tuple[Tensor,Tensor]: # what version w keeps of write r, `b h w r`; and of the content before the chunk, `b h w`
    "Many gated updates of one slot, in closed form."
    s = same.to(log_keep.dtype)
    total = (s @ log_keep.unsqueeze(-1)).squeeze(-1)
    return ((total.unsqueeze(-1) - total.unsqueeze(-2))*s).exp()*s, total.exp()

def write_versions(
    plan:Plan,
    active:Tensor,   # bool, `b h w`
    gate:Tensor,     # `b h w`
    values:Tensor,   # content that each token offers, `b h w d`
    step:Tensor,     # token of the chunk, `b h w`
    state,           # `MemoryState` at the start
    rate_of,         # values -> decay of strength per token; None = no forgetting
)->Versions:
    "Births store content and gate as they are; updates interpolate: `v <- (1-g) v_old + g v`, `s <- g + (1-g) s_old`."
    update = active & ~plan.birth
    if not update.any(): return Versions(values, gate*active, rate_of(values) if rate_of else None, None, None)
    N = state.strength.shape[-1]
    root = plan.lineage.clamp(0, N - 1)
    rooted = (update & (plan.lineage < N)).to(gate.dtype)
    at_root = lambda x: x.gather(2, root)
    log_keep = torch.log1p(-gate.clamp(max=1 - 1e-6))*update
    kept, kept_root = chain(log_keep, plan.same)
    old = state.values.gather(2, root.unsqueeze(-1).expand(*root.shape, values.shape[-1]))
    new = (kept*torch.where(plan.birth, 1., gate).unsqueeze(-2)) @ values + (kept_root*rooted).unsqueeze(-1)*old
    rate = None
    if rate_of:
        rate = rate_of(new)
        again, prev = plan.prev >= 0, plan.prev.clamp(min=0)
        before = torch.where(again, rate.gather(2, prev), at_root(rate_of(state.values)))       # decay of the version that is updated
        lapse = torch.where(again, step - step.gather(2, prev), at_root(state.age) + 1 + step)  # tokens for which it decayed
        kept, kept_root = chain(log_keep - before*lapse*update, plan.same)
    strength = (kept*gate.unsqueeze(-2)).sum(-1) + kept_root*rooted*at_root(state.strength)
    return Versions(new, strength*active, rate, root, rooted)
