"""What is done with tokens: search, answers, captions, explanations."""
