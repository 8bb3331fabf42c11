"""Any convolutional feature extractor of timm as a backbone; needs ``monolift[timm]`` (which brings torchvision)."""

from __future__ import annotations

from monolift.errors import InputError, MissingExtraError
from monolift.nn.backbones import EncoderBackbone
from monolift.nn.pretrained import ReleasedNames
from monolift.nn.resnet import FPNUp
from monolift.typing import Float, Tensor

UNUSED = (
    r"(fc|head|classifier|conv_head|bn2|norm)\.",
)  # what a feature extractor leaves out of a classifier


class TimmFPN(EncoderBackbone):
    """A timm model's maps of strides 4 to 32, joined to one stride-4 map as ``ResNetFPN`` does.

    Nothing is downloaded: weights come from a file, in timm's own names, into ``base``.
    """

    def __init__(self, name: str, out_channels: int = 64) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise MissingExtraError(f"the backbone timm:{name}", "timm") from error
        try:
            probe = timm.create_model(name, features_only=True, pretrained=False)
        except RuntimeError as error:
            raise InputError(
                f"backbone timm:{name}: timm has no feature extractor of that name ({error})"
            ) from None
        wanted = [k for k, stride in enumerate(probe.feature_info.reduction()) if 4 <= stride <= 32]
        strides = [probe.feature_info.reduction()[k] for k in wanted]
        if strides != [4, 8, 16, 32]:
            raise InputError(f"backbone timm:{name}: expected maps of strides 4, 8, 16, 32, got {strides}")
        self.out_channels = out_channels
        base = timm.create_model(name, features_only=True, pretrained=False, out_indices=wanted)
        base.released_names = ReleasedNames(f"timm's {name}", (), UNUSED)
        self.base = base
        self.up = FPNUp(base.feature_info.channels(), out_channels, "batch")

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b o oh ow"]:
        return self.up(self.base(image))
