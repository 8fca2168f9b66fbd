"""Versions of what makes bundles, where they can be read without the packages that making one needs."""

from __future__ import annotations

CONVERTER_VERSION = 2
"""Number that grows whenever the same files of a model give another bundle."""

EVERYDAY_VERSION = 2
"""Version of the recipe of `everyday`; a bundle of another one is built anew."""
