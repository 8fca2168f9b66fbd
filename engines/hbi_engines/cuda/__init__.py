"""NVIDIA's driver, memory and kernel launches, through its own bindings."""
