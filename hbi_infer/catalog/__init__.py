"""Models by name: what a name means, where its bundle lies, and how it comes from the hub."""
