"""Where tests find the repository, golden numbers, samples and recipes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
SAMPLES = ROOT / "samples"
RECIPES = ROOT / "training" / "recipes"
