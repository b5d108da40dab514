from typing import NamedTuple, Optional
import torch
from torch import Tensor, nn
import torch.nn.functional as F

class AttentionCache(NamedTuple):
    "The last `window - 1` tokens of a layer, before rotation; the newest stands last."
    keys:Tensor    # `b w c`
    values:Tensor  # `b w c`
    length:Tensor  # how many of them are real, `b`

def rotary(
    x:Tensor,           # `b h t e`
    place:Tensor,       # position of every token, `t`
    base:float=10000.,  # longest wave
)->Tensor:
    "Turn every pair of features by an angle that grows with the position (RoPE)."
    half = x.shape[-1]//2
    speed = base**(-torch.arange(half, device=x.device, dtype=x.dtype)/half)
    angle = place.unsqueeze(-1).to(x.dtype)*speed
    c, s = angle.cos(), angle.sin()
    x1, x2 = x[..., :half], x[..., half:]
    return torch.cat([x1*c - x2*s, x2*c + x1*s], -1)

class LocalAttention(nn.Module):
    "Causal attention over a sliding window; the cache carries it across calls."
    def __init__(self, dim:int, n_heads:int, window:int):
        super().__init__()
        self.n_heads, self.window = n_heads, window
        make = lambda o: nn.utils.skip_init(nn.Linear, dim, o, bias=False)
        self.qkv, self.out = make(3*dim), make(dim)

    def forward(self, x, cache, length):
        (B, T, _), w = x.shape, self.window
        q, k, v = self.qkv(x).chunk(3, -1)
        keys, values = torch.cat([cache.keys, k], 1), torch.cat([cache.values, v], 1)
        n = -(-T//w)                                               # blocks of w tokens; each looks at itself and the one before
        heads = lambda y, left: F.pad(y, (0, 0, left, n*w - T)).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        place = torch.arange((n + 1)*w, device=x.device)
        blocks = lambda y: y.unflatten(2, (-1, w))
        pairs = lambda y: torch.cat([blocks(y)[:, :, :-1], blocks(y)[:, :, 1:]], 3)
        qb = blocks(rotary(heads(q, 0), place[w:]))
        kb, vb = pairs(rotary(heads(keys, 1), place)), pairs(heads(values, 1))
        y = F.scaled_dot_product_attention(qb, kb, vb, attn_mask=self.visible(n, cache.length))
        y = y.flatten(2, 3)[:, :, :T].transpose(1, 2).flatten(2)
        return self.out(y), self.next_cache(keys, values, cache, length, T)

    def visible(self, n, cached):
        "Token i of a block sees the `window` tokens up to itself, and nothing of an empty cache; `b 1 n w 2w`."
        w, dev = self.window, cached.device
        i, j = torch.arange(w, device=dev).unsqueeze(-1), torch.arange(2*w, device=dev)
        place = torch.arange(n, device=dev).view(-1, 1, 1)*w + j
        return (j > i) & (j <= i + w) & (place >= w - cached.view(-1, 1, 1, 1, 1))

    def next_cache(self, keys, values, cache, length, T):
        "The last real tokens of every row."
        past = self.window - 1
        if length is None: last = lambda y: y[:, T:]
        else:
            at = (length.unsqueeze(-1) + torch.arange(past, device=length.device)).unsqueeze(-1)
            last = lambda y: y.gather(1, at.expand(-1, -1, y.shape[-1]))
        return AttentionCache(last(keys), last(values), (cache.length + (T if length is None else length)).clamp(max=past))

class Block(nn.Module):
    "Pre-norm attention and feed-forward, each added to the stream."
    def __init__(self, dim:int, n_heads:int, window:int, ff:int):
        super().__init__()
        make = lambda i, o: nn.utils.skip_init(nn.Linear, i, o)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = LocalAttention(dim, n_heads, window)
        self.widen, self.narrow = make(dim, ff*dim), make(ff*dim, dim)

    def forward(self, x, cache, length):
        y, cache = self.attention(self.norm1(x), cache, length)
        x = x + y
        return x + self.narrow(F.gelu(self.widen(self.norm2(x)))), cache

class ControllerState(NamedTuple):
    "What goes on with a stream."
    memory:Optional[NamedTuple]  # `MemoryState`, None = no memory
    caches:tuple                 # an `AttentionCache` a layer

class TransformerController(nn.Module):
    "Local layers, the memory's read and write in the middle, local layers again."
    def __init__(self, dim:int, n_layers:int, n_heads:int, window:int, ff:int=4, bank=None, generator:torch.Generator=None):
        super().__init__()
        self.dim, self.window, self.bank = dim, window, bank
        self.blocks = nn.ModuleList(Block(dim, n_heads, window, ff) for _ in range(n_layers))
        self.reset_parameters(torch.Generator().manual_seed(0) if generator is None else generator)

    @torch.no_grad()
    def reset_parameters(self, generator):
        "Fan-in normal; what is added to the stream is scaled down by depth."
        for b in self.blocks:
            for m in (b.attention.qkv, b.attention.out, b.widen, b.narrow):
                m.weight.normal_(std=m.in_features**-0.5, generator=generator)
                if m.bias is not None: m.bias.zero_()
            for m in (b.attention.out, b.narrow): m.weight.mul_((2*len(self.blocks))**-0.5)

    def empty_state(self, batch_size, like)->ControllerState:
        z = lambda: like.new_zeros(batch_size, self.window - 1, self.dim)
        caches = tuple(AttentionCache(z(), z(), torch.zeros(batch_size, dtype=torch.long, device=like.device)) for _ in self.blocks)
        return ControllerState(None if self.bank is None else self.bank.empty_state(batch_size), caches)

    def forward(self, x, state, length=None, mask=None, generator=None, record=False):
        "Features in, features out, the state that goes on, what was read, and the memory's info."
        caches, memory, read, info = [], None, None, {}
        for i in range(len(self.blocks) + 1):
            if i == len(self.blocks)//2 and self.bank is not None:
                read, memory, info = self.bank(x, state.memory, mask, generator, record)
                x = x + self.bank.out(read)
            if i < len(self.blocks):
                x, c = self.blocks[i](x, state.caches[i], length)
                caches.append(c)
        return x, ControllerState(memory, tuple(caches)), read, info
