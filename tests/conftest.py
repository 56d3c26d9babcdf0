"""What every test shares: one torch thread, no hub, and only then the imports; fixtures of several files."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from benchmarked import acts, inline
from watched_pages import browser

__all__ = ["acts", "browser", "inline"]

torch.set_num_threads(1)
