"""Builders of test data: tiny bundles, tiny models, real video files, kernel hosts."""
