"""The pool of earlier fakes that D is trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """Earlier fakes of one generator, some of which replace new ones in D's batch (Shrivastava et al. 2017).

    size: how many are kept; 0: none. Until the pool is full, each new fake is stored and returned; then each new fake
    replaces, with probability 1/2, a random stored one, which is returned instead (Zhu et al. 2017, section 4). shape:
    of a fake. The images are a buffer, so checkpoints contain them.
    """

    images: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]):
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))

    @torch.no_grad()
    def exchange(self, fakes: Tensor, draws: Tensor, seen: int) -> Tensor:
        """Return D's fakes for new fakes [B, ...]. draws: [B] in [0, 1). seen: how many fakes preceded these.

        >>> pool, draws = Pool(2, (1,)), torch.tensor([0.0, 0.0, 0.3, 0.9])
        >>> pool.exchange(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), draws, 0).flatten().tolist()
        [1.0, 2.0, 2.0, 4.0]
        >>> pool.images.flatten().tolist()
        [1.0, 3.0]
        """
        if not self.size:
            return fakes
        # Row by row, since one may replace another of the same batch; without reading values from the device.
        places = (draws * 2 * self.size).long()
        shown = []
        for k, fake in enumerate(fakes):
            if seen + k < self.size:
                self.images[seen + k] = fake
                shown.append(fake)
                continue
            place, swapped = places[k].clamp(max=self.size - 1), places[k] < self.size
            old = self.images.index_select(0, place[None])[0]
            shown.append(torch.where(swapped, old, fake))
            self.images.index_copy_(0, place[None], torch.where(swapped, fake, old)[None].to(old.dtype))
        return torch.stack(shown)
