"""Tasks on tokens: search, answers, captions, explanations."""
