"""What the tests of deepening share: models, and how far two of them are apart."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torchvision
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.models_zoo import ZOO

EXACT = 1e-10
"""Relative to the largest output, in float64."""


class Block(nn.Module):
    """Pre-norm attention written out, and a perceptron."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.act, self.down = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        x = x + self.down(self.act(self.up(self.norm2(x))))
        return x


class Tokens(nn.Module):
    """A transformer over given features."""

    def __init__(self, *, causal: bool = False, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.layers = nn.Sequential(*(Block(16, 4, causal=causal) for _ in range(depth)))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(self.layers(self.embed(x))))
        return y


def mlp(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Three linear layers."""
    return nn.Sequential(nn.Linear(8, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 4))


def vgg11_bn() -> nn.Sequential:
    """torchvision's, with a smaller classifier: the original's holds half a gigabyte."""
    vgg = torchvision.models.vgg
    head = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 5))
    return nn.Sequential(
        OrderedDict(
            features=vgg.make_layers(vgg.cfgs["A"], batch_norm=True),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=head,
        )
    )


def randomised(model: nn.Module) -> nn.Module:
    """Running statistics and norms as training leaves them, in float64, in evaluation mode."""
    random = torch.Generator().manual_seed(1)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        with torch.no_grad():
            if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=random)
            elif name.endswith("running_mean") or (tensor.dim() == 1 and name.endswith("bias")):
                tensor.normal_(0, 0.1, generator=random)
    return model.double().eval()


def traced(name: str) -> tuple[fx.GraphModule, Tensor]:
    """A model by name, and an input for it."""
    torch.manual_seed(0)
    model: nn.Module
    if name == "resnet":
        model, x = ZOO[name].build(), ZOO[name].example_inputs()[0]
    elif name == "mlp of three":
        model, x = mlp(), torch.randn(5, 8)
    elif name == "tokens":
        model, x = Tokens(), torch.randn(2, 7, 6)
    elif name == "causal tokens":
        model, x = Tokens(causal=True), torch.randn(2, 7, 6)
    elif name == "vit":
        model = torchvision.models.VisionTransformer(16, 4, 3, 4, 32, 64, num_classes=5)
        nn.init.normal_(model.get_parameter("heads.head.weight"))
        x = torch.randn(2, 3, 16, 16)
    elif name == "vgg11_bn":
        model, x = vgg11_bn(), torch.randn(2, 3, 64, 64)
    else:
        model, x = getattr(torchvision.models, name)(num_classes=5), torch.randn(2, 3, 64, 64)
    x = x.double()
    return fxgrow.trace(randomised(model), (x,)), x


def apart(a: nn.Module, b: nn.Module, x: Tensor, *, training: bool = False) -> float:
    """The largest difference of two models, relative to the largest output; modes and streams are put back."""
    results = []
    for model in (a, b):
        flags = {m: m.training for m in model.modules()}
        state = {k: t.clone() for k, t in model.state_dict().items()}
        model.train(training)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            results.append(model(x))
        model.load_state_dict(state)
        for module, flag in flags.items():
            module.training = flag
    return float((results[0] - results[1]).abs().max() / results[0].abs().max())


def gradients(model: nn.Module, x: Tensor, prefix: str) -> dict[str, float]:
    """The largest gradient of each parameter below a path, in training mode, relative to the model's largest."""
    model.train()
    y = model(x)
    (y - torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)).square().mean().backward()
    found = {n: float(p.grad.abs().max()) for n, p in model.named_parameters() if p.grad is not None}
    largest = max(found.values())
    return {n: found.get(n, 0.0) / largest for n, _ in model.named_parameters() if n.startswith(prefix)}
