"""What games have in common whose generators take styles: style mixing, the mean of w, and sampling with styles."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.errors import CombinationError, ConfigError, RunError
from gancli.games.drawing import Option, Path, Styles
from gancli.games.game import Batch, Move, Result
from gancli.games.noise import Fakes, NoiseGame
from gancli.games.stages import Moment
from gancli.nets.freezing import is_frozen
from gancli.nets.layers.noise import NoiseMap, fixed, seen_inputs
from gancli.nets.styles import StyleGenerator

NOISE = "noise."  # prefix of the columns of noise maps; the rest is the layer's name in G


class StyledGame(NoiseGame):
    """Mixin: the noise game with styles w between latents and images; `take` comes after the other constructor.

    layers_truncated: layers that truncation applies to by default, from the coarsest; None: all.
    """

    styled: ClassVar[bool] = True
    layers_truncated: ClassVar[int | None] = None
    mixing: float
    w_decay: float

    def take(self, name: str, mixing: float, w_decay: float) -> None:
        """Set the style mixing and the decay of the mean of w, for the game of this name.

        mixing: probability that the fakes of a move take their styles from two latents each, with the first latent's up
        to a layer drawn for the whole batch (Karras et al. 2019, section 3.1). Raises CombinationError for a generator
        without styles and penalties on latents, ConfigError for numbers out of range.
        """
        for key, share in (("mixing", mixing), ("w_decay", w_decay)):
            if not 0 <= share <= 1:
                raise ConfigError(f"game.{key}={share:g}: a number from 0 to 1")
        if not isinstance(self.nets["G"], StyleGenerator):
            raise CombinationError(
                f"game={name} needs a generator with styles: use model=stylegan or model=stylegan2, or game=noise"
            )
        self.mixing, self.w_decay = mixing, w_decay
        penalties = self.critic.penalties.items()
        compares = next((name for name, penalty in penalties if penalty.needs_latents), None)
        if compares is not None:
            raise CombinationError(
                f"penalty={compares} compares samples of single latents without new noise, which this game"
                " does not draw: leave it out"
            )

    @property
    def generator(self) -> StyleGenerator:
        """G, as it is trained."""
        G = self.nets["G"]
        assert isinstance(G, StyleGenerator)
        return G

    def styles_in_use(self) -> int:
        """The number of layers that a step uses."""
        return self.generator.styles

    def _styled(self, rng: Rng, own: Tensor, y: Tensor | None) -> Tensor:
        """The styles of a move's fakes, [B, styles, w_dim]. own: those of their first latents, [B, w_dim]."""
        G = self.generator
        if not self.mixing:
            return own[:, None].expand(-1, G.styles, -1)
        other = G.mapping(self.latent.draw(rng, purpose="mixing"), y)
        # One draw for the whole batch, kept on the device.
        whole = rng.beside(*rng.parts, "mixing", total=1)
        cut = 1 + (whole.uniform("cut") * (self.styles_in_use() - 1)).floor()
        cut = torch.where(whole.uniform("mixed") < self.mixing, cut, float(G.styles))
        layer = torch.arange(G.styles, device=own.device, dtype=cut.dtype)
        return torch.where((layer < cut)[None, :, None], own[:, None], other[:, None])

    def _fakes(self, rng: Rng, batch: Batch | None = None, graph: bool = False) -> Fakes:
        y = self._classes(rng, batch, graph)
        with torch.set_grad_enabled(graph):
            own = self.generator.mapping(self.latent.draw(rng), y)
            w = self._styled(rng, own, y)
            if graph and not w.requires_grad:
                w.requires_grad_()  # of a frozen mapping: a penalty may differentiate by w
            images, means = self._drawn(w, own.detach().mean(0), rng, graph)
        return Fakes((images, y), means, w)

    def _drawn(self, w: Tensor, mean: Tensor, rng: Rng, graph: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The images of styles [B, styles, w_dim], and what `after` gets; mean: of the first latents' w, [w_dim]."""
        return self.nets["G"](None, w=w), {"w": mean}

    def after(self, move: Move, result: Result, rng: Rng, at: Moment) -> Mapping[str, Tensor] | None:
        """Update the moving average of w."""
        if "w" in result.means and not is_frozen(self.generator.mapping):
            mean = self.generator.mapping.mean
            mean.lerp_(result.means["w"].to(mean.dtype), 1 - self.w_decay)
        return super().after(move, result, rng, at)

    @property
    def eager(self) -> Mapping[str, str]:
        """G too, with a penalty on the slope of its images."""
        found = dict(super().eager)
        if any(penalty.needs_styles for penalty in self.critic.penalties.values()):
            found.setdefault("G", "its path length penalty needs a second derivative")
        return found

    # -- for code that samples, exports or monitors --------------------------------------------------------------------

    def sampling_options(self) -> Mapping[str, Option]:
        """`truncation`, in w, and the number of layers that it applies to."""
        return {
            "truncation": Option("ψ, by which the distance of w from its mean is multiplied"),
            "truncation_layers": Option("layers that truncation applies to, from the coarsest"),
        }

    def inputs(self, noise: Rng, given: Mapping[str, Tensor], direction: str = "", **options: float | None) -> Batch:
        """z, y if G is conditional and, with truncation, ψ of each layer, [rows, styles]."""
        batch = super().inputs(noise, given, direction)
        psi, layers = options.get("truncation"), options.get("truncation_layers")
        if psi is not None:
            number = torch.arange(self.generator.styles)
            most = self.layers_truncated if layers is None else layers
            each = torch.where(number < (len(number) if most is None else most), psi, 1.0)
            batch["psi"] = each.to(batch["z"]).expand(len(batch["z"]), -1)
        return batch

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        """G of w, [B, w_dim] or [B, styles, w_dim], or of z and y; with ψ, w is moved towards its mean.

        Columns `noise.LAYER`, [B, 1, H, W], are noise maps to use instead of drawn ones.
        """
        G: Any = nets["G"]
        w = styled(nets, inputs)
        maps = {name.removeprefix(NOISE): rows for name, rows in inputs.items() if name.startswith(NOISE)}
        with fixed(G, maps) if maps else nullcontext():
            images = G(None, w=w)
        return {"x": self.finished(nets, images)}

    def finished(self, nets: Mapping[str, nn.Module], images: Tensor) -> Tensor:
        """G's images at the size of the data."""
        return images

    def interpolation_paths(self, direction: str = "") -> Mapping[str, Path]:
        """Between latents, between styles, and between classes."""
        found = dict(super().interpolation_paths(direction))
        return {"z": found.pop("z"), "w": Path("w", "line", made=self.styles(direction).made)} | found

    def styles(self, direction: str = "") -> Styles:
        """w of each layer, and what edits and projections need of G and D."""
        G = self.generator
        side = min(self.fields["x"].shape[1:])
        last = G.side_of(G.styles - 1)
        sides = tuple(side >> (last - G.side_of(k)) for k in range(G.styles))

        def made(nets: Mapping[str, nn.Module], inputs: Batch) -> Tensor:
            G: Any = nets["G"]
            w: Tensor = G.mapping(inputs["z"], inputs.get("y"))
            return w

        def moved(nets: Mapping[str, nn.Module], inputs: Batch) -> Tensor:
            G: Any = nets["G"]
            w: Tensor = G.each(styled(nets, inputs))
            return w

        def weights(nets: Mapping[str, nn.Module]) -> list[Tensor]:
            G: Any = nets["G"]
            found: list[Tensor] = G.style_weights()
            return found

        return Styles("w", sides, made, moved, weights, _maps, "D", _seen)


def styled(nets: Mapping[str, nn.Module], inputs: Batch) -> Tensor:
    """The given or mapped styles, after truncation if there is ψ."""
    G: Any = nets["G"]
    w: Tensor = inputs["w"] if "w" in inputs else G.mapping(inputs["z"], inputs.get("y"))
    return G.truncated(w, inputs["psi"]) if "psi" in inputs else w


@torch.no_grad()
def _maps(nets: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """The shapes of the noise maps that G's layers in use take, by column."""
    G: Any = nets["G"]
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, x: Tensor) -> None:
        found[NOISE + name] = (1, *x.shape[2:])

    with seen_inputs(G, NoiseMap, note):
        G(None, w=G.mapping.mean[None])
    return found


def _seen(nets: Mapping[str, nn.Module], x: Tensor) -> list[Tensor]:
    """What D's blocks make of images, from the largest size: the features at half of each size in use."""
    D: Any = nets["D"]
    if not hasattr(D, "blocks") or not hasattr(D, "conditional"):
        raise RunError(
            f"{type(D).__module__}.{type(D).__name__} has no blocks to compare images by: add project_lpips=FILE"
        )
    kept: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda m, args, out: kept.append(out)) for block in D.blocks]
    try:
        y = torch.zeros(len(x), dtype=torch.int64, device=x.device)  # blocks come before the label's part
        D(x, y) if D.conditional else D(x)
    finally:
        for hook in hooks:
            hook.remove()
    return kept
