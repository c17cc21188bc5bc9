"""A trained network in a file."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import torch

from .network import PhyAtteN_R32
from .training import Settings


def keep(path: Path, network: PhyAtteN_R32, settings: Settings, seed: int) -> None:
    """Writes a network and what it was trained with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    described = {"settings": dataclasses.asdict(settings), "seed": seed}
    torch.save({"first_light": described, "network": network.state_dict()}, path)


def load(path: Path) -> tuple[PhyAtteN_R32, Settings, int]:
    """A network, and the settings and the seed it was trained with.

    Raises:
        ValueError: the file is none of :func:`keep`'s.
    """
    try:
        kept = torch.load(path, weights_only=True)
        settings, seed = Settings(**kept["first_light"]["settings"]), int(kept["first_light"]["seed"])
        network = PhyAtteN_R32()
        network.load_state_dict(kept["network"])
    except (KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} holds no network of First Light: {str(error).splitlines()[0]}") from error
    return network.requires_grad_(False), settings, seed
