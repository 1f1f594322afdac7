"""Forward methods of torch's transformer modules without their fused fast paths, so that they can be traced into."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

logger = logging.getLogger("fxgrow")
_Tensor = Any
"""A tensor, or an fx proxy."""


def _encoder_layer(
    self: nn.TransformerEncoderLayer,
    src: _Tensor,
    src_mask: _Tensor = None,
    src_key_padding_mask: _Tensor = None,
    is_causal: bool = False,
) -> _Tensor:
    """Forward of `nn.TransformerEncoderLayer` without the fast path."""

    def attend(x: _Tensor) -> _Tensor:
        return self._sa_block(x, src_mask, src_key_padding_mask, is_causal=is_causal)

    if self.norm_first:
        x = src + attend(self.norm1(src))
        return x + self._ff_block(self.norm2(x))
    x = self.norm1(src + attend(src))
    return self.norm2(x + self._ff_block(x))


def _encoder(
    self: nn.TransformerEncoder,
    src: _Tensor,
    mask: _Tensor = None,
    src_key_padding_mask: _Tensor = None,
    is_causal: bool | None = None,
) -> _Tensor:
    """Forward of `nn.TransformerEncoder` without nested tensors."""
    if src_key_padding_mask is not None and self.use_nested_tensor:
        logger.warning(
            "TransformerEncoder's fast path writes zeros at padded positions in evaluation mode; "
            "the trace computes what stands there"
        )
    for layer in self.layers:
        src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=bool(is_causal))
    return src if self.norm is None else self.norm(src)


def _decoder(
    self: nn.TransformerDecoder,
    tgt: _Tensor,
    memory: _Tensor,
    tgt_mask: _Tensor = None,
    memory_mask: _Tensor = None,
    tgt_key_padding_mask: _Tensor = None,
    memory_key_padding_mask: _Tensor = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> _Tensor:
    """Forward of `nn.TransformerDecoder` without the detection of causal masks."""
    masks = {"tgt_mask": tgt_mask, "memory_mask": memory_mask}
    masks |= {"tgt_key_padding_mask": tgt_key_padding_mask, "memory_key_padding_mask": memory_key_padding_mask}
    for layer in self.layers:
        tgt = layer(tgt, memory, **masks, tgt_is_causal=bool(tgt_is_causal), memory_is_causal=memory_is_causal)
    return tgt if self.norm is None else self.norm(tgt)


def _transformer(
    self: nn.Transformer,
    src: _Tensor,
    tgt: _Tensor,
    src_mask: _Tensor = None,
    tgt_mask: _Tensor = None,
    memory_mask: _Tensor = None,
    src_key_padding_mask: _Tensor = None,
    tgt_key_padding_mask: _Tensor = None,
    memory_key_padding_mask: _Tensor = None,
    src_is_causal: bool | None = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> _Tensor:
    """Forward of `nn.Transformer` without checks of its inputs."""
    memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
    return self.decoder(
        tgt,
        memory,
        tgt_mask=tgt_mask,
        memory_mask=memory_mask,
        tgt_key_padding_mask=tgt_key_padding_mask,
        memory_key_padding_mask=memory_key_padding_mask,
        tgt_is_causal=tgt_is_causal,
        memory_is_causal=memory_is_causal,
    )


WRITTEN: dict[type[nn.Module], Any] = {
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerEncoder: _encoder,
    nn.TransformerDecoder: _decoder,
    nn.Transformer: _transformer,
}
OPEN = (nn.TransformerDecoderLayer,)
"""Further torch modules that the tracer traces into."""


KINDS: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(kind.__name__, (kind,), {"forward": forward, "__module__": __name__})
    for kind, forward in WRITTEN.items()
}
"""Subclasses of torch's transformer modules that run the forward methods above. Modules take these classes in the copy
of a model that is traced; torch's own classes are not patched, so other models in the process are unaffected."""
