"""A small classifier of a data set's classes, trained on its real images and cached in the user's cache directory."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.compute.rng import Rng, key
from gancli.data import cache
from gancli.data.source import Source, order
from gancli.errors import RunError, WeightsError
from gancli.metrics.images import Progress, eight_bits
from gancli.pretrained import weights as files
from gancli.store.files import whole_file

VERSION = 1  # increase it if a change below changes the trained weights; part of the cache key and of the protocol
BATCH, RATE, LARGEST, SHIFT = 64, 4e-3, 32, 1
SMOOTHING = 0.1  # label smoothing, so that the classifier does not become overconfident on few images
HELD_OUT = 5  # one image in HELD_OUT of a fixed shuffle is held out


@dataclass
class Classifier:
    """A trained network, and its accuracy on held-out real images."""

    net: nn.Module
    accuracy: float
    trained_on: int
    held_out: int

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> the most likely class of each, int64 [B]."""
        self.net.eval()
        return torch.cat([self.net(prepared(part)).argmax(1) for part in torch.split(images, 256)])


def network(channels: int, classes: int) -> nn.Module:
    """Return five 3×3 convolutions with batch norm (two of stride 2), global average pooling and a dense layer."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((channels, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


def prepared(images: Tensor) -> Tensor:
    """Scale stored images to [-1, 1]; downsample by area if the shorter side has more than 32 pixels."""
    x = eight_bits(images).float() / 127.5 - 1
    shrink = min(x.shape[2:]) / LARGEST
    if shrink > 1:
        x = F.interpolate(x, size=[round(side / shrink) for side in x.shape[2:]], mode="area")
    return x


def obtain(source: Source, seen: int, progress: Progress | None = None) -> Classifier:
    """Return the classifier of this data set: from the cache, or trained on `seen` images, counted with repeats.

    The same data give the same classifier. The global random state does not change.
    """
    trained, held_out = split(source)
    place = cache.place("classifiers") / f"{_name(source, seen)}.pt"
    net = _fresh(source)
    with contextlib.suppress(WeightsError, RuntimeError, KeyError):
        state, _ = files.read(place)
        accuracy = float(state.pop("accuracy"))
        net.load_state_dict(state)
        return Classifier(net, accuracy, len(trained), len(held_out))
    net = _fresh(source)
    _train(net, source, trained, seen, progress)
    made = Classifier(net, 0.0, len(trained), len(held_out))
    held = source.rows(held_out.numpy())
    made.accuracy = float((made.predict(held["x"]) == held["y"]).double().mean())
    # If the cache cannot be written, the next evaluation trains again.
    with contextlib.suppress(RunError), whole_file(place) as file:
        torch.save({**net.state_dict(), "accuracy": torch.tensor(made.accuracy, dtype=torch.float64)}, file)
    return made


def taught(source: Source, seen: int, progress: Progress | None = None) -> Classifier:
    """A classifier of all of these images, not kept: `seen` of them, counted with repeats."""
    net = _fresh(source)
    _train(net, source, torch.arange(len(source)), seen, progress)
    return Classifier(net, 0.0, len(source), 0)


def _fresh(source: Source) -> nn.Module:
    """An untrained network, the same for the same data."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key("classifier", source.fingerprint))
        return network(source.shape[0], len(source.classes)).to(memory_format=torch.channels_last)


def split(source: Source) -> tuple[Tensor, Tensor]:
    """Return the indices of the training and of the held-out images: a fifth of a shuffle keyed by the fingerprint."""
    shuffled = torch.from_numpy(order(len(source), "classifier", source.fingerprint))
    held = torch.arange(len(source)) % HELD_OUT == 0
    return shuffled[~held], shuffled[held]


def _train(net: nn.Module, source: Source, rows: Tensor, seen: int, progress: Progress | None) -> None:
    """Train with Adam and a one-cycle learning rate, on images shifted by up to one pixel."""
    found = source.rows(rows.numpy())
    x, labels = prepared(found["x"]), found["y"]
    steps = -(-seen // BATCH)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)
    net.train()
    for step in range(steps):
        rng = Rng("classifier", source.fingerprint, step, total=BATCH)
        at = rng.integers("row", len(x))
        down, right = (rng.integers("shift", 2 * SHIFT + 1, 2)[0] - SHIFT).tolist()
        batch = F.pad(x[at], [SHIFT] * 4, mode="replicate")
        height, width = x.shape[2:]
        batch = batch[:, :, SHIFT + down : SHIFT + down + height, SHIFT + right : SHIFT + right + width]
        if source.flip and step % 2:
            batch = batch.flip(3)
        logits = net(batch.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, labels[at], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress("classifier: batches", step + 1, steps)


def _name(source: Source, seen: int) -> str:
    parts = (VERSION, source.fingerprint, source.shape, seen)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
