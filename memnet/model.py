from dataclasses import dataclass
from typing import Optional
import torch
from torch import Tensor, nn
import torch.nn.functional as F
from memnet.bank import BankConfig, MultiHeadMemoryBank
from memnet.controller import ControllerState, TransformerController
from memnet.interface import Output, SequenceModel, need

@dataclass(frozen=True)
class MemNetConfig(BankConfig):
    "A whole model: the memory's sizes and mechanisms, and what stands around it."
    vocab_size:int=64            # tokens it reads (without `input_dim`) and, unless `n_outputs` is given, answers
    input_dim:Optional[int]=None # width of continuous input, None = tokens
    n_outputs:Optional[int]=None # classes, None = `vocab_size`
    n_layers:int=2               # local attention layers, half before the memory and half after it; 0 = none at all
    window:int=32                # tokens that a layer sees, itself included
    ff:int=4                     # width of the feed-forward, in multiples of `dim`
    memory:bool=True             # False = the windowed Transformer
    dream_every:int=0            # chunks between dreams in the stream; 0 = only by hand
    w_hallucination:float=0.1    # weight of each term of the objective
    w_utilisation:float=0.01
    w_sparsity:float=0.01

    def check(self):
        super().check()
        for f, low in (('vocab_size', 1), ('input_dim', 1), ('n_outputs', 1), ('n_layers', 0), ('window', 1), ('ff', 1), ('dream_every', 0)):
            v = getattr(self, f)
            if v is None and f in ('input_dim', 'n_outputs'): continue
            need(isinstance(v, int) and not isinstance(v, bool) and v >= low, f"{f} must be a whole number >= {low}, got {f}={v!r}")
        for f in ('w_hallucination', 'w_utilisation', 'w_sparsity'): need(getattr(self, f) >= 0, f"{f} must be >= 0, got {f}={getattr(self, f)}")
        need(self.n_layers == 0 or self.dim % (2*self.n_heads) == 0, f"dim must be a multiple of 2*n_heads for rotary attention, got dim={self.dim}, n_heads={self.n_heads}")

    @property
    def outputs(self)->int: return self.n_outputs or self.vocab_size

    @classmethod
    def tiny(cls, **over): return super().tiny(**(dict(vocab_size=11, n_layers=2, window=4, ff=2) | over))

MemNetOutput = Output

class MemNet(SequenceModel):
    "Encoder, controller with a memory, task head and hallucination head."
    Config = MemNetConfig

    def __init__(self,
        cfg:MemNetConfig,                # sizes and mechanisms
        generator:torch.Generator=None,  # of the initial weights; None = a fixed one, never the global one
    ):
        super().__init__()
        need(isinstance(cfg, MemNetConfig), f"MemNet wants a MemNetConfig, got {type(cfg).__name__}")
        self.config, generator = cfg, torch.Generator().manual_seed(0) if generator is None else generator
        make = lambda i, o, bias=True: nn.utils.skip_init(nn.Linear, i, o, bias=bias)
        self.embed = make(cfg.input_dim, cfg.dim) if cfg.input_dim is not None else nn.utils.skip_init(nn.Embedding, cfg.vocab_size, cfg.dim)
        bank = MultiHeadMemoryBank(cfg, generator) if cfg.memory else None
        self.controller = TransformerController(cfg.dim, cfg.n_layers, cfg.n_heads, cfg.window, cfg.ff, bank, generator)
        self.norm, self.head = nn.LayerNorm(cfg.dim), make(cfg.dim, cfg.outputs, False)
        if cfg.memory: self.imagine, self.picture = make(cfg.n_heads*cfg.d_value, cfg.dim), make(cfg.dim, cfg.dim)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator):
        own = [self.embed, self.head] + ([self.imagine, self.picture] if self.config.memory else [])
        for m in own:
            if isinstance(m, nn.Embedding): m.weight.normal_(generator=generator); continue
            m.weight.normal_(std=m.in_features**-0.5, generator=generator)
            if m.bias is not None: m.bias.zero_()

    def empty_state(self, batch_size:int=1)->ControllerState:
        "Nothing seen yet."
        return self.controller.empty_state(batch_size, self.norm.weight)

    def forward(self,
        inputs:Tensor,                   # tokens `b t`, or `b t input_dim`
        state:ControllerState=None,      # what goes on, None = a fresh start
        mask:Tensor=None,                # True = real token, padding on the right only, `b t`
        reset:Tensor=None,               # rows that start afresh, `b`
        generator:torch.Generator=None,  # for policies that draw; None = their mean
        record:bool=False,               # keep what the measuring kit needs
    )->Output:
        "Read the rows and answer at every token."
        self.check_inputs(inputs, mask)
        B, T = inputs.shape[:2]
        state = self.start(B, state, reset)
        length = torch.full((B,), T, device=inputs.device) if mask is None else mask.sum(1)
        e = self.embed(inputs)
        x, state, read, info = self.controller(e, state, None if mask is None else length, mask, generator, record)
        return Output(self.head(self.norm(x)), state, self.losses(e, read, info, mask), info | dict(length=length))

    def losses(self, e, read, info, mask):
        "The terms of the objective that do not need targets."
        if read is None: return {}
        x_hat = self.picture(F.gelu(self.imagine(read)))
        error = (x_hat - e.detach()).square().mean(-1)
        use = info['mass']/info['mass'].sum(-1, keepdim=True).clamp(min=1e-9)
        return dict(hallucination=error.mean() if mask is None else (error*mask).sum()/mask.sum().clamp(min=1),
                    utilisation=(use*use.clamp(min=1e-9).log()).sum(-1).mean(), sparsity=info['gate_mean'])

    def term_weights(self)->dict:
        "Weight of each extra term of the objective, by name."
        cfg = self.config
        return dict(hallucination=cfg.w_hallucination, utilisation=cfg.w_utilisation, sparsity=cfg.w_sparsity)
