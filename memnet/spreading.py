from typing import NamedTuple, Optional
import torch
from torch import Tensor
import torch.nn.functional as F

def row_scale(
    leaving:Tensor,  # net weight that leaves each slot, `… n`
)->Tensor:           # in (0,1], `… n`
    "What a slot's activation is multiplied by, so that no more leaves it than is there."
    return leaving.clamp(min=1).reciprocal()

def hop(
    act:Tensor,    # activation, >= 0, `… t n`
    edges:Tensor,  # i -> j, may be negative where the reverse order was learned, `… n m`
)->Tensor:         # `… t m`
    "One step along the edges: rows scaled to sum <= 1, negative input rectified, total never grows."
    out = ((act*row_scale(edges.sum(-1)).unsqueeze(-2)) @ edges).relu()
    return out/out.sum(-1, keepdim=True).clamp(min=1)

def spread(
    w:Tensor,      # read weights, `… t n`
    edges:Tensor,  # `… n m`
    alpha:Tensor,  # share that travels, in [0,1], `… t 1`
    hops:int=1,    # steps
)->Tensor:         # `… t n`
    "Spreading activation: keep a part of the address, send the rest along the graph."
    act = w
    for _ in range(hops): act = torch.lerp(w, hop(act, edges), alpha.expand_as(w))
    return act

def pagerank(
    w:Tensor,      # restart weights, `… t n`
    edges:Tensor,  # >= 0, `… n m`
    alpha:float,   # share that travels, in [0,1)
)->Tensor:         # `… t n`
    "The limit of endless hops: personalised PageRank in closed form."
    A = edges*row_scale(edges.sum(-1)).unsqueeze(-1)
    I = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return torch.linalg.solve((I - alpha*A).mT, (1 - alpha)*w.mT).mT

class PendingGraph(NamedTuple):
    "The graph as each token of a chunk sees it: the edges of the start and the events before the token, never multiplied out."
    edges:Tensor            # at the start of the chunk, `b h n m`
    pre:Tensor              # trace before each event, over n slots and w births, `b h w l`
    address:Tensor          # one-hot, `b h w l`
    seen:Tensor             # gate of event w as token t sees it, 0 unless w < t, `b h t w`
    fade:Optional[Tensor]   # what is left of the old edges at token t, None = all, `b h t 1`
    dead:Optional[Tensor]   # slots and births that token t cannot read, None = empty ones only, `b h t l`
    eta_plus:float
    eta_minus:float

def leaving(
    g:PendingGraph,
)->Tensor:           # `b h t l`
    "Net weight that leaves every slot, as each token sees it."
    B, H, T, W = g.seen.shape
    N, row, seen = g.edges.shape[-1], g.edges.sum(-1).unsqueeze(-2).expand(B, H, T, -1), g.seen
    if g.dead is not None:                       # edges to a slot that has been given away no longer count
        alive = (~g.dead).to(seen.dtype)
        row = alive[..., :N] @ g.edges.mT
        seen = seen*(alive @ g.address.mT)
    if g.fade is not None: row = row*g.fade
    out = torch.baddbmm(F.pad(row, (0, W)).flatten(0, 1), seen.flatten(0, 1), g.pre.flatten(0, 1), alpha=g.eta_plus).unflatten(0, (B, H))
    if not g.eta_minus: return out
    back = g.pre.sum(-1).unsqueeze(-2) if g.dead is None else alive @ g.pre.mT
    return out - g.eta_minus*((g.seen*back) @ g.address)

def hop_pending(
    act:Tensor,        # `b h t l`
    g:PendingGraph,
    scale:Tensor,      # `row_scale(leaving(g))`, `b h t l`
)->Tensor:             # `b h t l`
    "`hop`, each token on its own version of the graph."
    B, H, T, W = g.seen.shape
    src = act*scale
    old = src[..., :g.edges.shape[-1]] @ g.edges
    if g.fade is not None: old = old*g.fade
    out = torch.baddbmm(F.pad(old, (0, W)).flatten(0, 1), ((src @ g.pre.mT)*g.seen).flatten(0, 1), g.address.flatten(0, 1), alpha=g.eta_plus).unflatten(0, (B, H))
    if g.eta_minus: out = out - g.eta_minus*(((src @ g.address.mT)*g.seen) @ g.pre)
    if g.dead is not None: out = out.masked_fill(g.dead, 0)
    if not g.eta_minus: return out
    out = out.relu()
    return out/out.sum(-1, keepdim=True).clamp(min=1)

def spread_pending(
    w:Tensor,          # read weights over n slots and w births, `b h t l`
    g:PendingGraph,
    alpha:Tensor,      # `b h t 1`
    hops:int=1,
)->Tensor:             # `b h t l`
    "`spread`, each token on its own version of the graph."
    scale, act = row_scale(leaving(g)), w
    for _ in range(hops): act = torch.lerp(w, hop_pending(act, g, scale), alpha.expand_as(w))
    return act
