"""Rubrics as the reward functions of other people's trainers. None of these modules needs its trainer."""

from rubriscope.adapters import ray, trl, verl

__all__ = ["ray", "trl", "verl"]
